"""From the scores of single subjects to the rows of the table.

Besides every pair (given → target), rows are made for these groups of single-source pairs:

- `off-diagonal`: all pairs whose source is not the target, the headline.
- `with diagonal`: source = target included, as the paper averages; for protocol `paper` only, and for the model only,
  as a rival given its own target is a copy.
- `to <target>`: all sources of one target.
- `<kind> → <kind>`: such as `ct → mri`, in cohorts that mix kinds of scanners.
- `rest`: all others given, if that was asked for.

In a group, each subject first gets its mean over the pairs it has; these are averaged and resampled by person. Paired
differences (`model-lookup`, `model-identity`) are taken pair by pair, where both methods have a value, before that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from medprism.data.modalities import KIND, MODALITIES
from medprism.evaluation.results import Row, Score
from medprism.evaluation.rivals import RIVALS
from medprism.evaluation.statistics import Bootstrap

Pair = tuple[tuple[str, ...], str]
Values = dict[str, float]  # by subject

MEAN = "off-diagonal"


def summarise(scores: Sequence[Score], *, seed: int = 0) -> tuple[Row, ...]:
    """All rows for the scores of a transfer evaluation.

    Args:
        scores: of all subjects.
        seed: of the bootstrap.
    """
    person = {score.subject: score.person for score in scores}
    bootstraps: dict[tuple[str, ...], Bootstrap] = {}
    tables: dict[tuple[str, str, str], dict[str, dict[Pair, Values]]] = defaultdict(lambda: defaultdict(dict))
    for score in scores:
        table = tables[score.protocol, score.region, score.metric][score.method]
        table.setdefault((score.given, score.target or ""), {})[score.subject] = score.value

    def row(keys: tuple[str, str, str], group: str, method: str, pair: Pair, values: Values) -> Row:
        persons = tuple(person[subject] for subject in values)
        if persons not in bootstraps:  # drawn once for all metrics and methods of the same subjects
            bootstraps[persons] = Bootstrap(persons, seed=seed)
        summary = bootstraps[persons].summary(list(values.values()))
        protocol, region, metric = keys
        return Row(protocol, group, method, pair[0], pair[1] or None, region, metric, **vars(summary))

    rows: list[Row] = []
    for keys, methods in tables.items():
        for method, table in {**methods, **_differences(methods)}.items():
            for pair, values in table.items():
                group = "diagonal" if pair[0] == (pair[1],) else "pair"
                rows.append(row(keys, group, method, pair, values))
            for group, pairs in _groups(table, keys[0], method):
                target = pairs[0][1] if len({pair[1] for pair in pairs}) == 1 else ""
                rows.append(row(keys, group, method, ((), target), _mean([table[pair] for pair in pairs])))
    return tuple(rows)


def _differences(methods: Mapping[str, Mapping[Pair, Values]]) -> dict[str, dict[Pair, Values]]:
    """Model minus each rival, subject by subject, for the pairs that both were scored on."""
    model = methods.get("model", {})
    return {
        f"model-{rival}": {
            pair: {subject: model[pair][subject] - value for subject, value in values.items()}
            for pair, values in methods[rival].items()
            if pair in model
        }
        for rival in RIVALS
        if rival in methods
    }


def _groups(table: Mapping[Pair, Values], protocol: str, method: str) -> Iterator[tuple[str, list[Pair]]]:
    off = [pair for pair in table if len(pair[0]) == 1 and pair[0][0] != pair[1]]
    groups: dict[str, list[Pair]] = {MEAN: off}
    if protocol == "paper" and method == "model":
        groups["with diagonal"] = [pair for pair in table if len(pair[0]) == 1]
    for pair in sorted(off, key=lambda pair: MODALITIES.index(pair[1])):
        groups.setdefault(f"to {pair[1]}", []).append(pair)
    if len({KIND[modality] for pair in off for modality in (*pair[0], pair[1])}) > 1:
        for pair in off:
            groups.setdefault(f"{KIND[pair[0][0]]} → {KIND[pair[1]]}", []).append(pair)
    groups["rest"] = [pair for pair in table if len(pair[0]) > 1]
    return ((group, pairs) for group, pairs in groups.items() if pairs)


def _mean(tables: Sequence[Values]) -> Values:
    """Each subject's mean over the pairs that it has a value for; NaN if it has none."""
    gathered: dict[str, list[float]] = defaultdict(list)
    for values in tables:
        for subject, value in values.items():
            gathered[subject].append(value)
    exist = {subject: [value for value in values if np.isfinite(value)] for subject, values in gathered.items()}
    return {subject: float(np.mean(values)) if values else float("nan") for subject, values in exist.items()}
