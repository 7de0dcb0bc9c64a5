"""Label efficiency: Dice, or AUC and ACC, over the share of the training persons whose labels or classes were used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from medprism.evaluation.comparison import verdict
from medprism.evaluation.results import Results, Row
from medprism.evaluation.subset_scoring import METHODS
from medprism.evaluation.subset_tables import mean_row
from medprism.evaluation.subset_tasks import SUBSET_TASKS, Number, SubsetTask, spoken
from medprism.evaluation.subsets import ALL
from medprism.evaluation.tables import number
from medprism.report.runs import Run
from medprism.report.style import category, styled, svg_uri
from medprism.report.tables import Cell, interval, signed

STARTS = {"None": "from scratch", "encoder": "pre-trained encoder", "model": "whole pre-trained model"}
"""`part` in the configuration of a fine-tuning -> its name."""

OF_A_RUN = ("fraction", "seed", "data", "precision", "epochs", "patches.per_subject")
"""Options that runs of one method may differ in; of a smaller share there may be more epochs or patches."""

Shares = dict[float, list[Run]]
"""Share of the training persons -> the runs of one method with it, one a seed."""

Key = tuple[tuple[str, str], ...]
"""Options of a method, dotted, and their values."""


@dataclass(frozen=True)
class Efficiency:
    """What the template shows of one task.

    Attributes:
        what: is shown, in words.
        figure: a `data:` URI.
        fractions: the shares, as text.
        tables: (title, rows); a row has a method's name, its cells, and its differences to the first method or none.
    """

    what: str
    figure: str
    fractions: list[str]
    tables: list[tuple[str, list[tuple[str, list[Cell], list[Cell]]]]]


def efficiencies(runs: Sequence[Run]) -> list[Efficiency]:
    """Curves and tables of each task that some method was trained for with several shares."""
    found = {name: [run for run in runs if _task(run) == name] for name in SUBSET_TASKS}
    return [made for name, own in found.items() if (made := _efficiency(own, SUBSET_TASKS[name])) is not None]


def _efficiency(runs: Sequence[Run], task: SubsetTask) -> Efficiency | None:
    """Of the runs that are of one split; None if no method was trained with several shares."""
    methods = methods_of(runs)
    if not methods:
        return None
    about = next(run.results for shares in methods.values() for own in shares.values() for run in own if run.results)
    names = about.head["modalities"]
    scores = {name: {share: [run.scores for run in own] for share, own in m.items()} for name, m in methods.items()}
    found = {
        name: {share: Results(about.head, task.mean(own, names)) for share, own in each.items()}
        for name, each in scores.items()
    }
    numbers, fractions = task.chief(about), sorted({share for each in found.values() for share in each})
    reference, *_ = scores.values()
    paired = {
        name: {
            share: Results(about.head, task.compare(own, reference[share], names))
            for share, own in each.items()
            if each is not reference and share in reference
        }
        for name, each in scores.items()
    }
    tables = []
    for one in numbers:
        rows = []
        for name, each in found.items():
            cells = [_cell(_mean(each.get(share), METHODS[0], one)) for share in fractions]
            others = [_mean(paired[name].get(share), "difference", one) for share in fractions]
            rows.append((name, cells, [_cell(row, signs=True) for row in others] if paired[name] else []))
        tables.append((one.title, rows))
    shown = [f"{100 * share:g} %" for share in fractions]
    return Efficiency(spoken(numbers), _figure(found, numbers), shown, tables)


def methods_of(runs: Sequence[Run]) -> dict[str, Shares]:
    """Name of each method -> its runs by share; only methods with several shares, on the split of the first of them.

    Runs are of one method if their configurations differ in nothing but `OF_A_RUN` and the weights to start from, as
    each seed has its own pre-training. If two of them have share and seed in common, the weights tell methods apart
    too; runs that even these do not tell apart are left out.
    """
    own = [run for run in runs if "fraction" in run.card.get("config", {}) and _split(run)]
    methods: dict[Key, Shares] = {}
    for key, shares in _grouped([run for run in own if _split(run) == _split(own[0])], (*OF_A_RUN, "init")).items():
        apart = _grouped([run for same in shares.values() for run in same], OF_A_RUN)
        methods |= {key: shares} if _one_a_seed(shares) else {k: each for k, each in apart.items() if _one_a_seed(each)}
    methods = {key: shares for key, shares in methods.items() if len(shares) > 1}
    return dict(zip(_names(list(methods)), methods.values(), strict=True))


def _one_a_seed(shares: Shares) -> bool:
    return all(len({run.card["config"]["seed"] for run in same}) == len(same) for same in shares.values())


def _task(run: Run) -> str | None:
    """What a run was scored on."""
    return None if run.results is None else str(run.results.head["task"])


def _split(run: Run) -> str | None:
    """The hash of the split that a run was scored on under subsets of the scans; None of other runs."""
    return str(run.results.head["split_hash"]) if run.results is not None and _task(run) in SUBSET_TASKS else None


def _grouped(runs: Sequence[Run], but: Sequence[str]) -> dict[Key, Shares]:
    """Runs by their options, some left out, and by share."""
    made: dict[Key, Shares] = {}
    for run in runs:
        config = run.card["config"]
        key = tuple(sorted((name, str(value)) for name, value in _flat(config) if name not in but))
        made.setdefault(key, {}).setdefault(config["fraction"], []).append(run)
    return made


def _names(keys: Sequence[Key]) -> list[str]:
    """What each method started from, and the options that tell it from others with the same start."""
    names = []
    for key in keys:
        part = dict(key)["part"]
        others = [dict(other) for other in keys if dict(other)["part"] == part]
        differing = [f"{name} {value[:12]}" for name, value in key if any(o.get(name) != value for o in others)]
        names.append(", ".join([STARTS[part], *differing]))
    return names


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in config.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found


def _mean(results: Results | None, method: str, one: Number) -> Row | None:
    return None if results is None else mean_row(results, method, one.region, one.metric, ALL)


def _figure(found: Mapping[str, Mapping[float, Results]], numbers: Sequence[Number]) -> str:
    with styled():
        figure = Figure(figsize=(max(5.2, min(12.5, 4.1 * len(numbers))), 3.3))
        panels = figure.subplots(1, len(numbers), sharey=True, squeeze=False)[0]
        for axes, one in zip(panels, numbers, strict=True):
            for place, (name, each) in enumerate(found.items()):
                rows = [(share, _mean(each[share], METHODS[0], one)) for share in sorted(each)]
                known = [(x, row, row.mean) for x, row in rows if row is not None and row.mean is not None]
                if not known:
                    continue
                x, y = [x for x, _, _ in known], [mean for _, _, mean in known]
                low, high = zip(*(row.ci95 or (mean, mean) for _, row, mean in known), strict=True)
                axes.plot(x, y, "o-", label=name, color=category(place), linewidth=1.6)
                axes.fill_between(x, low, high, color=category(place), alpha=0.12, linewidth=0)
            axes.set_title(one.title)
            axes.set_xlabel("training persons with labels")
            axes.set_xticks(sorted({share for each in found.values() for share in each}))
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        panels[0].set_ylabel(", ".join(filter(None, (numbers[0].axis, "mean over subsets"))))
        panels[-1].legend()
        figure.tight_layout(w_pad=2.0)
        return svg_uri(figure)


def _cell(row: Row | None, *, signs: bool = False) -> Cell:
    if row is None or row.mean is None:
        return Cell("–")
    text = signed(row.mean, row.metric) if signs else number(row.mean, row.metric)
    return Cell(text, interval(row), verdict=verdict(row) if signs else None, title=f"n = {row.n}")
