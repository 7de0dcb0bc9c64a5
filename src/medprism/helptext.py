"""How `medprism VERB --help` reads: types and defaults as they are typed, one thing said once."""

from __future__ import annotations

import argparse
import textwrap
import types
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser, DefaultHelpFormatter

SPELLINGS = {"--json": "--json_output", "--from": "--origin", "--format": "--file_format"}
"""Flags whose parameter has another name, as that of the flag is taken in Python."""


def type_of(action: argparse.Action | None) -> Any:  # noqa: ANN401 - any annotation
    """The annotation behind a flag, without `None`; a union that has a path in it counts as the path."""
    kind = getattr(action, "_typehint", None) or getattr(action, "type", None)
    if get_origin(kind) in (Union, types.UnionType):
        parts = [part for part in get_args(kind) if part is not type(None)]
        kind = Path if Path in parts else parts[0]
    return kind


def is_switch(action: argparse.Action | None) -> bool:
    """Whether a flag stands alone, as `--force`."""
    return type_of(action) is bool


def is_sequence(kind: Any) -> bool:  # noqa: ANN401
    """Whether several values are typed, joined by commas."""
    return get_origin(kind) in (tuple, list)


def metavar(kind: Any) -> str:  # noqa: ANN401
    """What stands for a value in the help."""
    if get_origin(kind) is Literal:
        return f"{{{','.join(map(str, get_args(kind)))}}}"
    if is_sequence(kind):
        first, several = metavar(get_args(kind)[0]), len(get_args(kind)) if Ellipsis not in get_args(kind) else 1
        return ",".join([first] * several) if get_origin(kind) is tuple and several > 1 else f"{first},…"
    if get_origin(kind) is dict:
        return metavar(get_args(kind)[1])
    return {int: "N", float: "X", Path: "PATH", str: "TEXT", bool: "{true,false}"}.get(kind, "YAML")


def wanted(kind: Any) -> str:  # noqa: ANN401
    """What an error says was expected."""
    if get_origin(kind) is Literal:
        *others, last = map(str, get_args(kind))
        return f"{', '.join(others)} or {last}" if others else last
    if is_sequence(kind):
        inner = get_args(kind)
        if get_origin(kind) is tuple and Ellipsis not in inner:
            plural = {int: "whole numbers", float: "numbers"}.get(inner[0], "values")
            return f"{len(inner)} {plural} joined by commas"
        return f"{wanted(inner[0])}, several joined by commas"
    if get_origin(kind) is dict:
        return f"a name behind a dot, then {wanted(get_args(kind)[1])}"
    names = {int: "a whole number", float: "a number", Path: "a path", str: "text", bool: "true or false"}
    return names.get(kind, "a mapping in YAML")


def tidy(parser: ArgumentParser) -> None:
    """Shape the parser's help: what the verb is about first, then its parts, then what every verb has."""
    general, function, *parts = (group for group in parser._action_groups if group._group_actions)
    for action in parser._actions:
        if action.dest.endswith(".help") or "ActionConfigLoad" in type(action).__name__:
            action.help = argparse.SUPPRESS
        elif action.dest == "help":
            action.help = "show this and exit"
        elif action.option_strings == ["--print_config"]:
            action.help, action.metavar = "print all options as YAML, to edit and give back with --config", ""
        elif action.dest != "config":
            action.metavar = "" if is_switch(action) else metavar(type_of(action))
            if is_dataclass(type_of(action)):  # one that may be left out
                names = ", ".join(field.name for field in fields(type_of(action)))
                action.metavar = ".NAME VALUE"
                action.help = (
                    f"{str(action.help).removesuffix('.')}; one flag each, as {_flag(action)}.NAME, for {names}"
                )
        else:
            action.metavar = "NAME|PATH" if "comes along" in str(action.help) else "PATH"
        if not action.option_strings:
            action.metavar = _spoken(action)
    function.title, general.title = "arguments and options", "with every command"
    parser._action_groups = [function, *parts, general]
    own = [action for action in function._group_actions if action.help != argparse.SUPPRESS]
    required = [action for action in own if action.option_strings and action.required]
    words = [_spoken(action) for action in own if not action.option_strings]
    words += [f"{_flag(action)} {action.metavar}" for action in required]
    usage = " ".join([parser.prog, *words, "[options]"])
    parser.usage = "\n".join(textwrap.wrap(usage, 70, subsequent_indent="    ", break_on_hyphens=False))


class HelpFormatter(DefaultHelpFormatter):
    """Keeps the lines of the description; tells a default as it would be typed; no Python types."""

    def __init__(self, prog: str, **kwargs: Any) -> None:  # noqa: ANN401 - argparse's
        super().__init__(prog, max_help_position=28, **kwargs)  # type: ignore[no-untyped-call]

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = (p if p.startswith("for example") else textwrap.fill(p, width) for p in text.split("\n\n"))
        return textwrap.indent("\n\n".join(paragraphs), indent)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = (action.help or "").strip().removesuffix(".")
        if text[1:2].islower():
            text = text[0].lower() + text[1:]
        if action.required and action.option_strings:
            return f"{text} (required)"
        silent = action.default in (None, argparse.SUPPRESS) or is_switch(action) or not action.option_strings
        return text if silent else f"{text} (default: {_typed(action.default)})"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return str(action.metavar)
        if action.dest == "help":
            return ", ".join(action.option_strings)
        return f"{_flag(action)} {action.metavar}".strip().replace(" .NAME", ".NAME")


def _flag(action: argparse.Action) -> str:
    flag = action.option_strings[0]
    flag = {long: short for short, long in SPELLINGS.items()}.get(flag, flag)
    if flag != "--print_config":
        flag = flag.replace("_", "-")
    return f"{flag}.NAME" if get_origin(type_of(action)) is dict else flag


def _spoken(action: argparse.Action) -> str:
    several = is_sequence(type_of(action))
    choices = get_args(type_of(action)) if get_origin(type_of(action)) is Literal else ()
    name = "|".join(map(str, choices)) if choices else action.dest.upper().removesuffix("S" if several else "")
    return f"{name} …" if several else name


def _typed(value: Any) -> str:  # noqa: ANN401 - any default
    if isinstance(value, tuple | list):
        return ",".join(map(_typed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
