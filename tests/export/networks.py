"""Every kind of network, tiny, with weights that nothing cancels."""

import torch

from medprism.models.acn import ACN, ACNConfig
from medprism.models.classifier import Classifier, ClassifierConfig
from medprism.models.mmformer import MmFormer, MmFormerConfig
from medprism.models.modality_encoder import EncoderConfig
from medprism.models.pmkl import Student, StudentConfig, Teacher, TeacherConfig
from medprism.models.prism import NetworkConfig, Prism
from medprism.models.segmenter import Segmenter, SegmenterConfig

NAMES = ("t1n", "t2w", "t2f")
PATCH = (16, 16, 16)
M, K = len(NAMES), 3
FORMER = {"width": 4, "dim": 16, "heads": 2, "mlp": 16}


def unet(**more):
    return NetworkConfig(width=4, levels=3, **more)


def segmenter(network=None, patch=PATCH, **config):
    return Segmenter(network or unet(), SegmenterConfig(**config), M, K, patch)


def former(encoder="none", leaks=False, **config):
    return MmFormer(MmFormerConfig(**FORMER, **config), EncoderConfig(encoder, leaks), M, K, (32, 32, 32))


MAKE = {
    "transfer": lambda: Prism(unet(), M, PATCH),
    "transfer-tagged": lambda: Prism(unet(source="tagged", intensity=4, prior="token"), M, PATCH),
    "transfer-no-prior": lambda: Prism(unet(prior="none"), M, PATCH),
    "fused-mean": lambda: segmenter(fusion="mean", deep_supervision=1),
    "fused-gates": lambda: segmenter(unet(source="tagged", fusion="release"), fusion="gates"),
    "channels": lambda: segmenter(combine="channels"),
    "channels-tagged": lambda: segmenter(unet(source="tagged", intensity=4), combine="channels"),
    "unet3d": lambda: segmenter(unet(backbone="unet3d"), fusion="mean"),
    "uniformer": lambda: segmenter(NetworkConfig("uniformer", 8, 4), fusion="mean"),
    "swinunetr": lambda: segmenter(NetworkConfig("swinunetr", 12), (64, 64, 64), fusion="mean"),
    "classifier-mean": lambda: Classifier(unet(), ClassifierConfig("mean", 8), M, K, PATCH),
    "classifier-gates": lambda: Classifier(unet(), ClassifierConfig("gates", 8), M, K, PATCH),
    "mmformer": lambda: former("separate"),
    "mmformer-reference": lambda: former("joint", leaks=True, reference_layout=True, mask_tokens=False),
    "pmkl-teacher": lambda: Teacher(TeacherConfig(4), EncoderConfig("shared"), M, K, PATCH),
    "pmkl-student": lambda: Student(StudentConfig(4), EncoderConfig(), M, K, PATCH, NAMES),
    "pmkl-student-of-one": lambda: Student(StudentConfig(4, ("t1n", "t2f")), EncoderConfig(), M, K, PATCH, NAMES),
    "acn": lambda: ACN(ACNConfig(4), EncoderConfig(), M, K, PATCH, NAMES),
    "acn-of-one": lambda: ACN(ACNConfig(4, ("t2w",)), EncoderConfig("joint"), M, K, PATCH, NAMES),
}


def make(name):
    """A network and its task."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MAKE[name]()
    with torch.no_grad():
        for weight in network.parameters():  # gates and residual blocks start as zero or the identity
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    task = {Prism: "transfer", Classifier: "classification"}.get(type(network), "segmentation")
    return network.eval().requires_grad_(False), task
