"""What of a trained network becomes a graph: tensors in, tensors out, the same operations for every subset of scans."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, combinations

import torch
from torch import Tensor, nn

from medprism.errors import UserError
from medprism.export.attention import plain
from medprism.export.dense import DenseClassifier, DenseSegmenter, DenseTransfer
from medprism.export.dense_families import DenseACN, DenseMmFormer, DenseStudent, DenseTeacher
from medprism.models.acn import ACN
from medprism.models.classifier import Classifier
from medprism.models.mmformer import MmFormer
from medprism.models.pmkl import Student, Teacher
from medprism.models.prism import Prism
from medprism.models.segmenter import Segmenter

FORMS: dict[type[nn.Module], type[nn.Module]] = {
    Prism: DenseTransfer,
    Segmenter: DenseSegmenter,
    Classifier: DenseClassifier,
    MmFormer: DenseMmFormer,
    Teacher: DenseTeacher,
    Student: DenseStudent,
    ACN: DenseACN,
}

EAGER = {"transfer": "generate", "segmentation": "segment", "classification": "features"}
"""Task -> the network's own function, from images and present, that its graph stands for."""


@dataclass(frozen=True)
class Traceable:
    """A network that can be traced, and what it is to be compared with.

    Attributes:
        graph: (B, M, X, Y, Z) images and (B, M) present to the output; NaN of a subject whose subset it does not serve.
        network: the trained network.
        eager: name of its function for the same.
        output: name of what comes out.
        subsets: which of the M modalities are present, each a subset that the network serves.
        shape: (M, X, Y, Z) of one window.
    """

    graph: nn.Module
    network: nn.Module
    eager: str
    output: str
    subsets: tuple[tuple[int, ...], ...]
    shape: tuple[int, int, int, int]


class Guarded(nn.Module):
    """A graph that never reads what is absent, and says NaN where it cannot say anything.

    Args:
        dense: takes scans that are zero where absent.
        only: (M,) bool, the one subset that it serves; None for any that is not empty.
    """

    only: Tensor | None

    def __init__(self, dense: nn.Module, only: Tensor | None) -> None:
        super().__init__()
        self.dense = dense
        self.register_buffer("only", only, persistent=False)

    def forward(self, images: Tensor, present: Tensor) -> Tensor:
        """Images (B, M, X, Y, Z), anything where not `present` (B, M), to (B, ...)."""
        served = present.any(dim=1) if self.only is None else (present == self.only).all(dim=1)
        out: Tensor = self.dense(torch.where(present[:, :, None, None, None], images, 0.0), present)
        return torch.where(served.view(-1, *[1] * (out.ndim - 1)), out, torch.nan)


def traceable(network: nn.Module, task: str, names: Mapping[str, str]) -> Traceable:
    """A trained network in a form that can be traced; the network itself stays as it is.

    Args:
        network: on the CPU.
        task: of its card.
        names: task -> name of the output.

    Raises:
        UserError: there is no such form of the network.
    """
    form = next((form for kind, form in FORMS.items() if type(network) is kind), None)
    if form is None:
        raise UserError(
            f"expected a network that can be a graph ({', '.join(kind.__name__ for kind in FORMS)}), got "
            f"{type(network).__name__}; give --format bundle"
        )
    network = network.eval()
    copied = plain(copy.deepcopy(network))
    shape = copied.prism if isinstance(copied, Segmenter | Classifier) else copied
    modalities, patch = int(shape.modalities), tuple(shape.patch_size)  # type: ignore[arg-type]
    only = _only(network, modalities)
    every = chain.from_iterable(combinations(range(modalities), size) for size in range(1, modalities + 1))
    subsets = tuple(every) if only is None else (tuple(only.nonzero()[:, 0].tolist()),)
    graph = Guarded(form(copied), only).eval().requires_grad_(False)
    return Traceable(graph, network, EAGER[task], names[task], subsets, (modalities, *patch))


def _only(network: nn.Module, modalities: int) -> Tensor | None:
    """The one subset (M,) that a network was made for; None for any."""
    if isinstance(network, Student) and bool(network.given.any()):
        return network.given.clone()
    if isinstance(network, ACN) and network.config.given:
        return network.only(torch.ones(modalities, dtype=torch.bool))
    return None
