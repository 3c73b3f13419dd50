"""The result of a finished search: the answer, its distribution and its confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from emollm.core.answers import Answer, from_unit
from emollm.core.tasks import Task, Value
from emollm.scoring.arrays import Floats
from emollm.scoring.constrained.search import TrieSearch

_NEAR = 0.1
"""The confidence of a number is the probability of a number within this distance."""


def closed_answer(search: TrieSearch[Value], task: Task) -> Answer:
    """Ordinals and single labels: the answer with the largest total probability."""
    reference = search.reference
    mass = dict.fromkeys(task.answer_values, 0.0)
    for found in search.found:
        mass[found.answer] += math.exp(found.log_p - reference)
    for item in search.open:
        # The unread probability, less than the tolerance in total, is distributed evenly.
        for leaf in item.node.below():
            assert leaf.answer is not None
            mass[leaf.answer] += math.exp(item.log_p - reference) / item.node.count
    return closed_outcome(task, mass, mode=search.greedy.answer if search.greedy else None, reference=reference)


def closed_outcome(task: Task, mass: Mapping[Value, float], *, mode: Value | None, reference: float) -> Answer:
    """The answer of a class or label from the mass of each, which is relative to the log-probability `reference`."""
    total = sum(mass.values())
    probabilities = {value: mass[value] / total for value in task.answer_values}
    value = max(probabilities, key=lambda v: probabilities[v])
    return Answer(
        value=value,
        mode=mode,
        confidence=probabilities[value],
        probabilities={str(v): p for v, p in probabilities.items()},
        valid_mass=_valid_mass(total, reference),
    )


def decimal_answer(search: TrieSearch[float], task: Task) -> Answer:
    """Regressions: the expected value of the distribution over thousandths."""
    reference, (unread, read) = search.reference, search.masses()
    thousandths = np.array([round(found.answer * 1000) for found in search.found], dtype=np.int64)
    mass_N = np.asarray(np.bincount(thousandths, weights=read, minlength=1001), dtype=np.float64)
    for item, mass in zip(search.open, unread, strict=True):
        low, high = round(item.node.low * 1000), round(item.node.high * 1000)
        mass_N[low : high + 1] += mass / (high + 1 - low)
    return decimal_outcome(task, mass_N, mode_unit=search.greedy.answer if search.greedy else None, reference=reference)


def decimal_outcome(task: Task, mass_N: Floats, *, mode_unit: float | None, reference: float) -> Answer:
    """The answer of a regression from the mass of each thousandth of 0..1, relative as for `closed_outcome`."""
    total = float(mass_N.sum())
    mass_N = mass_N / total
    numbers_N = np.arange(1001) / 1000
    unit = float(mass_N @ numbers_N)
    std = math.sqrt(float(mass_N @ (numbers_N - unit) ** 2))
    assert task.low is not None and task.high is not None
    tenths = {f"0.{i}": float(mass_N[i * 100 : i * 100 + 100].sum()) for i in range(10)}
    return Answer(
        value=from_unit(task, unit),
        unit=unit,
        mode=None if mode_unit is None else from_unit(task, mode_unit),
        std=std * (task.high - task.low),
        confidence=float(mass_N[np.abs(numbers_N - unit) <= _NEAR].sum()),
        probabilities={**tenths, "1": float(mass_N[1000])},
        valid_mass=_valid_mass(total, reference),
    )


def label_set_answer(search: TrieSearch[tuple[str, ...]], task: Task) -> Answer:
    """Label sets: the most likely set found, and each label's marginal probability.

    An unread prefix counts only towards the labels that it names, not towards later ones.
    """
    reference = search.reference
    best = max(search.found, key=lambda found: found.log_p)
    total = 0.0
    labels = dict.fromkeys(task.labels, 0.0)
    for named, log_p in (
        *((found.answer, found.log_p) for found in search.found),
        *((item.node.common or (), item.log_p) for item in search.open),
    ):
        mass = math.exp(log_p - reference)
        total += mass
        for label in named:
            labels[label] += mass
    return Answer(
        value=best.answer,
        mode=search.greedy.answer if search.greedy else None,
        confidence=math.exp(best.log_p - reference) / total,
        probabilities={label: mass / total for label, mass in labels.items()},
        valid_mass=_valid_mass(total, reference),
    )


def _valid_mass(total: float, reference: float) -> float:
    return min(1.0, total * math.exp(reference))
