"""The results of finished searches: each one's answer, its distribution and its confidence.

Shapes: S searches, N prefixes and answers, K outcomes of a task, D regressions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emollm.core.answers import Answer, from_unit
from emollm.core.tasks import Kind, Task, Value
from emollm.scoring.arrays import TENTHS, Floats
from emollm.scoring.constrained.ragged import Bools, lists_of
from emollm.scoring.constrained.search import Prefixes, Searched, TrieSearches, joined

_NEAR = 0.1
"""The confidence of a number is the probability of a number within this distance."""
_NUMBERS = np.arange(1001) / 1000


def answers_of(searches: TrieSearches) -> list[Answer]:
    """The answer of each search.

    What was left unread is spread over the answers that it may become; of a label set it counts only towards the labels
    that it names, not towards later ones.
    """
    found, searched = searches.found, searches.searched
    known, count = joined([found, searches.left]), len(searched)
    reference_S = np.full(count, -np.inf)
    np.maximum.at(reference_S, known.search_N, known.log_p_N)
    mass_N = np.exp(known.log_p_N - reference_S[known.search_N])
    mass_SK = _by_outcome(searches, known, mass_N)
    modes = _answers_at(searches, found, found.is_greedy_N)
    best = _answers_at(searches, found, found.log_p_N == searches.best_S[found.search_N])
    total_S = np.bincount(known.search_N, mass_N, minlength=count)
    confidence_S = (np.exp(searches.best_S - reference_S) / total_S).tolist()
    totals, references = total_S.tolist(), reference_S.tolist()
    decimals = [s for s in range(count) if searched[s].task.kind is Kind.REGRESSION]
    answers: dict[int, Answer] = dict(
        zip(decimals, _numbers(decimals, searched, mass_SK, modes, references), strict=True)
    )
    for s, (_, task, values) in enumerate(searched):
        if task.kind is Kind.LABEL_SET:
            answers[s] = Answer(
                value=best[s],
                mode=modes.get(s),
                confidence=confidence_S[s],
                probabilities=dict(zip(task.labels, (mass_SK[s] / totals[s]).tolist(), strict=True)),
                valid_mass=_valid_mass(totals[s], references[s]),
            )
        elif task.kind is not Kind.REGRESSION:
            mass = dict(zip(values, mass_SK[s].tolist(), strict=True))
            answers[s] = closed_outcome(mass, mode=values[modes[s]] if s in modes else None, reference=references[s])
    return [answers[s] for s in range(count)]


def _numbers(
    decimals: Sequence[int], searched: Sequence[Searched], mass_SK: Sequence[Floats], modes: Mapping[int, int],
    references: Sequence[float],
) -> list[Answer]:  # fmt: skip
    """The answers of some searches, all for regressions."""
    return decimal_outcomes(
        [searched[s].task for s in decimals],
        np.array([mass_SK[s] for s in decimals]).reshape(-1, 1001),
        mode_units=[modes[s] / 1000 if s in modes else None for s in decimals],
        references=[references[s] for s in decimals],
    )


def _by_outcome(searches: TrieSearches, known: Prefixes, mass_N: Floats) -> list[Floats]:
    """For each search the mass of each outcome of its task: a thousandth of 0..1, a class or a label."""
    count_N, (outcome, share) = searches.table.shares.take(known.node_N)
    of = lists_of(count_N)
    ends_S = np.cumsum([len(values) or 1001 for _, _, values in searches.searched])
    first_S = np.concatenate([[0], ends_S[:-1]])
    mass = np.bincount(first_S[known.search_N[of]] + outcome, mass_N[of] * share, minlength=ends_S[-1])
    return np.split(mass, ends_S[:-1])


def _answers_at(searches: TrieSearches, found: Prefixes, is_one_N: Bools) -> dict[int, Any]:
    """By search the first of the answers that are marked."""
    here = np.flatnonzero(is_one_N)
    search, firsts = np.unique(found.search_N[here], return_index=True)
    nodes = found.node_N[here[firsts]].tolist()
    return {s: searches.table.answers[node] for s, node in zip(search.tolist(), nodes, strict=True)}


def closed_outcome(mass: Mapping[Value, float], *, mode: Value | None, reference: float) -> Answer:
    """The answer from the mass of each class or label, which is relative to the log-probability `reference`."""
    total = sum(mass.values())
    probabilities = {value: each / total for value, each in mass.items()}
    value = max(probabilities, key=probabilities.__getitem__)
    return Answer(
        value=value,
        mode=mode,
        confidence=probabilities[value],
        probabilities={str(v): p for v, p in probabilities.items()},
        valid_mass=_valid_mass(total, reference),
    )


def decimal_outcomes(
    tasks: Sequence[Task], mass_DN: Floats, *, mode_units: Sequence[float | None], references: Sequence[float]
) -> list[Answer]:
    """The answers of regressions from the mass of each of N = 1001 thousandths, relative as for `closed_outcome`."""
    total_D = mass_DN.sum(1)
    mass_DN = mass_DN / total_D[:, None]
    unit_D = mass_DN @ _NUMBERS
    distance_DN = np.abs(_NUMBERS - unit_D[:, None])
    std_D = np.sqrt((mass_DN * distance_DN**2).sum(1))
    near_D = (mass_DN * (distance_DN <= _NEAR)).sum(1)
    tenths_DK = np.add.reduceat(mass_DN, np.arange(0, 1001, 100), axis=1)
    answers = []
    for task, mode, reference, total, unit, std, near, tenths in zip(
        tasks, mode_units, references, total_D.tolist(), unit_D.tolist(), std_D.tolist(), near_D.tolist(),
        tenths_DK.tolist(), strict=True,
    ):  # fmt: skip
        assert task.low is not None and task.high is not None
        answers.append(
            Answer(
                value=from_unit(task, unit),
                unit=unit,
                mode=None if mode is None else from_unit(task, mode),
                std=std * (task.high - task.low),
                confidence=near,
                probabilities=dict(zip(TENTHS, tenths, strict=True)),
                valid_mass=_valid_mass(total, reference),
            )
        )
    return answers


def _valid_mass(total: float, reference: float) -> float:
    return min(1.0, total * math.exp(reference))
