"""From a verb's typed function to its flags: what people type, what jsonargparse takes, what an error says."""

from __future__ import annotations

import argparse
import difflib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from jsonargparse import ArgumentParser

from medprism.errors import UserError
from medprism.helptext import SPELLINGS, HelpFormatter, is_sequence, tidy, type_of, wanted

CONFIGS = Path(__file__).parent / "configs"


def parser_of(verb: str, function: Callable[..., Any], example: str) -> ArgumentParser:
    """The parser of one verb.

    Args:
        verb: its name.
        function: what it calls; the signature makes the flags, the docstring their help.
        example: a whole command.
    """
    about = (inspect.getdoc(function) or "").split("\n\nArgs:")[0]
    parser = ArgumentParser(
        prog=f"medprism {verb}",
        description=f"{about}\n\nfor example:\n  {example}",
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    names = ", ".join(known(verb))
    told = f"YAML file of options, or one that comes along: {names}" if names else "YAML file of options"
    parser.add_argument("--config", action="config", help=told)
    parser.add_function_arguments(function, as_positional=True, sub_configs=False)
    tidy(parser)
    return parser


def parse(parser: ArgumentParser, verb: str, words: Sequence[str]) -> dict[str, Any]:
    """Arguments of the verb's function from the words behind the verb.

    Raises:
        UserError: an unknown option, a missing one, a value of another type, an unreadable configuration.
        SystemExit: help or configuration was asked for and printed.
    """
    given = spelled(shipped(verb, list(words)), parser)
    try:
        values = parser.parse_args(given)
        arguments: dict[str, Any] = parser.instantiate(values).as_dict()
    except (argparse.ArgumentError, argparse.ArgumentTypeError) as error:
        told = explained(str(error), parser, given)
        raise UserError(told if told.endswith("?") else f"{told}; see medprism {verb} --help") from error
    except ValueError as error:  # where options may be left out as a whole, the parser wraps what their checks say
        if (found := re.search(r"^ *- (expected .+)$", str(error), re.MULTILINE)) is None:
            raise
        raise UserError(_in_full(found[1], parser)) from error
    except UserError as error:
        raise UserError(_in_full(str(error), parser)) from error
    arguments.pop("config", None)
    return arguments


def _in_full(told: str, parser: ArgumentParser) -> str:
    """What a configuration says that is part of another one, and does not know which: with its option's whole name."""
    own = [action for action in parser._actions if not action.dest.endswith(".help")]
    names = {name for action in own for name in _names(action.dest, type_of(action))}

    def whole(found: re.Match[str]) -> str:
        longer = [name for name in names if name.endswith(f".{found[0]}")]
        return longer[0] if len(longer) == 1 and found[0] not in names else found[0]

    return re.sub(r"(?<= for )\w+(\.\w+)+(?=, got )", whole, told)


def _names(name: str, kind: Any) -> Iterator[str]:  # noqa: ANN401 - any annotation
    """An option, and those of which it is made if it is a dataclass."""
    yield name
    if isinstance(kind, type) and is_dataclass(kind):
        for inner, its in get_type_hints(kind).items():
            yield from _names(f"{name}.{inner}", its)


def spelled(words: Sequence[str], parser: ArgumentParser) -> list[str]:
    """Words as people type them, as jsonargparse takes them.

    `--missing-rate 0.3` becomes `--missing_rate=0.3`, `--force` becomes `--force=true`, `--patches.size 32,32,32`
    becomes `--patches.size=[32,32,32]`, and words without a flag become a list where the verb takes one.
    """
    actions = {flag: action for action in parser._actions for flag in action.option_strings}
    free: list[str] = []
    out: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            free.append(word)
            continue
        flag, equals, value = word.partition("=")
        flag = f"--{flag[2:].replace('-', '_')}" if flag.startswith("--") else flag
        flag = SPELLINGS.get(flag, flag)
        action = actions.get(flag)
        kind = type_of(action) if action is not None else _inner(flag, actions)
        if not equals and kind is bool:
            follows = rest and rest[0].lower() in ("true", "false")
            equals, value = "=", rest.pop(0) if follows else "true"
        elif not equals and _takes_value(flag, action) and rest and not rest[0].startswith("--"):
            equals, value = "=", rest.pop(0)
        if equals and is_sequence(kind) and not value.startswith("["):
            value = f"[{value}]"
        out.append(f"{flag}{equals}{value}")
    positional = [action for action in parser._actions if not action.option_strings]
    if positional and is_sequence(type_of(positional[0])) and free:
        free = [json.dumps(free)]
    return [*free, *out]


def _inner(flag: str, actions: Mapping[str, argparse.Action]) -> Any:  # noqa: ANN401 - any annotation
    """The annotation behind a flag such as `--acn.given`, where `--acn` is a dataclass or nothing; None if unknown."""
    outer, *names = flag.split(".")
    kind = type_of(actions.get(outer))
    for name in names:
        kind = get_type_hints(kind).get(name) if is_dataclass(kind) else None
    return kind


def _takes_value(flag: str, action: argparse.Action | None) -> bool:
    """Whether the next word belongs to a flag. `--image.t1n` is no action of its own but takes one."""
    return flag.startswith("--") and flag != "--print_config" and (action is None or action.nargs != 0)


def explained(message: str, parser: ArgumentParser, words: Sequence[str]) -> str:
    """An error of the parser in words of the command line: what was expected and what came."""
    actions = {action.dest: action for action in parser._actions}
    text = " ".join(message.split())
    if found := re.search(r"arguments are required: (.+)", text):
        names = [_name(actions[key], key) if key in actions else key for key in found[1].split(", ")]
        return f"expected {' and '.join(names)}, got {'none' if len(names) == 1 else 'neither'}"
    if found := re.match(r"argument (\S+): expected one argument", text):
        return f"expected a value behind {found[1].replace('_', '-')}, got none"
    if (found := re.match(r"unrecognized arguments: (.+)", text)) or (found := re.search(r"ption '(.+)'", text)):
        return _unknown(found[1].split()[0], parser)
    if found := re.match(r'Parser key "([^"]+)": ', text):
        key = found[1]
        value = next((word.partition("=")[2] for word in reversed(words) if word.startswith(f"--{key}")), None)
        if value is None:
            told = re.findall(r"(?:Got value|Given value): (.+)", text)
            value = told[-1] if told else text[found.end() :]
        action = actions.get(key)
        if action is not None:
            return f"expected {wanted(type_of(action))} for {_name(action, key)}, got {_short(value.strip('[]'))}"
    if text.startswith(("Problems parsing config", "Unexpected config")):
        return f"expected a configuration in YAML, got {_short(text.partition(': ')[2])}"
    return _short(text)


def _unknown(word: str, parser: ArgumentParser) -> str:
    """About a flag, a key of a configuration or a stray word that the verb does not take."""
    flag = word.partition("=")[0]
    known = [flag for action in parser._actions if action.help != argparse.SUPPRESS for flag in action.option_strings]
    near = difflib.get_close_matches(f"--{flag.strip('-')}", known, n=1)
    if not near:  # the part before the dot may be missing
        leaves = {name.rpartition(".")[2]: name for name in known if "." in name}
        near = [leaves[leaf] for leaf in difflib.get_close_matches(flag.strip("-"), leaves, n=1)]
    told = f"; did you mean {near[0].replace('_', '-')}?" if near else ""
    return f"expected arguments and options of {parser.prog}, got {flag.replace('_', '-')}{told}"


def _name(action: argparse.Action, key: str) -> str:
    if not action.option_strings:
        return key.upper()
    typed = {name: flag for flag, name in SPELLINGS.items()}
    return typed.get(f"--{key}", f"--{key.replace('_', '-')}")


def _short(text: str) -> str:
    return text if len(text) <= 160 else f"{text[:160]} …"


def known(verb: str) -> list[str]:
    """The names of the configurations that come along for a verb."""
    return sorted(path.stem for path in CONFIGS.joinpath(*verb.split()).glob("*.yaml"))


def shipped(verb: str, words: Sequence[str]) -> list[str]:
    """Replace the name of a shipped configuration behind `--config` by its path.

    Raises:
        UserError: there is neither such a file nor such a name.
    """
    names, out = known(verb), list(words)
    for place, word in enumerate(words):
        given = words[place + 1] if word == "--config" and place + 1 < len(words) else None
        if word.startswith("--config="):
            given = word.removeprefix("--config=")
        if given is None or Path(given).is_file():
            continue
        if given not in names:
            told = f"a YAML file or one of {', '.join(names)}" if names else "a YAML file (this command has no others)"
            raise UserError(f"expected {told} behind --config, got {given}")
        path = str(CONFIGS.joinpath(*verb.split(), f"{given}.yaml"))
        if word == "--config":
            out[place + 1] = path
        else:
            out[place] = f"--config={path}"
    return out
