"""The drawn figures: training curves, model against rivals for every pair, scores over the number of missing scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from medprism.evaluation.results import Results, Row
from medprism.evaluation.subset_tables import mean_row
from medprism.evaluation.subset_tasks import Number
from medprism.evaluation.subsets import ONE, missing
from medprism.evaluation.tables import ARROWS, HEADLINE, METHODS, NAMES
from medprism.report.runs import Log
from medprism.report.style import INK, LINE, METHOD_COLOURS, category, styled, svg_uri

_DULL = ("lr", "seconds")
_VALIDATED = {"val/psnr": "validation PSNR, dB", "val/dice": "validation Dice", "val/auc": "validation AUC"}
MOST_PAIRS = 42


def curves(logs: Mapping[str, Log]) -> str | None:
    """Training curves as one figure: total loss, its parts, validation.

    Args:
        logs: run name -> curves. The parts are drawn for a single run only.

    Returns:
        A `data:` URI, or None where nothing was logged.
    """
    logs = {name: {k: v for k, v in log.items() if k.split("/")[-1] not in _DULL} for name, log in logs.items()}
    logs = {name: log for name, log in logs.items() if log}
    if not logs:
        return None
    with styled():
        panels = [_total, _validation] if len(logs) > 1 else [_total, _parts, _validation]
        figure = Figure(figsize=(11.4, 2.9))
        for axes, draw in zip(figure.subplots(1, len(panels)), panels, strict=True):
            draw(axes, logs)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if axes.get_yscale() == "linear":
                axes.yaxis.set_major_locator(MaxNLocator(5))
            if not axes.lines:
                axes.text(0.5, 0.5, "not logged", ha="center", va="center", transform=axes.transAxes, color=INK)
        figure.tight_layout(w_pad=2.5)
        return svg_uri(figure)


def _total(axes: Axes, logs: Mapping[str, Log]) -> None:
    axes.set_title("training loss")
    for number, (run, log) in enumerate(logs.items()):
        _line(axes, log.get("train/loss", []), run, category(number))
    if len(logs) > 1:
        axes.legend()


def _parts(axes: Axes, logs: Mapping[str, Log]) -> None:
    axes.set_title("its parts (logarithmic)")
    (log,) = logs.values()
    names = [name for name in log if name.startswith("train/") and name != "train/loss"]
    for number, name in enumerate(names):
        _line(axes, [(x, y) for x, y in log[name] if y > 0], name.removeprefix("train/"), category(number + 1))
    if axes.lines:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.margins(y=0.3)  # room for the legend over curves that fall
        axes.legend(loc="upper right", ncols=2)


def _validation(axes: Axes, logs: Mapping[str, Log]) -> None:
    names = {name for log in logs.values() for name in log if name in _VALIDATED}
    axes.set_title(" / ".join(_VALIDATED[name] for name in sorted(names)) or "validation")
    for number, (run, log) in enumerate(logs.items()):
        name = next((name for name in _VALIDATED if name in log), "")
        points = log.get(name, [])
        _line(axes, points, run, category(number))
        if points:
            x, y = max(points, key=lambda point: point[1])
            axes.plot([x], [y], "o", color=category(number), markersize=5)
            label = f"{y:.2f}" if name == "val/psnr" else f"{y:.3f}"
            axes.annotate(label, (x, y), (0, 6), textcoords="offset points", ha="center", fontsize=9, color=INK)
    axes.margins(y=0.15)


def _line(axes: Axes, points: Sequence[tuple[float, float]], label: str, colour: str) -> None:
    if points:
        x, y = zip(*points, strict=True)
        # matplotlib leaves labels that begin with an underscore out of the legend
        axes.plot(x, y, label=label.lstrip("_"), color=colour, linewidth=1.6, marker="o" if len(points) == 1 else None)


def pairs(results: Results, protocol: str, metric: str = "psnr") -> str | None:
    """Model and rivals for every pair, as dots with their 95 % intervals; a `data:` URI.

    Returns:
        None if there is no pair, or more than a figure can hold.
    """
    rows = {
        (row.given[0], row.target, row.method): row
        for row in results.select(protocol=protocol, group="pair", region=HEADLINE[protocol], metric=metric)
        if len(row.given) == 1
    }
    names = list(dict.fromkeys((given, target) for given, target, _ in rows))
    if not names or len(names) > MOST_PAIRS:
        return None
    names.sort(key=lambda pair: (results.head["modalities"].index(pair[1]), results.head["modalities"].index(pair[0])))
    with styled():
        figure = Figure(figsize=(11.4, 0.75 + 0.3 * len(names)))
        axes = figure.subplots()
        for number, pair in enumerate(names):
            for method in reversed(METHODS):
                if row := rows.get((*pair, method)):
                    _dot(axes, row, number, method, label=method if number == 0 else "")
            if number and names[number - 1][1] != pair[1]:
                axes.axhline(number - 0.5, color=LINE, linewidth=0.8)
        axes.set_yticks(range(len(names)), [f"{given} → {target}" for given, target in names], color=INK)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{NAMES[metric]} {ARROWS[metric]}, {HEADLINE[protocol]}")
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="lower right", ncols=3, bbox_to_anchor=(0.98, 1.0))
        figure.tight_layout()
        return svg_uri(figure)


def _dot(axes: Axes, row: Row, y: int, method: str, *, label: str) -> None:
    if row.mean is None:
        return
    size = 7 if method == "model" else 5.5
    shift = {"model": -0.16, "lookup": 0.05, "identity": 0.22}[method]
    colour = METHOD_COLOURS[method]
    if row.ci95 is not None:
        axes.plot(row.ci95, [y + shift] * 2, color=colour, linewidth=1.6, alpha=0.55, solid_capstyle="round")
    axes.plot([row.mean], [y + shift], "o", color=colour, markersize=size, label=label or None)


def by_missing(series: Sequence[tuple[str, Results, str]], numbers: Sequence[Number]) -> str | None:
    """Numbers over the number of missing scans, a panel for each; a `data:` URI.

    Args:
        series: (label, results, method) of each curve.
        numbers: to draw.

    Returns:
        None where there are fewer than two numbers of scans to draw.
    """
    total = len(series[0][1].head["modalities"])
    groups = [ONE, *(missing(count) for count in range(1, total))]
    with styled():
        figure = Figure(figsize=(max(5.2, min(12.5, 4.1 * len(numbers))), 3.1))
        panels = figure.subplots(1, len(numbers), sharey=True, squeeze=False)[0]
        for axes, one in zip(panels, numbers, strict=True):
            for number, (label, results, method) in enumerate(series):
                rows = [mean_row(results, method, one.region, one.metric, group) for group in groups]
                known = [(x, row, row.mean) for x, row in enumerate(rows) if row is not None and row.mean is not None]
                if len(known) < 2:
                    continue
                colour = category(number)
                _line(axes, [(x, mean) for x, _, mean in known], label, colour)
                axes.lines[-1].set_marker("o")
                ends = [row.ci95 or (mean, mean) for _, row, mean in known]
                axes.fill_between([x for x, _, _ in known], *zip(*ends, strict=True), color=colour, alpha=0.12, lw=0)
            axes.set_title(one.title)
            axes.set_xlabel("missing scans")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not any(axes.lines for axes in panels):
            return None
        panels[0].set_ylabel(numbers[0].axis)
        if len(series) > 1:
            panels[-1].legend()
        figure.tight_layout(w_pad=2.0)
        return svg_uri(figure)
