"""The networks that segment with any subset of scans, each with its objective: what `finetune segment` can train."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from medprism.data.cache import Cache
from medprism.methods.segmentation import Segmentation
from medprism.models.prism import NetworkConfig
from medprism.models.segmenter import Segmenter, SegmenterConfig
from medprism.training.module import Objective
from medprism.training.patches import check_size
from medprism.training.run import plain
from medprism.training.start import Part, Start

Size = tuple[int, int, int]


class Network(Protocol):
    """A network that segments; see `medprism.models.segmenter.Segmenter`."""

    patch_size: Size
    divisor: int


class Family(Protocol):
    """A kind of network and what it is trained for."""

    def settings(self) -> dict[str, Any]:
        """What the run's configuration says of it, plain JSON."""
        ...

    @property
    def seen(self) -> tuple[str, ...]:
        """Digests of the persons that weights or targets come from."""
        ...

    @property
    def idle(self) -> bool:
        """Whether some parameters have no gradient in some steps."""
        ...

    def network(self, cache: Cache, classes: int, patch_size: Size) -> Any:  # noqa: ANN401 - a `Network` and a module
        """The network, fresh or filled."""
        ...

    def objective(self, task: Segmentation, network: Any) -> Objective:  # noqa: ANN401
        """What it is trained for."""
        ...

    def card(self) -> dict[str, Any]:
        """What model.json says besides what all segmenters' say."""
        ...


@dataclass(frozen=True)
class PrismFamily:
    """PUIR's: a prism with classes for modalities in its output (Algorithm 2).

    Attributes:
        start: where the weights come from.
        segmenter: how several scans become one segmentation.
    """

    start: Start
    segmenter: SegmenterConfig

    def settings(self) -> dict[str, Any]:
        """What the run's configuration says of it, plain JSON."""
        return {
            "init": self.start.identity,
            "part": self.start.part if self.start.identity else None,
            "segmenter": plain(self.segmenter),
            "network": plain(self.start.network),
        }

    @property
    def seen(self) -> tuple[str, ...]:
        """Those of the model that it starts from."""
        return self.start.seen

    @property
    def idle(self) -> bool:
        """Where every sub-volume of a batch is seen through one scan, nothing is weighed and the gates are idle."""
        return (self.segmenter.combine, self.segmenter.fusion) == ("fused", "gates")

    def network(self, cache: Cache, classes: int, patch_size: Size) -> Segmenter:
        """The network, filled from the start."""
        shape: NetworkConfig = self.start.network
        network = Segmenter(shape, self.segmenter, len(cache.modalities), classes, self.start.patch_size or patch_size)
        check_size(network.prism, patch_size)
        self.start.fill(network)
        return network

    def objective(self, task: Segmentation, network: Segmenter) -> Segmentation:
        """The task's own."""
        return task

    def card(self) -> dict[str, Any]:
        """Where the weights come from."""
        return {"initialised_from": self.start.identity}


@dataclass(frozen=True)
class Choice:
    """What `finetune segment` is told to train.

    Attributes:
        init: model or run that a prism starts from; from nothing if not given.
        part: what of it is taken.
        segmenter: how a prism combines several scans.
        network: a prism's shape, for a start from nothing.
    """

    init: Path | None = None
    part: Part = "model"
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)

    def family(self, cache: Cache) -> Family:
        """The network that is chosen.

        Raises:
            UserError: start and cache do not fit together.
        """
        return PrismFamily(Start.of(self.init, self.part, self.network, cache), self.segmenter)
