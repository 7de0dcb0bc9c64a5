"""From the scores of single subjects under subsets of the modalities to the rows of the table.

Groups: `subset` (one set of given scans; the subjects that have all of them) and the means over subsets, see
`subsets.means_over`. A mean over subsets is the plain mean of the subsets' means, as in the paper's Table 3, and its
`std` is over subsets; its interval comes from drawing persons, each with all of their subsets.

Region `mean` is each subject's mean over regions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from medprism.evaluation.results import Row, Score
from medprism.evaluation.statistics import Bootstrap
from medprism.evaluation.subsets import ALL, ONE, OVER_REGIONS, Subset, means_over

OVERLAP = ("dice", "hd95")
"""The metrics that have rules for empty regions."""

TRUTH, OUTPUT = "truth_ml", "output_ml"
"""The metrics that tell whether a region is empty: its volume."""

Case = tuple[str, Subset]  # subject, what was given
Values = dict[Case, float]
Kind = tuple[str, str, str]  # protocol, method, region


def summarise_subsets(scores: Sequence[Score], modalities: Sequence[str], *, seed: int = 0) -> tuple[Row, ...]:
    """All rows for the scores of an evaluation over subsets.

    Args:
        scores: of all subjects.
        modalities: canonical names in cohort order.
        seed: of the bootstrap.
    """
    person = {score.subject: score.person for score in scores}
    tables: dict[tuple[Kind, str], Values] = defaultdict(dict)
    for score in scores:
        kind = (score.protocol, score.method, score.region)
        tables[kind, score.metric][score.subject, score.given] = score.value
    bootstraps: dict[tuple[str, ...], Bootstrap] = {}

    def row(kind: Kind, metric: str, group: str, subsets: list[Subset], values: Values) -> Row:
        subjects = [subject for subject in person if any((subject, subset) in values for subset in subsets)]
        persons = tuple(person[subject] for subject in subjects)
        if persons not in bootstraps:  # drawn once for all metrics and methods of the same subjects
            bootstraps[persons] = Bootstrap(persons, seed=seed)
        matrix = np.array([[values.get((s, subset), np.nan) for subset in subsets] for s in subjects])
        one = group == ONE
        summary = bootstraps[persons].summary(matrix[:, 0]) if one else bootstraps[persons].mean_of_means(matrix)
        about = vars(summary) | _counts(tables, kind, metric, [(s, subset) for s in subjects for subset in subsets])
        protocol, method, region = kind
        return Row(protocol, group, method, subsets[0] if one else (), None, region, metric, **about)

    rows: list[Row] = []
    for (kind, metric), values in {**tables, **_means_over_regions(tables)}.items():
        groups = means_over({given for _, given in values}, modalities)
        rows += [row(kind, metric, ONE, [subset], values) for subset in groups[ALL]]
        rows += [row(kind, metric, group, subsets, values) for group, subsets in groups.items()]
    return tuple(rows)


def _means_over_regions(tables: Mapping[tuple[Kind, str], Values]) -> dict[tuple[Kind, str], Values]:
    """Each case's Dice and HD95 averaged over regions."""
    gathered: dict[tuple[Kind, str], dict[Case, list[float]]] = defaultdict(lambda: defaultdict(list))
    for ((protocol, method, _), metric), values in tables.items():
        if metric in OVERLAP:
            for case, value in values.items():
                gathered[(protocol, method, OVER_REGIONS), metric][case].append(value)
    return {key: {case: float(np.mean(v)) for case, v in values.items()} for key, values in gathered.items()}


def _counts(
    tables: Mapping[tuple[Kind, str], Values], kind: Kind, metric: str, cases: Sequence[Case]
) -> dict[str, int]:
    """How often a rule for empty regions decided over Dice or HD95; nothing of other metrics and of differences."""
    protocol, method, region = kind
    both = one = 0
    for other, name in tables:
        own = other[:2] == (protocol, method) and region in (other[2], OVER_REGIONS)
        if metric in OVERLAP and own and name == TRUTH:
            truth, output = tables[other, TRUTH], tables[other, OUTPUT]
            empty = [(truth[case] == 0) + (output[case] == 0) for case in cases if case in truth]
            both, one = both + empty.count(2), one + empty.count(1)
    return {"n_empty": both, "n_one_empty": one} if metric in OVERLAP else {}
