"""Which network `finetune segment` trains: a prism, or one of the families that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from medprism.data.cache import Cache
from medprism.errors import UserError
from medprism.methods.acn import ACNLossConfig
from medprism.methods.distillation import DistillationConfig
from medprism.methods.segmentation import SegmentationConfig
from medprism.methods.template_copies import CopiesConfig
from medprism.models.acn import ACNConfig
from medprism.models.mmformer import MmFormerConfig
from medprism.models.pmkl import StudentConfig, TeacherConfig
from medprism.models.prism import NetworkConfig
from medprism.models.segmenter import SegmenterConfig
from medprism.training import families
from medprism.training.families import Family, MedMAPConfig
from medprism.training.fill import Fill
from medprism.training.start import Part, Start


@dataclass(frozen=True)
class Choice:
    """What `finetune segment` is told about its network; the attributes are options of the verb.

    Attributes:
        init: model or run that a prism starts from; from nothing if not given.
        part: what of it is taken.
        segmenter: how a prism combines several scans.
        network: a prism's shape, for a start from nothing.
        mmformer, teacher, student, acn: another network instead; at most one.
        medmap: MedMAP's encoder and alignment, in any of these but a student.
        taught_by: a student's teacher.
        distillation: what a student learns from it.
        acn_loss: ACN's objective.
        templates: model or run with templates for absent scans, of a prism.
        copies: how it is trained with them.
    """

    init: Path | None = None
    part: Part = "model"
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    mmformer: MmFormerConfig | None = None
    teacher: TeacherConfig | None = None
    student: StudentConfig | None = None
    acn: ACNConfig | None = None
    medmap: MedMAPConfig = field(default_factory=MedMAPConfig)
    taught_by: Path | None = None
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    acn_loss: ACNLossConfig = field(default_factory=ACNLossConfig)
    templates: Path | None = None
    copies: CopiesConfig = field(default_factory=CopiesConfig)

    def family(self, cache: Cache, segmentation: SegmentationConfig) -> Family:
        """The network that is chosen.

        Args:
            cache: what it is trained on.
            segmentation: the objective of a prism; the others have their own and take `full` of it alone.

        Raises:
            UserError: options that do not go together, or a start or teacher that does not fit the cache.
        """
        self._check(segmentation)
        self.medmap.alignment(cache.modalities)  # its modality must be one of them
        if self.mmformer is not None:
            return families.mmformer(self.mmformer, self.medmap)
        if self.teacher is not None:
            return families.teacher(self.teacher, self.medmap)
        if self.student is not None:
            assert self.taught_by is not None
            return families.student(self.student, self.distillation, self.taught_by, cache)
        if self.acn is not None:
            return families.acn(self.acn, self.acn_loss, self.medmap, cache)
        fill = Fill.of(self.templates, self.copies, cache)
        return families.prism(Start.of(self.init, self.part, self.network, cache), self.segmenter, fill)

    def _check(self, segmentation: SegmentationConfig) -> None:
        named = [name for name in ("mmformer", "teacher", "student", "acn") if getattr(self, name) is not None]
        if len(named) > 1:
            raise UserError(f"expected at most one of mmformer, teacher, student, acn, got {' and '.join(named)}")
        chosen = named[0] if named else "a prism"
        if named and self.init is not None:
            raise UserError(f"expected no --init with {chosen}, which starts from nothing, got {self.init}")
        if named and (self.templates is not None or self.copies != CopiesConfig()):
            raise UserError(f"expected templates with a prism, got them with {chosen}; leave --templates out")
        if named and (self.part, self.segmenter, self.network) != ("model", SegmenterConfig(), NetworkConfig()):
            raise UserError(f"expected no options of a prism (part, segmenter, network) with {chosen}; leave them out")
        if named and segmentation != SegmentationConfig(full=segmentation.full):
            raise UserError(f"expected no options of a prism's loss (segmentation.dice and others) with {chosen}")
        if chosen in ("a prism", "student") and self.medmap != MedMAPConfig():
            told = "give it to its teacher" if chosen == "student" else "PUIR has anchors of its own, see puir.anchor"
            raise UserError(f"expected medmap with mmformer, teacher or acn, got it with {chosen}; {told}")
        if chosen == "student" and self.taught_by is None:
            raise UserError(
                "expected --taught-by, the student's teacher, got none; train one with "
                "`medprism finetune segment --config pmkl-teacher`"
            )
        if chosen != "student" and self.taught_by is not None:
            raise UserError(f"expected --taught-by with a student, got it with {chosen}; leave it out")
