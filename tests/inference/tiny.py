"""A network without weights and heads without anatomy, for tests of what surrounds a network."""

import nibabel as nib
import numpy as np
import torch
from torch import nn

from medprism.data.intensity import DEFAULT_NORMALISERS, Scale
from medprism.models.folder import save_model

MODALITIES = ("t1n", "t2w", "t2f")
TYPICAL = {"t1n": Scale(100, 20, -5, 5), "t2w": Scale(300, 50, -5, 5), "t2f": Scale(500, 80, -5, 5)}


class Mean(nn.Module):
    """Every modality is the mean of the given ones; pointwise, thus equivariant."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def generate(self, images, present):
        given = torch.where(present[:, :, None, None, None], images, 0).sum(1, keepdim=True)
        mean = given / present.sum(1).view(-1, 1, 1, 1, 1)
        return self.gain * mean.expand_as(images)

    def embed(self, images, present):
        return torch.where(present[:, :, None], images.mean((2, 3, 4))[..., None].expand(-1, -1, 4), 0)


class Smooth(Mean):
    """As `Mean`, blurred: sees its window's border."""

    def generate(self, images, present):
        return nn.functional.avg_pool3d(super().generate(images, present), 3, 1, 1)


def card(modalities=MODALITIES, typical=None, **extra):
    typical = TYPICAL if typical is None else typical
    return {
        "architecture": {"network": {}},
        "modalities": list(modalities),
        "normalisers": {name: DEFAULT_NORMALISERS[name].to_dict() for name in modalities},
        "typical_scales": {name: scale.to_dict() for name, scale in typical.items()},
        "spacing": None,
        "patch_size": [8, 8, 8],
        **extra,
    }


def model_folder(path, network=None, **extra):
    return save_model(path, network or Mean(), card(**extra))


def head(shape=(20, 24, 18), seed=0, low=100.0):
    """A smooth ellipsoid in exact zeros: float32, in the file's axis order."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    inside = (grid**2).sum(0) < 0.7
    wave = sum(np.sin(2 * g + p) for g, p in zip(grid, phase, strict=True))
    return np.where(inside, low + 20 * wave, 0).astype(np.float32)


AFFINES = {
    "ras": np.diag([1.0, 1, 1, 1]),
    "lps_anisotropic": np.diag([-0.9, -1.1, 2.5, 1]),
    "oblique": np.array([[0.95, -0.2, 0.1, -8], [0.2, 1.0, -0.3, 12], [-0.05, 0.33, 1.4, 5], [0, 0, 0, 1.0]]),
    "permuted": np.array([[0, 0, -1.2, 4], [1.0, 0, 0, 5], [0, -1.5, 0, 6], [0, 0, 0, 1.0]]),
}


def write(path, array, affine=AFFINES["ras"]):
    image = nib.Nifti1Image(array, affine)
    image.header.set_sform(affine, code=2)
    image.header.set_qform(affine, code=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


class Bright(nn.Module):
    """Labels by the brightness of the mean of the given scans; pointwise."""

    def __init__(self, centres=(-5.0, -0.5, 1.5)):
        super().__init__()
        self.gain, self.centres = nn.Parameter(torch.ones(1)), centres

    def segment(self, images, present):
        mean = Mean.generate(self, images, present)[:, :1]
        return torch.cat([-((mean - centre) ** 2) for centre in self.centres], 1)


SEGMENTATION = {
    "task": "segmentation",
    "architecture": {"network": {"kind": "bright"}},
    "labels": {"background": 0, "dark": 1, "bright": 4},
    "classes": [0, 1, 4],
    "regions": {"all": [1, 4], "bright": [4]},
}


def segmentation_card(modalities=MODALITIES, **extra):
    return card(modalities, **{**SEGMENTATION, **extra})


def build(architecture):
    """In the place of `medprism.models.build`."""
    return {"bright": Bright, "mood": Mood}.get(architecture["network"].get("kind"), Mean)()


class Mood(nn.Module):
    """The class of a subject by the brightness of the mean of the given scans."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def features(self, images, present):
        return Mean.generate(self, images, present)[:, 0].mean((1, 2, 3))[:, None]

    def head(self, features):
        return torch.cat([-features, features, 0 * features - 9], 1)


CLASSIFICATION = {
    "task": "classification",
    "architecture": {"network": {"kind": "mood"}},
    "classes": {"dull": 0, "bright": 1, "odd": 2},
}
