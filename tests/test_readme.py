"""Every command in the documentation is one that there is; those of the README run, on small data.

The README's commands are run as they stand, with the options of `SMALL` behind them.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest

import medprism
from medprism import cli
from medprism.cli import VERBS, main
from medprism.options import parse, parser_of

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
PAGES += ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]

SMALL = {
    "quickstart": "--subjects 8 --steps 2",
    "pretrain": "--network.width 4 --network.levels 3 --patches.size 16,16,16 --epochs 1",
    "inspect": "",
    "prepare": "",
    "evaluate": "",
    "report": "",
    "synthesize": "",
}


def blocks(page, language):
    """The fenced blocks of a page, in order."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def commands(text):
    """The verb, of one word or two, and the words behind it of every command in a block of shell."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "medprism" in words and words[0] != "pip":
            words = words[words.index("medprism") + 1 :]
            count = 2 if " ".join(words[:2]) in VERBS else 1
            yield [" ".join(words[:count]), *words[count:]]


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for text in blocks(page, "yaml"):
        name, _, content = text.partition("\n")
        Path(name.removeprefix("# ")).write_text(content)
    for text in blocks(page, "bash"):
        for words in commands(text):
            if ">" in words:  # the output of --print_config, which a later command reads
                verb, *words, _, file = words
                assert main([*verb.split(), *words]) == 0
                Path(file).write_text(capsys.readouterr().out)
            else:
                verb = words[0]
                parse(parser_of(verb, cli._load(VERBS[verb].function), ""), verb, words[1:])


@pytest.mark.parametrize("page", PAGES)
def test_flags_in_the_text_exist(page, flags):
    """An option that the text names in code, such as `--force`, is one of some command."""
    text = (ROOT / page).read_text(encoding="utf-8")
    foreign = {"--strict", "--constraint", "--help", "--version", "--debug", "--print_config"}  # of mypy, pip, all
    for code in re.findall(r"`([^`\n]+)`", text):
        for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", code):
            assert flag in foreign or flag.replace("-", "_").replace("__", "--", 1) in flags, f"{flag} in `{code}`"


@pytest.fixture(scope="module")
def flags():
    known = {"--json", "--image.t1n", "--image.NAME", "--small.ET"}
    for verb, entry in VERBS.items():
        known |= {
            flag for action in parser_of(verb, cli._load(entry.function), "")._actions for flag in action.option_strings
        }
    return known


def test_examples_of_the_help_parse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, verb in VERBS.items():
        [[found, *words]] = commands(verb.example)
        assert found == name
        assert parse(parser_of(name, cli._load(verb.function), ""), name, words)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[\w-]*)?\)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target


def test_configuration_keys_in_the_text_exist(flags):
    """`puir.anchor`, `network.width: 48`: every dotted key in code is an option of `pretrain`."""
    groups = "puir|network|patches|optimiser|compute"
    for page in PAGES:
        for key in re.findall(rf"`((?:{groups})\.[a-z_.]+)", (ROOT / page).read_text(encoding="utf-8")):
            assert f"--{key}" in flags, f"{key} in {page}"


@pytest.mark.slow
def test_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = []
    for text in blocks("README.md", "bash"):
        for verb, *words in commands(text):
            if verb == "inspect":
                shutil.copytree("first-look/phantoms", "BraTS2023", ignore=shutil.ignore_patterns("*.json"))
            if verb == "synthesize":
                for name, modality in (("t1", "t1n"), ("t2", "t2w")):
                    shutil.copy(f"BraTS2023/sub-0001/sub-0001-{modality}.nii.gz", f"{name}.nii.gz")
            assert main([*verb.split(), *words, *SMALL[verb].split()]) == 0
            ran.append(verb)
    assert set(ran) == set(SMALL)
    assert Path("report.html").stat().st_size > 100_000
    assert Path("first-look/report.html").exists()
    made = Path("generated/t2f.nii.gz").read_bytes()
    Path("generated/t2f.nii.gz").unlink()
    Path("generated/t2f.json").unlink()
    (python,) = blocks("README.md", "python")
    exec(python, {"medprism": medprism})
    assert Path("generated/t2f.nii.gz").read_bytes() == made
