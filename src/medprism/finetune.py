"""The verbs `finetune …`: from a pre-trained model to one that does a task with whatever scans there are."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities import rank_zero_only

from medprism.evaluation.evaluate import evaluate
from medprism.methods.acn import ACNLossConfig
from medprism.methods.classification import ClassificationConfig
from medprism.methods.distillation import DistillationConfig
from medprism.methods.segmentation import SegmentationConfig
from medprism.methods.template_copies import CopiesConfig
from medprism.methods.transfer import TransferConfig
from medprism.models.acn import ACNConfig
from medprism.models.classifier import ClassifierConfig
from medprism.models.folder import load_card
from medprism.models.mmformer import MmFormerConfig
from medprism.models.pmkl import StudentConfig, TeacherConfig
from medprism.models.prism import NetworkConfig
from medprism.models.segmenter import SegmenterConfig
from medprism.training.choice import Choice
from medprism.training.classify import train_classification
from medprism.training.families import MedMAPConfig
from medprism.training.fit import Compute
from medprism.training.module import OptimiserConfig
from medprism.training.patches import PatchConfig
from medprism.training.segment import train_segmentation
from medprism.training.transfer import train_transfer


def finetune_segment(
    *,
    data: Path,
    out: Path,
    init: Path | None = None,
    part: Literal["model", "encoder"] = "model",
    segmentation: SegmentationConfig = SegmentationConfig(),  # noqa: B008 - frozen
    segmenter: SegmenterConfig = SegmenterConfig(),  # noqa: B008
    network: NetworkConfig = NetworkConfig(),  # noqa: B008
    mmformer: MmFormerConfig | None = None,
    teacher: TeacherConfig | None = None,
    student: StudentConfig | None = None,
    acn: ACNConfig | None = None,
    medmap: MedMAPConfig = MedMAPConfig(),  # noqa: B008
    taught_by: Path | None = None,
    distillation: DistillationConfig = DistillationConfig(),  # noqa: B008
    acn_loss: ACNLossConfig = ACNLossConfig(),  # noqa: B008
    templates: Path | None = None,
    copies: CopiesConfig = CopiesConfig(),  # noqa: B008
    patches: PatchConfig = PatchConfig(),  # noqa: B008
    optimiser: OptimiserConfig = OptimiserConfig(),  # noqa: B008
    epochs: int = 300,
    ship: Literal["best", "last"] = "best",
    fraction: float = 1.0,
    compute: Compute = Compute(),  # noqa: B008
    seed: int = 0,
    resume: Literal["auto", "never"] = "never",
    force: bool = False,
) -> Path:
    """Train one network that segments with whatever scans there are; incomplete subjects train too.

    In the end every subset of the modalities is scored on the whole volumes of the validation split, and the scores
    are kept in the model, where `medprism segment` finds what to expect of the scans that it is given.

    Args:
        data: cache written by `medprism prepare`, with labels.
        out: run folder.
        init: model or run folder to start from, e.g. of `medprism pretrain`; from nothing if not given.
        part: what of it is taken: the whole `model`, or the `encoder` alone in a plain network without prior.
        segmentation: the objective: weights of its parts and which subsets are drawn.
        segmenter: how several scans become one segmentation.
        network: backbone, prior and fusion, for a start from nothing.
        mmformer: mmFormer instead of a prism, see --config mmformer.
        teacher: the teacher of PMKL instead, which sees all scans that there are, see --config pmkl-teacher.
        student: a student of PMKL instead, see --config pmkl-student.
        acn: ACN instead, see --config acn.
        medmap: MedMAP, with mmformer, teacher or acn.
        taught_by: model or run folder of the student's teacher.
        distillation: what a student learns from its teacher.
        acn_loss: the objective of ACN.
        templates: model or run folder with templates, e.g. of `medprism pretrain --config brainmvp`; they stay as they
            are and fill the channels of absent scans, in training and in use.
        copies: with templates, of which each sub-volume is seen in two copies.
        patches: what an epoch is made of.
        optimiser: AdamW and its schedule.
        epochs: length of the training.
        ship: which weights become the model: those with the `best` validation score, or the `last`.
        fraction: share of the training persons whose labels are used, for label efficiency.
        compute: device, processes, precision.
        seed: of all random draws.
        resume: `auto` goes on with a run of the same configuration, or begins one.
        force: delete a run that is in the way.

    Returns:
        The run folder.

    Raises:
        UserError: data, start, configuration or folder do not fit together.
    """
    run = train_segmentation(
        data=data,
        out=out,
        choice=Choice(
            init,
            part,
            segmenter,
            network,
            mmformer=mmformer,
            teacher=teacher,
            student=student,
            acn=acn,
            medmap=medmap,
            taught_by=taught_by,
            distillation=distillation,
            acn_loss=acn_loss,
            templates=templates,
            copies=copies,
        ),
        segmentation=segmentation,
        patches=patches,
        optimiser=optimiser,
        epochs=epochs,
        ship=ship,
        fraction=fraction,
        compute=compute,
        seed=seed,
        resume=resume,
        force=force,
    )
    score_validation(run, data, compute)
    return run


def finetune_classify(
    *,
    data: Path,
    out: Path,
    init: Path | None = None,
    part: Literal["model", "encoder"] = "model",
    classification: ClassificationConfig = ClassificationConfig(),  # noqa: B008
    classifier: ClassifierConfig = ClassifierConfig(),  # noqa: B008
    network: NetworkConfig = NetworkConfig(),  # noqa: B008
    templates: Path | None = None,
    copies: CopiesConfig = CopiesConfig(),  # noqa: B008
    patches: PatchConfig = PatchConfig(),  # noqa: B008
    optimiser: OptimiserConfig = OptimiserConfig(),  # noqa: B008
    epochs: int = 100,
    ship: Literal["best", "last"] = "best",
    fraction: float = 1.0,
    compute: Compute = Compute(),  # noqa: B008
    seed: int = 0,
    resume: Literal["auto", "never"] = "never",
    force: bool = False,
) -> Path:
    """Train one network that tells a person's class with whatever scans there are; incomplete subjects train too.

    In the end every subset of the modalities is scored on the validation split, and the scores are kept in the model,
    where `medprism classify` finds what to expect of the scans that it is given.

    Args:
        data: cache written by `medprism prepare`, of subjects with a class.
        out: run folder.
        init: model or run folder to start from, e.g. of `medprism pretrain`; from nothing if not given.
        part: what of it is taken: encoder and prior (`model`), or the `encoder` alone, without prior.
        classification: the objective: what is added to the cross-entropy and which subsets are drawn.
        classifier: from the representations of several scans to classes.
        network: backbone and prior, for a start from nothing.
        templates: model or run folder with templates, e.g. of `medprism pretrain --config brainmvp`; they stay as they
            are and stand for absent scans, in training and in use.
        copies: with templates, of which each sub-volume is seen in two copies.
        patches: what an epoch is made of.
        optimiser: AdamW and its schedule.
        epochs: length of the training.
        ship: which weights become the model: those with the `best` validation score, or the `last`.
        fraction: share of the training persons of each class whose classes are used, for label efficiency.
        compute: device, processes, precision.
        seed: of all random draws.
        resume: `auto` goes on with a run of the same configuration, or begins one.
        force: delete a run that is in the way.

    Returns:
        The run folder.

    Raises:
        UserError: data, start, configuration or folder do not fit together.
    """
    run = train_classification(
        data=data,
        out=out,
        init=init,
        part=part,
        classification=classification,
        classifier=classifier,
        network=network,
        templates=templates,
        copies=copies,
        patches=patches,
        optimiser=optimiser,
        epochs=epochs,
        ship=ship,
        fraction=fraction,
        compute=compute,
        seed=seed,
        resume=resume,
        force=force,
    )
    score_validation(run, data, compute)
    return run


def finetune_transfer(
    *,
    data: Path,
    out: Path,
    source: tuple[str, ...],
    target: tuple[str, ...],
    init: Path | None = None,
    part: Literal["model", "encoder"] = "model",
    objective: TransferConfig = TransferConfig(),  # noqa: B008
    network: NetworkConfig = NetworkConfig(),  # noqa: B008
    patches: PatchConfig = PatchConfig(),  # noqa: B008
    optimiser: OptimiserConfig = OptimiserConfig(),  # noqa: B008
    epochs: int = 100,
    ship: Literal["best", "last"] = "best",
    compute: Compute = Compute(),  # noqa: B008
    seed: int = 0,
    resume: Literal["auto", "never"] = "never",
    force: bool = False,
) -> Path:
    """Train a model that makes some modalities of others, among them ones that the model it starts from never saw.

    Such as PET with and without attenuation correction: a model of PET and CT becomes one that makes both of PET
    without correction. Encoder and prior are taken over, the decoder is new. The result is a model for `medprism
    synthesize` and `evaluate`, of these sources and targets alone.

    Args:
        data: cache written by `medprism prepare`, with sources and targets.
        out: run folder.
        source: modalities that are given, such as `nac`.
        target: modalities that are made, such as `pet,ct`.
        init: model or run folder to start from, e.g. of `medprism pretrain`; from nothing if not given.
        part: what of it is taken: encoder and prior (`model`), or the `encoder` alone, without prior.
        objective: weights of the loss.
        network: backbone and prior, for a start from nothing.
        patches: what an epoch is made of.
        optimiser: AdamW and its schedule.
        epochs: length of the training.
        ship: which weights become the model: those with the `best` validation score, or the `last`.
        compute: device, processes, precision.
        seed: of all random draws.
        resume: `auto` goes on with a run of the same configuration, or begins one.
        force: delete a run that is in the way.

    Returns:
        The run folder.

    Raises:
        UserError: data, names, start, configuration or folder do not fit together.
    """
    run = train_transfer(
        data=data,
        out=out,
        source=source,
        target=target,
        init=init,
        part=part,
        objective=objective,
        network=network,
        patches=patches,
        optimiser=optimiser,
        epochs=epochs,
        ship=ship,
        compute=compute,
        seed=seed,
        resume=resume,
        force=force,
    )
    score_validation(run, data, compute)
    return run


@rank_zero_only
def score_validation(run: Path, data: Path, compute: Compute) -> None:
    """Evaluate a finished run on its validation split and keep the scores in the model; once, by the first process."""
    if "metrics" not in load_card(run):  # they go there last, so a kill before leaves nothing undone
        out, device, precision = run / "validation", compute.device, compute.precision
        evaluate(
            run, data=data, out=out, split="validation", device=device, precision=precision, record=True, force=True
        )
