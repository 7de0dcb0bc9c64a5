"""Make body-phantom.png: `python docs/images/body_phantom.py`."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from medprism.phantoms import Body, body_subject

mpl.use("Agg")
import matplotlib.pyplot as plt

SHOWN = {"ct": ("gray", -400, 400), "pet": ("gray_r", 0, 6), "nac": ("gray_r", 0, None)}


def views(body: Body, image: np.ndarray, height: float) -> list[np.ndarray]:
    """A transversal and the frontal slice through the middle."""
    z = int(height * image.shape[2])
    return [image[:, :, z].T, image[:, int(0.52 * image.shape[1])].T]


def main() -> None:
    """Two persons, three scans each."""
    people = [(body_subject(0, 0, 4.0, "torso", "B"), 0.53), (body_subject(0, 0, 4.0, "head-neck", "B"), 0.49)]
    figure, axes = plt.subplots(2, 6, figsize=(13, 5))
    for row, (body, height) in zip(axes, people, strict=True):
        for column, (name, (colours, low, high)) in enumerate(SHOWN.items()):
            image = body.images[name]
            top = np.percentile(image, 99.5) if high is None else high
            for i, view in enumerate(views(body, image, height)):
                row[2 * column + i].imshow(view, colours, vmin=low, vmax=top, origin="lower")
                row[2 * column + i].axis("off")
            row[2 * column].set_title(name, fontsize=9)
    figure.tight_layout(pad=0.3)
    figure.savefig(Path(__file__).with_name("body-phantom.png"), dpi=72)


if __name__ == "__main__":
    main()
