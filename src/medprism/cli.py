"""The command line: one typed function a verb, jsonargparse makes its flags and reads its YAML.

`medprism --help` must answer at once, so nothing heavy is imported before the verb is known.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import logging
import os
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

from medprism import __version__
from medprism.errors import UserError


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
    "synthesize": Verb(
        "medprism.inference.synthesize:synthesize",
        "generate the scans that a patient does not have",
        "medprism synthesize run --image.t1n t1.nii.gz --target t2f --out generated",
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
        The exit code: 0, 2 for a user's mistake, 1 for a defect, 130 when interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(overview())
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"medprism {__version__}\n")
        return 0
    try:
        if words[0] not in VERBS:
            raise UserError(f"expected a command out of {', '.join(VERBS)}, got {words[0]}; see medprism --help")
        _set_up(debug)
        return run(words[0], words[1:])
    except UserError as error:
        if debug:
            raise
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command with --resume auto goes on where it can\n")
        return 130


def overview() -> str:
    """The text of `medprism --help`."""
    lines = [
        f"medprism {__version__}: learning from multi-modal 3-D medical scans of which some are always missing",
        "",
        "usage: medprism COMMAND [--config FILE] [options]",
        "",
        "commands:",
        *(f"  {name:<12}{verb.help}" for name, verb in VERBS.items()),
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


def run(name: str, words: list[str]) -> int:
    """Parse the words of one verb and call its function."""
    from jsonargparse import ArgumentParser

    verb = VERBS[name]
    function = _load(verb.function)
    parser = ArgumentParser(
        prog=f"medprism {name}",
        description=(function.__doc__ or verb.help).split("\n\n")[0] + f"\n\nfor example: {verb.example}",
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="YAML file, or the name of one that medprism ships")
    parser.add_function_arguments(function, as_positional=True, sub_configs=False)
    try:
        values = parser.parse_args(spelled(shipped(name, words), function))
    except ArgumentError as error:
        raise UserError(f"{' '.join(str(error).split())}; see medprism {name} --help") from error
    arguments = parser.instantiate(values)
    arguments.pop("config", None)
    function(**arguments.as_dict())
    return 0


def spelled(words: list[str], function: Callable[..., Any]) -> list[str]:
    """Words as people type them, as jsonargparse takes them.

    `--missing-rate 0.3` for `--missing_rate 0.3`, `--force` for `--force true`, `a b` for a list `["a", "b"]`.
    """
    parameters = inspect.signature(function, eval_str=True).parameters
    switches = {name for name, item in parameters.items() if isinstance(item.default, bool)}
    first = next(iter(parameters.values()))
    if first.kind is not first.KEYWORD_ONLY and get_origin(first.annotation) is list:  # several words for one argument
        several = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
        words = ([json.dumps(several)] if several else []) + words[len(several) :]
    out = []
    for place, word in enumerate(words):
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            flag = {"json": "json_output"}.get(flag, flag.replace("-", "_"))
            following = words[place + 1] if place + 1 < len(words) else ""
            if flag in switches and not equals and following.lower() not in ("true", "false"):
                equals, value = "=", "true"
            word = f"--{flag}{equals}{value}"
        out.append(word)
    return out


def shipped(verb: str, words: list[str]) -> list[str]:
    """Replace the name of a shipped configuration behind `--config` by its path.

    Raises:
        UserError: there is neither such a file nor such a name.
    """
    folder = Path(__file__).parent / "configs" / verb
    names = sorted(path.stem for path in folder.glob("*.yaml")) if folder.is_dir() else []
    out = list(words)
    for place, word in enumerate(words):
        given = words[place + 1] if word == "--config" and place + 1 < len(words) else None
        if word.startswith("--config="):
            given = word.removeprefix("--config=")
        if given is None or Path(given).is_file():
            continue
        if given not in names:
            told = f"one of {', '.join(names)}" if names else "none, as this command ships no configuration"
            raise UserError(f"expected a YAML file or {told}, got {given}")
        path = str(folder / f"{given}.yaml")
        if word == "--config":
            out[place + 1] = path
        else:
            out[place] = f"--config={path}"
    return out


def _load(where: str) -> Callable[..., Any]:
    module, name = where.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _set_up(debug: bool) -> None:
    level = logging.DEBUG if debug else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("medprism").setLevel(level)
    if not debug:
        warnings.filterwarnings("ignore", category=FutureWarning)
        os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
