import errno
import inspect
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import yaml

from medprism import cli
from medprism.cli import VERBS, Verb, main
from medprism.errors import UserError
from medprism.helptext import SPELLINGS, metavar, wanted
from medprism.options import parse, parser_of


@dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
        weight: how much.
        kind: of which kind.
    """

    weight: float = 1.0
    kind: Literal["round", "square"] = "round"


calls = []


def odd(
    things: list[Path],
    *,
    out: Path,
    part: Part = Part(),
    image: dict[str, Path] | None = None,
    size: tuple[int, int, int] = (1, 2, 3),
    colours: tuple[Literal["red", "blue"], ...] = ("red",),
    share_of_all: float = 0.5,
    number: int | None = None,
    json_output: bool = False,
    force: bool = False,
) -> None:
    """Do something odd.

    It is only for this test.

    Args:
        things: what to do it with.
        out: where it goes.
        part: a part of it.
        image: what it looks like.
        size: how large.
        colours: in which colours.
        share_of_all: how much of it.
        number: how often.
        json_output: told as JSON.
        force: do it anyway.
    """
    calls.append(locals())


def fail(*, often: int = 1) -> None:
    """Fail."""
    raise calls.pop()


@pytest.fixture(autouse=True)
def verbs(monkeypatch):
    monkeypatch.setitem(VERBS, "odd", Verb("tests.test_cli:odd", "odd things", "medprism odd thing --out there"))
    monkeypatch.setitem(VERBS, "fail", Verb("tests.test_cli:fail", "fails", "medprism fail"))
    calls.clear()


def done(*words):
    assert main(["odd", *words]) == 0
    return calls.pop()


def test_overview_and_verb_are_told_without_anything_heavy():
    code = (
        "import sys; from medprism.cli import main; code = main(['--help']);"
        "print([m for m in ('torch', 'monai', 'lightning', 'nibabel', 'numpy', 'rich', 'jsonargparse') "
        "if m in sys.modules], code)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "[] 0"
    for name, verb in VERBS.items():
        if name not in ("odd", "fail"):
            assert verb.help in told
            assert verb.example in told


def test_help_of_no_verb_waits_for_torch_but_those_that_must():
    code = (
        "import sys; from medprism.cli import main\n"
        "for verb in 'quickstart inspect prepare synthesize segment classify evaluate report export info'.split():\n"
        "    main([verb, '--help']); assert 'torch' not in sys.modules, verb"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("verb", [name for name in VERBS if name not in ("odd", "fail")])
def test_help_of_every_verb_teaches(verb, capsys):
    assert main([*verb.split(), "--help"]) == 0
    told = capsys.readouterr().out
    function = cli._load(VERBS[verb].function)
    first = " ".join(inspect.getdoc(function).split("\n\n")[0].split())
    assert " ".join(told.split()).count(first) == 1
    assert f"for example:\n  {VERBS[verb].example}\n" in told
    assert max(map(len, told.splitlines())) <= 80
    for word in ("Literal", "<class", "Optional", "null", "tuple[", "positional arguments", "CONFIG"):
        assert word not in told, word
    assert not re.search(r"(?<![\w…])_[a-z]", told)  # names that are not for users
    for name, item in inspect.signature(function).parameters.items():
        is_part = hasattr(item.default, "__dataclass_fields__")
        if f"--{name}" not in SPELLINGS.values() and item.kind is item.KEYWORD_ONLY and not is_part:
            assert f"--{name.replace('_', '-')}" in told


def test_help_reads():
    parser = parser_of("odd", odd, "medprism odd thing --out there")
    told = parser.format_help()
    assert told.startswith("usage: medprism odd THING … --out PATH [options]\n\nDo something odd.\n\nIt is only for")
    for line in (
        "  THING …                   what to do it with",
        "  --out PATH                where it goes (required)",
        "  --image.NAME PATH         what it looks like",
        "  --size N,N,N              how large (default: 1,2,3)",
        "  --colours {red,blue},…    in which colours (default: red)",
        "  --share-of-all X          how much of it (default: 0.5)",
        "  --number N                how often",
        "  --json                    told as JSON",
        "  --force                   do it anyway",
        "a part of it:",
        "  --part.kind {round,square}",
    ):
        assert line in told


def test_words_as_people_type_them():
    plain = done("a", "--out", "there")
    assert plain["things"] == [Path("a")]
    assert plain["part"] == Part()
    assert not plain["force"]
    assert done("a", "b", "--out", "x")["things"] == [Path("a"), Path("b")]
    assert done("--out", "x", "--force", "a", "b")["things"] == [Path("a"), Path("b")]
    assert done("--out=x", "a", "--force")["force"]
    assert done("a", "--out", "x", "--force", "false")["force"] is False
    assert done("a", "--out", "x", "--json")["json_output"]
    assert done("a", "--out", "x", "--share-of-all", "0.25")["share_of_all"] == 0.25
    assert done("a", "--out", "x", "--share_of_all=-1")["share_of_all"] == -1
    assert done("a", "--out", "x", "--number", "-3")["number"] == -3
    assert done("a", "--out", "x", "--size", "4,5,6")["size"] == (4, 5, 6)
    assert done("a", "--out", "x", "--size", "[4,5,6]")["size"] == (4, 5, 6)
    assert done("a", "--out", "x", "--colours", "blue,red")["colours"] == ("blue", "red")
    assert done("a", "--out", "x", "--part.weight", "0", "--part.kind", "square")["part"] == Part(0.0, "square")
    images = done("a", "--out", "x", "--image.t1n", "1.nii", "--image.t2w=2.nii")["image"]
    assert images == {"t1n": Path("1.nii"), "t2w": Path("2.nii")}
    assert done("a b", "it's", "--out", "x y")["things"] == [Path("a b"), Path("it's")]


def test_configuration_is_printed_read_back_and_overridden(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["a", "b", "--out", "x", "--size", "4,5,6", "--part.kind", "square", "--image.ct", "c.nii", "--force"]
    expected = done(*words)
    assert main(["odd", *words, "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed)["part"] == {"weight": 1.0, "kind": "square"}
    Path("mine.yaml").write_text(printed)
    assert done("--config", "mine.yaml") == expected
    assert done("--config=mine.yaml", "--number", "7") == {**expected, "number": 7}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("a", "expected --out, got none; see medprism odd --help"),
        ("--out x", "expected THINGS, got none; see medprism odd --help"),
        ("a --out", "expected a value behind --out, got none; see medprism odd --help"),
        ("a --out x --numbr 3", "expected arguments and options of medprism odd, got --numbr; did you mean --number?"),
        ("a --out x --kind x", "expected arguments and options of medprism odd, got --kind; did you mean --part.kind?"),
        ("a --out x --num 3", "expected arguments and options of medprism odd, got --num; did you mean --number?"),
        ("a --out x -q", "expected arguments and options of medprism odd, got -q; see medprism odd --help"),
        ("a --out x --number pi", "expected a whole number for --number, got pi; see medprism odd --help"),
        ("a --out x --number 1.5", "expected a whole number for --number, got 1.5; see medprism odd --help"),
        ("a --out x --share-of-all b", "expected a number for --share-of-all, got b; see medprism odd --help"),
        ("a --out x --part.kind oval", "expected round or square for --part.kind, got oval; see medprism odd --help"),
        (
            "a --out x --size 1,2",
            "expected 3 whole numbers joined by commas for --size, got 1,2; see medprism odd --help",
        ),
        (
            "a --out x --image b",
            "expected a name behind a dot, then a path for --image, got b; see medprism odd --help",
        ),
        ("a --out x --force=maybe", "expected true or false for --force, got maybe; see medprism odd --help"),
        ("a --config none.yaml", "expected a YAML file (this command has no others) behind --config, got none.yaml"),
    ],
)
def test_mistakes_in_words(words, told, capsys):
    assert main(["odd", *words.split()]) == 2
    assert capsys.readouterr().err == f"error: {told}\n"
    assert not calls


def test_mistakes_in_a_configuration(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for text, told in (
        ("nmber: 3", "got nmber; did you mean --number?"),
        ("part: {wait: 3}", "got wait; did you mean --part.weight?"),
        ("number: many", "expected a whole number for --number, got many"),
        ("number: [", "expected a configuration in YAML"),
        ("- 3", "expected a configuration in YAML"),
    ):
        Path("mine.yaml").write_text(text)
        assert main(["odd", "a", "--out", "x", "--config", "mine.yaml"]) == 2
        err = capsys.readouterr().err
        assert told in err
        assert err.count("\n") == 1


def test_shipped_configurations_are_found_by_name(capsys):
    assert main(["pretrain", "--config", "nothing", "--data", "x", "--out", "y"]) == 2
    assert "quickstart" in capsys.readouterr().err


def test_unknown_verb(capsys):
    assert main(["pretrian"]) == 2
    assert capsys.readouterr().err.endswith("got pretrian; did you mean pretrain?\n")


@pytest.mark.parametrize("words", [["finetune"], ["finetune", "--help"], ["finetune", "-h"]])
def test_a_command_of_two_words_lists_what_it_can(words, capsys):
    assert main(words) == 0
    verb = VERBS["finetune segment"]
    assert f"medprism finetune segment --help    {verb.help}\n" in capsys.readouterr().out


def test_unknown_second_word(capsys):
    assert main(["finetune", "nothing", "--data", "cache"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: expected ")
    assert "finetune segment" in line
    assert line.endswith("got finetune nothing")


def test_a_command_of_two_words_needs_its_options(capsys):
    assert main(["finetune", "segment"]) == 2
    told = "error: expected --data and --out, got neither; see medprism finetune segment --help\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UserError("expected a,\n  got b"), 2, "error: expected a, got b\n"),
        (OSError(errno.ENOSPC, "No space left on device", "x.nii"), 2, "error: expected space on the disk, got 'No"),
        (PermissionError(errno.EACCES, "Permission denied", "x.nii"), 2, "error: expected to use x.nii, got 'Perm"),
        (MemoryError("Unable to allocate 9 TiB"), 2, "error: expected more memory (Unable to allocate 9 TiB); take"),
        (ValueError("shapes\ndiffer"), 1, "defect in medprism 0.1.0: ValueError: shapes\nplease report it"),
        (KeyboardInterrupt(), 130, "interrupted; what is finished is kept\n"),
        (SystemExit(3), 3, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_exit_codes(error, code, told, capsys):
    calls.append(error)
    assert main(["fail"]) == code
    err = capsys.readouterr().err
    assert err.startswith(told)
    assert "Traceback" not in err


def test_interrupt_that_lightning_turns_into_an_exit(capsys):
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)
    except SystemExit as stop:
        calls.append(stop)
    assert main(["fail"]) == 130


def test_debug_shows_the_whole_error():
    calls.append(ValueError("shapes differ"))
    with pytest.raises(ValueError, match="shapes differ"):
        main(["fail", "--debug"])
    calls.append(UserError("expected a"))
    with pytest.raises(UserError):
        main(["fail", "--debug"])


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    code = "import sys; from medprism.cli import main; sys.exit(main(['--help']))"
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert ran.returncode == 141
    assert ran.stderr == ""


def test_the_installed_command_and_the_module_are_the_same():
    for command in ([str(Path(sys.executable).with_name("medprism"))], [sys.executable, "-m", "medprism"]):
        ran = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert ran.stdout == "medprism 0.1.0\n"


def test_types_in_words():
    assert metavar(tuple[float, float, float]) == "X,X,X"
    assert metavar(list[str]) == "TEXT,…"
    assert metavar(dict[str, Path]) == "PATH"
    assert wanted(Literal["a"]) == "a"
    assert wanted(Literal["a", "b", "c"]) == "a, b or c"
    assert wanted(list[str]) == "text, several joined by commas"


@pytest.mark.parametrize("verb", ["pretrain", "quickstart", "sweep"])
def test_python_and_command_have_the_same_defaults(verb):
    function = cli._load(VERBS[verb].function)
    needed = {"pretrain": "--data a", "quickstart": "", "sweep": "--data a --variants.x {}"}[verb]
    given = parse(parser_of(verb, function, ""), verb, [*needed.split(), "--out", "b"])
    for name, item in inspect.signature(function).parameters.items():
        if item.default is not item.empty:
            assert given[name] == item.default, name


def test_info_as_json_is_json(tmp_path, capsys):
    cohort = {"name": "two", "modalities": ["t1n"], "training": [{"subject": "a", "t1n": "a.nii.gz"}]}
    (tmp_path / "cohort.json").write_text(json.dumps(cohort))
    assert main(["info", str(tmp_path / "cohort.json"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "cohort"
    assert told["scans"] == {"t1n": 1}
    assert main(["info", str(tmp_path / "cohort.json")]) == 0
    assert "training: 1, validation: 0, test: 0" in capsys.readouterr().out


def test_the_help_of_other_networks_names_their_options(capsys):
    assert main(["finetune", "segment", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "--acn.NAME VALUE ACN instead, see --config acn; one flag each, as --acn.NAME, for width, given" in told
    assert "--normalisers" not in told
