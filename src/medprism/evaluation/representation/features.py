"""z and x_h of every crop in every modality, straight and turned."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medprism.errors import UserError
from medprism.evaluation.representation.crops import crops
from medprism.inference.device import Precision, Runner, choose_device
from medprism.methods.views import ABOUT_Z, Rotation
from medprism.models.prism import Prism

if TYPE_CHECKING:
    from medprism.data.cache import Entry


@dataclass(frozen=True)
class Features:
    """N rows, one for each crop in each modality that its subject has.

    Attributes:
        subject: (N,) whose.
        person: (N,) who that is.
        modality: (N,) place in the cohort's order.
        crop: (N,) number of the crop, counted over all subjects.
        place: (N,) index into `PLACES`.
        vectors: (N, 2, T, C) means over space of z and x_h, for each of T turns of the crop, the straight one first.
        error: (N, 2) squared distance of the map of the turned crop to the turned map of the crop, summed over
            channels, averaged over voxels and turns; NaN with one turn.
        power: (N, 2) squared length of the straight map's voxels, averaged over voxels.
    """

    subject: NDArray[np.str_]
    person: NDArray[np.str_]
    modality: NDArray[np.int64]
    crop: NDArray[np.int64]
    place: NDArray[np.int64]
    vectors: NDArray[np.float64]
    error: NDArray[np.float64]
    power: NDArray[np.float64]


class Bottleneck(nn.Module):
    """A network as far as x_h, or as far as it looks at each scan by itself, in the words of `Runner`.

    Attributes:
        patch_size: of the network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        x, y, z = network.patch_size  # type: ignore[misc]
        self.patch_size: tuple[int, int, int] = (int(x), int(y), int(z))

    def embed(self, images: Tensor, present: Tensor) -> Tensor:
        """Scans (B, M, X, Y, Z) and (B, M) present to maps (N, 2, C, x, y, z), N in the order of `images[present]`."""
        if not isinstance(self.network, Prism):
            z: Tensor = self.network.scan_maps(images, present)  # type: ignore[operator]
            return torch.stack([z, z], dim=1)
        z = self.network.bottleneck(images[present][:, None], present.nonzero()[:, 1])
        return torch.stack([z, self.network.personalise(z)], dim=1)


def bottleneck_of(network: nn.Module, card: Mapping[str, Any]) -> Bottleneck:
    """What a network of any task makes of each scan: shared encoder and prior, or an encoder of its own.

    Raises:
        UserError: it does not look at single scans.
    """
    inner = getattr(network, "prism", network)
    if not isinstance(inner, Prism) and not hasattr(inner, "scan_maps"):
        raise UserError(
            f"expected a model that encodes each scan, got {type(network).__name__} for "
            f"{card.get('task', 'transfer')}; evaluate what pretrain made, or what was fine-tuned from it whole"
        )
    return Bottleneck(inner)


def runner_of(bottleneck: Bottleneck, device: str, precision: Precision) -> Runner:
    """The network on its device, several small crops at once."""
    runner = Runner(bottleneck, choose_device(device), precision)
    if runner.device.type == "cpu":
        runner.batch = min(8, max(1, 64**3 // math.prod(bottleneck.patch_size)))
    return runner


def turns_of(patch_size: Sequence[int]) -> tuple[Rotation, ...]:
    """The four quarter turns in the X-Y plane, or the first alone where the patch is no square there."""
    return ABOUT_Z if patch_size[0] == patch_size[1] else ABOUT_Z[:1]


def gather(runner: Runner, entries: Iterable[Entry], patch_size: Sequence[int]) -> Features:
    """The features of subjects.

    Args:
        runner: a `Bottleneck` on its device.
        entries: prepared subjects.
        patch_size: x, y, z in voxels.

    Raises:
        UserError: no subject has a crop with foreground.
    """
    turns = turns_of(patch_size)
    labels: list[tuple[str, str, int, int, int]] = []
    parts: list[tuple[NDArray[np.float32], ...]] = []  # vectors, error and power of each crop
    crop = 0
    for entry in entries:
        present = np.flatnonzero(entry.present).tolist()
        for place, images in crops(entry.images(), entry.foreground(), patch_size):
            parts.append(_of_crop(runner, images, entry.present, turns))
            labels += [(entry.subject, entry.person, modality, crop, place) for modality in present]
            crop += 1
    if not labels:
        raise UserError("expected subjects with a tenth of foreground somewhere, got none; look at them with inspect")
    subject, person, modality, number, place_of = (np.array(column) for column in zip(*labels, strict=True))
    vectors, error, power = (np.concatenate(each).astype(np.float64) for each in zip(*parts, strict=True))
    return Features(subject, person, modality, number, place_of, vectors, error, power)


def _of_crop(
    runner: Runner, images: NDArray[np.float32], present: Sequence[bool], turns: Sequence[Rotation]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """`vectors`, `error` and `power` of one crop (M, x, y, z) in its n present modalities."""
    straight = torch.from_numpy(np.ascontiguousarray(images))
    here = torch.tensor(present).expand(len(turns), -1)
    maps = runner.embed(torch.stack([turn(straight) for turn in turns]), here)
    maps = maps.reshape(len(turns), -1, *maps.shape[1:])  # (T, n, 2, C, x, y, z)
    off = [_length(maps[number] - turn(maps[0])) for number, turn in enumerate(turns) if number]
    error = torch.stack(off).mean(dim=0) if off else torch.full(maps.shape[1:3], math.nan)
    vectors = maps.mean(dim=(4, 5, 6)).permute(1, 2, 0, 3)
    return vectors.numpy(), error.numpy(), _length(maps[0]).numpy()


def _length(maps: Tensor) -> Tensor:
    """Squared length of the voxels of (n, 2, C, x, y, z), averaged over voxels: (n, 2)."""
    return maps.square().sum(dim=2).mean(dim=(2, 3, 4))
