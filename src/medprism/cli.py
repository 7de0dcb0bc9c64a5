"""The command line: one typed function a verb, jsonargparse makes its flags and reads its YAML.

`medprism --help` must answer at once, so nothing heavy is imported before the verb is known.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from medprism import __version__
from medprism.errors import UserError

INTERRUPTED, BROKEN_PIPE = 130, 141  # what a shell gives for SIGINT and SIGPIPE

RESUMING = ("pretrain", "quickstart", "finetune")  # the verbs with --resume; others need no word to go on


@dataclass(frozen=True)
class Verb:
    """A command: where its function is and what it does, in a line."""

    function: str
    help: str
    example: str


VERBS = {
    "quickstart": Verb(
        "medprism.quickstart:quickstart",
        "see it work: phantoms (or your cohort), pre-training, evaluation, report",
        "medprism quickstart --out first-look",
    ),
    "phantom": Verb(
        "medprism.phantoms.verb:phantom",
        "make a cohort of phantoms from physics, with the truth known",
        "medprism phantom brain --out phantoms --subjects 32 --spacing 3",
    ),
    "inspect": Verb(
        "medprism.data.inspect:inspect",
        "read a folder in any known layout, show what is there and what is wrong, write cohort.json",
        "medprism inspect BraTS2023 --out cohort.json --splits random",
    ),
    "prepare": Verb(
        "medprism.data.prepare:prepare",
        "resample, normalise, crop and store a cohort for fast training",
        "medprism prepare cohort.json --out cache --workers 2",
    ),
    "pretrain": Verb(
        "medprism.training.pretrain:pretrain",
        "learn one representation per person from a prepared cohort",
        "medprism pretrain --config puir --data cache --out run",
    ),
    "finetune segment": Verb(
        "medprism.finetune:finetune_segment",
        "train one network that segments with whatever scans there are",
        "medprism finetune segment --config sts --data cache --init run --out segmenter",
    ),
    "finetune classify": Verb(
        "medprism.finetune:finetune_classify",
        "train one network that tells a person's class from any of the scans",
        "medprism finetune classify --data cache --init run --out classifier",
    ),
    "finetune transfer": Verb(
        "medprism.finetune:finetune_transfer",
        "train a model that makes some modalities of others, new ones too",
        "medprism finetune transfer --source nac --target pet,ct --data cache --out run",
    ),
    "synthesize": Verb(
        "medprism.inference.synthesize:synthesize",
        "generate the scans that a patient does not have",
        "medprism synthesize run --image.t1n t1.nii.gz --target t2f --out generated",
    ),
    "segment": Verb(
        "medprism.inference.segment:segment",
        "outline what a model was taught to see, from any subset of its scans",
        "medprism segment run --image.ct a.nii.gz --image.pet b.nii.gz --out seg.nii.gz",
    ),
    "classify": Verb(
        "medprism.inference.classify:classify",
        "tell the class of a patient, from any subset of a model's scans",
        "medprism classify run --image.t1n t1.nii.gz --out result.json",
    ),
    "evaluate": Verb(
        "medprism.evaluation.evaluate:evaluate",
        "score a model on a split, beside two trivial rivals",
        "medprism evaluate run --data cache --out evaluation",
    ),
    "report": Verb(
        "medprism.report.page:report",
        "one HTML page of cohort, curves, tables and pictures",
        "medprism report run evaluation --out report.html",
    ),
    "sweep": Verb(
        "medprism.sweep:sweep",
        "train, evaluate and compare variants of a configuration, e.g. an ablation table",
        "medprism sweep --config table4 --data cache --out table4 --epochs 10",
    ),
    "import-weights": Verb(
        "medprism.import_weights:import_weights",
        "make a public checkpoint a model to fine-tune from",
        "medprism import-weights brainmvp.pt --from brainmvp --data cache --out start",
    ),
    "export": Verb(
        "medprism.export.verb:export",
        "a trained model for other programs: an ONNX graph, or a MONAI bundle",
        "medprism export run --format onnx --out graph",
    ),
    "info": Verb(
        "medprism.info:info",
        "what a model, a cache or a cohort file holds",
        "medprism info run",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the words after `medprism`; those of the process by default.

    Returns:
        The exit code: 0, 2 for a user's mistake, 1 for a defect, 130 when interrupted, 141 when nobody reads.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        code = _dispatch(words, debug)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has what it wanted, as in `medprism info run | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return _interrupted(words)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns one into the other
            return _interrupted(words)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        if debug:
            raise
        mistake = _mistake(error)
        sys.stderr.write(f"error: {mistake}\n" if mistake else _defect(error))
        return 2 if mistake else 1


def _dispatch(words: list[str], debug: bool) -> int:
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(overview())
    elif words[0] == "--version":
        sys.stdout.write(f"medprism {__version__}\n")
    elif (verb := " ".join(words[:2])) in VERBS:
        with _told(debug):
            run(verb, words[2:])
    elif tasks := [verb for verb in VERBS if verb.startswith(f"{words[0]} ")]:
        if len(words) > 1 and words[1] not in ("-h", "--help"):
            raise UserError(f"expected one of {', '.join(tasks)}, got {words[0]} {words[1]}")
        sys.stdout.write("".join(f"medprism {verb} --help    {VERBS[verb].help}\n" for verb in tasks))
    elif words[0] not in VERBS:
        near = difflib.get_close_matches(words[0], VERBS, n=1)
        told = f"; did you mean {near[0]}?" if near else "; see medprism --help"
        raise UserError(f"expected a command out of {', '.join(VERBS)}, got {words[0]}{told}")
    else:
        with _told(debug):
            run(words[0], words[1:])
    return 0


def _mistake(error: Exception) -> str | None:
    """What a user can mend, in one line; None if the error is a defect."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"expected space on the disk, got '{error.strerror}' from the system; free some and give the command again"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"expected to use {error.filename}, got '{error.strerror}' from the system; check the path and its rights"
        )
    if type(error).__name__ in ("MemoryError", "OutOfMemoryError"):  # the latter is torch's
        return f"expected more memory ({_first_line(error)}); take smaller patches or batches, or fewer workers"
    return None


def _defect(error: Exception) -> str:
    name = f"{type(error).__module__}.{type(error).__name__}".removeprefix("builtins.")
    return (
        f"defect in medprism {__version__}: {name}: {_first_line(error)}\n"
        "please report it with the command and what it prints with --debug added\n"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]


def _interrupted(words: list[str]) -> int:
    goes_on = "the same command with --resume auto goes on" if words[0] in RESUMING else "what is finished is kept"
    sys.stderr.write(f"interrupted; {goes_on}\n")
    return INTERRUPTED


def overview() -> str:
    """The text of `medprism --help`."""
    lines = [
        f"medprism {__version__}: learning from multi-modal 3-D medical scans of which some are always missing",
        "",
        "usage: medprism COMMAND [--config FILE] [options]",
        "",
        "commands:",
        *(f"  {name:<18}{verb.help}" for name, verb in VERBS.items()),
        "",
        "for example:",
        *(f"  {verb.example}" for verb in VERBS.values()),
        "",
        "medprism COMMAND --help      all options of a command, with their defaults",
        "medprism COMMAND --print_config   the same as YAML, to edit and give back with --config",
        "--debug                      with any command: the whole traceback of an error",
        "",
    ]
    return "\n".join(lines)


def run(name: str, words: Sequence[str]) -> None:
    """Parse the words behind one verb and call its function."""
    from medprism.options import parse, parser_of  # here, as `medprism --help` does not need them

    verb = VERBS[name]
    function = _load(verb.function)
    function(**parse(parser_of(name, function, verb.example), name, words))


def _load(where: str) -> Callable[..., Any]:
    module, name = where.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


@contextmanager
def _told(debug: bool) -> Iterator[None]:
    """What the package logs goes to the standard error, as plain lines; warnings about the future only with `debug`."""
    logger = logging.getLogger("medprism")  # not the root, where other packages tell their own affairs
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if debug else logging.INFO)
    if not debug:
        warnings.filterwarnings("ignore", category=FutureWarning)
        os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    try:
        yield
    finally:
        logger.removeHandler(handler)
