"""Colours and the two ways in which pictures get into a page that needs no other file."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
from contextlib import contextmanager

INK, MUTED, LINE = "#1d2733", "#64717f", "#dfe4ea"
MODEL, LOOKUP, IDENTITY = "#0f6e84", "#c27c2c", "#9aa5b1"
METHOD_COLOURS = {"model": MODEL, "lookup": LOOKUP, "identity": IDENTITY}

# Distinguishable by colour-blind readers (after Okabe and Ito 2008), darkened for thin marks on white.
CATEGORIES = (
    "#0f6e84",
    "#c8553d",
    "#7a5ba8",
    "#3f8f4f",
    "#c29a1b",
    "#3566b8",
    "#b0487f",
    "#5f6b76",
    "#8a5a33",
    "#2aa198",
)

GREYS = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
DIVERGING = (np.asarray(mpl.colormaps["RdBu_r"](np.linspace(0, 1, 256)))[:, :3] * 255).round().astype(np.uint8)

_FONTS = "system-ui, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans'"
_STYLE: Any = {  # Any: matplotlib types the keys one by one
    "svg.fonttype": "none",  # text stays text, in the reader's own fonts
    "svg.hashsalt": "medprism",
    "text.parse_math": False,  # names may hold a dollar sign
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eef1f4",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": INK,
}


@contextmanager
def styled() -> Iterator[None]:
    """The look of all figures, within the block only."""
    with mpl.rc_context(_STYLE):
        yield


def svg_uri(figure: Figure) -> str:
    """A figure as `data:` URI, the same bytes for the same figure."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", bbox_inches="tight", pad_inches=0.05, metadata={"Date": None}, transparent=True
    )
    text = buffer.getvalue().replace("'DejaVu Sans'", _FONTS)
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def file_uri(path: Path) -> str:
    """A PNG file as `data:` URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def png_uri(values: NDArray[Any], low: float, high: float, palette: NDArray[np.uint8] = GREYS) -> str:
    """An image as `data:` URI: an 8-bit PNG with a palette, a third of the bytes of a coloured one.

    Args:
        values: (rows, columns).
        low: value of the first colour.
        high: value of the last one.
        palette: (256, 3) colours.
    """
    scaled = np.nan_to_num((np.asarray(values, dtype=np.float32) - low) / max(high - low, 1e-6) * 255)
    indices = scaled.round().clip(0, 255).astype(np.uint8)
    rows, columns = indices.shape
    raw = np.concatenate([np.zeros((rows, 1), np.uint8), indices], axis=1).tobytes()  # each row unfiltered
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", header), (b"PLTE", palette.tobytes()), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()


def category(index: int) -> str:
    """A colour for the index-th of several things."""
    return CATEGORIES[index % len(CATEGORIES)]
