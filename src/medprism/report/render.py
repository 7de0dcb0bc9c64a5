"""The page: everything that the template shows, gathered from the runs. Nothing of it is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import medprism
from medprism.evaluation.comparison import caution
from medprism.evaluation.protocols import LEAK
from medprism.evaluation.results import Results
from medprism.evaluation.summaries import MEAN
from medprism.evaluation.tables import ARROWS, HEADLINE, NAMES
from medprism.report import (
    beside,
    classes,
    cohort,
    figures,
    labels,
    measures,
    outlines,
    pictures,
    representation,
    subsets,
    tables,
)
from medprism.report.runs import Run
from medprism.report.style import file_uri

_TEMPLATES = PackageLoader("medprism.report", "templates")


def render(runs: Sequence[Run]) -> str:
    """The page as text. Everything that comes from data is escaped by the template engine."""
    environment = Environment(
        loader=_TEMPLATES, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script, sheet = (_source(environment, name) for name in ("report.js", "report.css"))
    heads = [results.head for run in runs if (results := run.results or run.measured) is not None]
    listed = next((run for run in runs if run.subjects and (run.results or run.measured)), None)
    about = listed and (listed.results or listed.measured)
    shown = [_run(run) for run in runs]
    represented = measures.beside(runs) if len(runs) > 1 else []
    return environment.get_template("report.html.j2").render(
        title=_title(runs),
        style=Markup(sheet),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        version=medprism.__version__,
        phantom=any(head.get("phantom") for head in heads),
        runs=shown,
        represented=represented,
        represented_metrics=measures.NAMES,
        measure_columns=measures.COLUMNS,
        compared={protocol: tables.compare(_transfers(runs), protocol) for protocol in _shared(runs)},
        under_subsets=beside.beside(runs),
        subset_curves=beside.curves(runs),
        efficiencies=labels.efficiencies(runs),
        compared_metrics=[f"{NAMES[metric]} {ARROWS[metric]}" for metric in ("psnr", "ssim", "nmse")],
        sides=cohort.sides(listed.subjects, about.head["modalities"]) if listed and about else [],
        cohort_of=listed.name if listed else "",
        one_cohort=len({head["split_hash"] for head in heads}) <= 1,
        curves=figures.curves({run.name: run.log for run in runs}),
        leak=LEAK,
    )


def _run(run: Run) -> dict[str, Any]:
    """What the template shows of one run."""
    about: dict[str, Any] = {"name": run.name, "missing": run.missing, "facts": _facts(run), "protocols": []}
    about |= {"viewers": [], "ranked_by": "", "maps": {}, "caution": None, "split": "", "subjects": 0, "persons": 0}
    about |= {"segmentation": None, "classification": None, "outlines": [], "modalities": []}
    about["templates"] = None if run.templates is None else file_uri(run.templates)
    about |= {"measures": [] if run.measured is None else measures.measures(run.measured), "crops": 0}
    of = run.results or run.measured
    if of is None:
        return about
    head = of.head
    about |= {"caution": caution(head["split"]), **{key: head[key] for key in ("split", "subjects", "persons")}}
    if run.representation is not None:
        about["maps"] = representation.maps(run.representation, head["modalities"], seed=head["seed"])
    if run.measured is not None:
        about["crops"] = run.measured.head["crops"]
    if run.results is not None and head["task"] == subsets.TASK:
        about["segmentation"] = subsets.segmentation(run.results)
        about["modalities"] = head["modalities"]
        if run.slices is not None:
            about["outlines"], about["ranked_by"] = outlines.outlines(run.slices, head["modalities"], head["regions"])
    if run.results is not None and head["task"] == classes.TASK:
        about |= {"classification": classes.classification(run.results), "modalities": head["modalities"]}
        about["missing"] = [part for part in run.missing if part not in ("slices", "representation")]
    if run.results is None or head["task"] != "transfer":
        return about
    about["protocols"] = [_protocol(run.results, protocol) for protocol in _protocols(run.results)]
    if run.slices is not None:
        about["viewers"], about["ranked_by"] = pictures.viewers(run.slices, head["modalities"])
    return about


def _protocol(results: Results, protocol: str) -> dict[str, Any]:
    lines = tables.means(results, protocol)
    return {
        "name": protocol,
        "region": HEADLINE[protocol],
        "cards": lines[:3],
        "means": lines,
        "groups": tables.groups(results, protocol),
        "heat": [tables.squares(results, protocol, metric) for metric in ("psnr", "ssim", "nmse")],
        "long": tables.long_table(results, protocol),
        "pairs": figures.pairs(results, protocol),
        "pair_count": len(
            {(r.given, r.target) for r in results.select(protocol=protocol, group="pair") if len(r.given) < 2}
        ),
        "sentence": _sentence(results, protocol),
    }


def _sentence(results: Results, protocol: str) -> tuple[str, str]:
    """How the model stands against its rivals: a verdict for the colour, and a sentence."""
    lines = [line for line in tables.means(results, protocol) if line.region == HEADLINE[protocol]][:3]
    words: dict[str, list[str]] = {"loses": [], "level": [], "wins": []}
    for line in lines:
        found = [cell.verdict for cell in line.differences if cell.verdict]
        worst = next((word for word in words if word in found), None)
        if worst:
            words[worst].append(line.metric.split()[0])
    if not any(words.values()):
        return "level", "There is no rival to compare with: the cohort has no training subjects with these pairs."
    texts = {
        "loses": "loses to a trivial rival in {}",
        "level": "is no better than a trivial rival in {} beyond its 95 % interval",
        "wins": "beats both trivial rivals in {}",
    }
    parts = [texts[word].format(", ".join(names)) for word, names in words.items() if names]
    return next(word for word, names in words.items() if names), f"The model {'; it '.join(parts)}."


def _facts(run: Run) -> list[tuple[str, str]]:
    """Where the numbers come from, as (name, value)."""
    facts: list[tuple[str, object]] = []
    if (results := run.results or run.measured) is not None:
        head, machine = results.head, results.head.get("machine", {})
        facts += [
            ("cohort", head.get("cohort")),
            ("modalities", " ".join(head.get("modalities", ()))),
            ("scored", f"{head.get('split')} split, {head.get('subjects')} subjects, {head.get('persons')} persons"),
            ("only the first", head.get("limit")),
            ("split hash", str(head.get("split_hash"))[:16]),
            ("bootstrap seed", head.get("seed")),
            ("version", f"medprism {head.get('version')}"),
            ("machine", ", ".join(f"{key} {value}" for key, value in machine.items())),
            ("intensities", "; ".join(f"{name}: {_recipe(recipe)}" for name, recipe in head.get("recipe", {}).items())),
        ]
    card = run.card
    facts += [
        ("model", json.dumps(card["architecture"])[:300] if "architecture" in card else None),
        ("weights", str(card["sha256"])[:16] if card.get("sha256") else None),
        ("trained on", card.get("cohort")),
        ("voxels", f"{_by(card['spacing'])} mm" if card.get("spacing") else None),
        ("patch", f"{_by(card['patch_size'])} voxels" if card.get("patch_size") else None),
        ("cite", card.get("citation")),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _recipe(recipe: dict[str, Any]) -> str:
    """A normaliser in words."""
    limits = "" if recipe["kind"] == "zscore" else f" {recipe['limits'][0]:g} to {recipe['limits'][1]:g}"
    unit = recipe["unit"] if recipe["kind"] in ("window", "suv") else ""
    return f"{recipe['kind']}{limits} {unit}".strip() + f", clipped to {recipe['clip'][0]:g} … {recipe['clip'][1]:g}"


def _by(sides: Sequence[float]) -> str:
    return " × ".join(f"{side:g}" for side in sides)


def _title(runs: Sequence[Run]) -> str:
    names, measured = (
        ", ".join(sorted({str(each.head.get("cohort")) for each in found if each is not None}))
        for found in ([run.results for run in runs], [run.measured for run in runs])
    )
    if names:
        tasks = {run.results.head["task"] for run in runs if run.results is not None}
        titles = {"transfer": "Modality transfer", subsets.TASK: "Segmentation", classes.TASK: "Classification"}
        return f"{' and '.join(title for task, title in titles.items() if task in tasks) or 'Evaluation'} on {names}"
    return f"Representation of {measured}" if measured else f"Training of {runs[0].name}"


def _protocols(results: Results) -> list[str]:
    return str(results.head["protocol"]).split("+")


def _transfers(runs: Sequence[Run]) -> list[Run]:
    """The runs that were scored on modality transfer."""
    return [run for run in runs if run.results is not None and run.results.head["task"] == "transfer"]


def _shared(runs: Sequence[Run]) -> list[str]:
    """The protocols that every run of several was scored under."""
    scored = [run.results for run in _transfers(runs) if run.results is not None and run.results.select(group=MEAN)]
    each = [_protocols(results) for results in scored]
    return [name for name in each[0] if all(name in other for other in each)] if len(each) > 1 else []


def _source(environment: Environment, name: str) -> str:
    return _TEMPLATES.get_source(environment, name)[0].strip()
