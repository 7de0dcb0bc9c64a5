"""The networks that segment with any subset of scans, each with its objective: what `finetune segment` can train."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from torch import nn

from medprism.data.cache import Cache, Entry
from medprism.data.modalities import lookup
from medprism.errors import UserError, expect
from medprism.methods.acn import ACNLoss, ACNLossConfig
from medprism.methods.alignment import Alignment, AlignmentConfig
from medprism.methods.distillation import Distillation, DistillationConfig, TeacherObjective
from medprism.methods.mmformer import MmFormerLoss
from medprism.methods.segmentation import Segmentation
from medprism.methods.template_training import TemplateSegmentation
from medprism.models.acn import ACN, ACNConfig
from medprism.models.folder import load_model
from medprism.models.mmformer import MmFormer, MmFormerConfig
from medprism.models.modality_encoder import EncoderConfig
from medprism.models.pmkl import Student, StudentConfig, Teacher, TeacherConfig
from medprism.models.segmenter import Segmenter, SegmenterConfig
from medprism.training.fill import Fill
from medprism.training.module import Objective
from medprism.training.patches import check_size
from medprism.training.run import plain
from medprism.training.start import Start, check_recipe, refuse_test_persons

logger = logging.getLogger(__name__)

Size = tuple[int, int, int]

MEDMAP = "Liu et al., MedMAP, https://arxiv.org/abs/2408.09465"
MMFORMER = "Zhang et al., mmFormer, MICCAI 2022, https://arxiv.org/abs/2206.02425"
PMKL = "Chen et al., PMKL, IEEE TMI 41(3), 2022, https://doi.org/10.1109/TMI.2021.3119385"
ACN_PAPER = "Wang et al., ACN, MICCAI 2021, https://arxiv.org/abs/2106.14591"


@dataclass(frozen=True)
class MedMAPConfig:
    """MedMAP: what takes every scan into a common space before the network, and what pulls it to an anchor there.

    Attributes:
        encoder: T: `none`; `separate`: a convolution for each modality; `shared`: one for all (T*, does not leak);
            `joint`: one over all given scans at once (T* read otherwise).
        leaks: with `joint`: it sees the scans, too, that the network is not given. The numbers of such a network say
            nothing about missing scans, and every table says that it leaks.
        anchor: what each latent is pulled to in training: `modality`: that of one modality (P_mix^k); `weighted`: a
            learned sum of all (P_mix^*); `normal`: the standard normal distribution (P_N); `mean`; or `none`.
        modality: the one that is the anchor with `modality`, and that has all the weight at first with `weighted`.
        weight: of the alignment beside the other losses.
    """

    encoder: Literal["none", "separate", "shared", "joint"] = "none"
    leaks: bool = False
    anchor: Literal["none", "modality", "weighted", "normal", "mean"] = "none"
    modality: str = ""
    weight: float = 0.125

    def __post_init__(self) -> None:
        _ = self.latent, self.pull  # their checks
        if self.encoder == "none":
            expect(self.anchor == "none", "an encoder beside an anchor", "medmap.encoder", "none")

    @property
    def latent(self) -> EncoderConfig:
        """The encoder's configuration."""
        return EncoderConfig(self.encoder, self.leaks)

    @property
    def pull(self) -> AlignmentConfig:
        """The alignment's configuration."""
        return AlignmentConfig(self.anchor, self.modality, self.weight)

    def alignment(self, modalities: tuple[str, ...]) -> Alignment | None:
        """The alignment, if there is one.

        Raises:
            UserError: the anchor is none of the modalities.
        """
        return None if self.anchor == "none" else Alignment(self.pull, modalities)


@dataclass(frozen=True)
class Family:
    """A kind of network, and what it is trained for.

    Attributes:
        settings: what the run's configuration says of it, plain JSON.
        network: cache, number of classes, patch size -> the network, fresh or filled.
        objective: task, network -> what it is trained for.
        card: what model.json says besides what it says of all that segment.
        seen: digests of the persons that weights or targets come from.
        idle: whether some parameters have no gradient in some steps.
        needs: modalities that every training subject must have.
        fill: templates for absent scans, if any.
    """

    settings: dict[str, Any]
    network: Callable[[Cache, int, Size], nn.Module]
    objective: Callable[[Segmentation, nn.Module], Objective]
    card: dict[str, Any] = field(default_factory=dict)
    seen: tuple[str, ...] = ()
    idle: bool = False
    needs: tuple[str, ...] = ()
    fill: Fill | None = None

    def trained_on(self, entries: list[Entry]) -> list[Entry]:
        """The subjects that have all that is needed.

        Raises:
            UserError: there is none.
        """
        found = [each for each in entries if set(self.needs).isdisjoint(_absent(each))]
        if not found:
            raise UserError(
                f"expected training subjects with {' and '.join(self.needs)}, got none among {len(entries)}; "
                "name scans that some subject has"
            )
        if len(found) < len(entries):
            told = "%d of %d training subjects lack some of %s and are left out"
            logger.warning(told, len(entries) - len(found), len(entries), " ".join(self.needs))
        return found


def prism(start: Start, segmenter: SegmenterConfig, fill: Fill | None = None) -> Family:
    """PUIR's: a prism with classes for modalities in its output (Algorithm 2); with templates as BrainMVP's."""

    def network(cache: Cache, classes: int, size: Size) -> Segmenter:
        made = Segmenter(start.network, segmenter, len(cache.modalities), classes, start.patch_size or size)
        check_size(made.prism, size)
        start.fill(made)
        return made

    settings = {
        "init": start.identity,
        "part": start.part if start.identity else None,
        "segmenter": plain(segmenter),
        "network": plain(start.network),
        **(fill.settings if fill else {}),
    }

    def objective(task: Segmentation, _: nn.Module) -> Objective:
        return task if fill is None else TemplateSegmentation(task, fill.copies(task.seed), fill.config.consistency)

    return Family(
        settings,
        network,
        objective,
        card={"initialised_from": start.identity, **(fill.card if fill else {})},
        seen=(*start.seen, *(fill.seen if fill else ())),
        fill=fill,
        # Where every sub-volume of a batch is seen through one scan, nothing is weighed and the gates have no gradient.
        idle=(segmenter.combine, segmenter.fusion) == ("fused", "gates"),
    )


def mmformer(config: MmFormerConfig, medmap: MedMAPConfig) -> Family:
    """mmFormer, with or without MedMAP."""
    return Family(
        {"mmformer": plain(config), "medmap": plain(medmap)},
        lambda cache, classes, size: MmFormer(config, medmap.latent, len(cache.modalities), classes, size),
        lambda task, _: MmFormerLoss(task, medmap.alignment(task.modalities)),
        _about(MMFORMER, medmap),
        idle=True,  # the encoder of a modality that no subject of a batch has
    )


def teacher(config: TeacherConfig, medmap: MedMAPConfig) -> Family:
    """PMKL's teacher, which sees all scans that there are, with or without MedMAP."""
    return Family(
        {"teacher": plain(config), "medmap": plain(medmap)},
        lambda cache, classes, size: Teacher(config, medmap.latent, len(cache.modalities), classes, size),
        lambda task, _: TeacherObjective(task, medmap.alignment(task.modalities)),
        _about(PMKL, medmap),
        idle=True,
    )


def student(config: StudentConfig, losses: DistillationConfig, taught_by: Path, cache: Cache) -> Family:
    """PMKL's student of a trained teacher.

    Raises:
        UserError: there is no such teacher, its scans were prepared otherwise, or it has seen a person of the test
            split.
    """
    master, card = load_model(taught_by)
    check_recipe(card, cache)
    refuse_test_persons(card, cache)
    names = cache.modalities
    given = [lookup(name) or name for name in config.given]
    return Family(
        {"student": plain(config), "distillation": plain(losses), "taught_by": card["sha256"]},
        lambda cache, classes, size: Student(config, EncoderConfig(), len(names), classes, size, names),
        lambda task, network: Distillation(
            losses, task, cast(Student, network), master, card["modalities"], card.get("classes", ())
        ),
        {
            "citation": card.get("citation", PMKL),
            "taught_by": card["sha256"],
            **_served(names, given),
        },
        seen=tuple(card.get("training_persons", ())),
        needs=tuple(given),
    )


def acn(config: ACNConfig, losses: ACNLossConfig, medmap: MedMAPConfig, cache: Cache) -> Family:
    """ACN, a full and an incomplete path trained together, with or without MedMAP in the full one."""
    names = cache.modalities
    given = [lookup(name) or name for name in config.given]
    return Family(
        {"acn": plain(config), "acn_loss": plain(losses), "medmap": plain(medmap)},
        lambda cache, classes, size: ACN(config, medmap.latent, len(names), classes, size, names),
        lambda task, network: ACNLoss(losses, task, medmap.alignment(task.modalities), cast(ACN, network)),
        {
            **_about(ACN_PAPER, medmap),
            **_served(names, given),
        },
        idle=bool(given),
    )


def _absent(entry: Entry) -> list[str]:
    return [name for name, here in zip(entry.modalities, entry.present, strict=True) if not here]


def _served(names: tuple[str, ...], given: list[str]) -> dict[str, Any]:
    """The one subset that a network serves, in the order of the modalities; nothing where it serves all."""
    own = [name for name in names if name in given]
    return {"sources": own, "only": own} if own else {}


def _about(paper: str, medmap: MedMAPConfig) -> dict[str, Any]:
    """Whom to cite, and whether the network sees what it must not."""
    cited = paper if medmap.encoder == "none" else f"{paper}; {MEDMAP}"
    return {"citation": cited, **({"leaks": True} if medmap.leaks else {})}
