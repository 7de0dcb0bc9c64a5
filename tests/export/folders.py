"""Model folders of tiny networks, and scans for them."""

from medprism.data.intensity import Scale
from medprism.models.folder import save_model
from tests.export.networks import NAMES, make
from tests.inference.tiny import CLASSIFICATION, SEGMENTATION, card, head, write

TOLD = {"segmentation": SEGMENTATION, "classification": CLASSIFICATION, "transfer": {"task": "transfer"}}


def model_folder(path, name, **extra):
    """The folder of one of `networks.MAKE`."""
    network, task = make(name)
    told = {**TOLD[task], "architecture": network.architecture, "patch_size": list(network_of(network).patch_size)}
    typical = dict.fromkeys(NAMES, Scale(100, 20, -5, 5))
    return save_model(path, network, card(NAMES, typical, citation="Somebody 2025", **{**told, **extra}))


def network_of(network):
    return getattr(network, "prism", network)


def scans(folder, subjects=("anna", "ben")):
    """`<subject>/<modality>.nii.gz`; the second subject lacks a scan."""
    for number, subject in enumerate(subjects):
        for place, name in enumerate(NAMES[: len(NAMES) - number]):
            write(folder / subject / f"{name}.nii.gz", head(seed=10 * number + place))
    return folder
