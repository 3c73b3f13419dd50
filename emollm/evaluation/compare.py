"""Is run B better than run A? A paired bootstrap over the rows that both answered: what `emollm compare` runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emollm.core.errors import ConfigError, DataError
from emollm.evaluation.options import CompareConfig
from emollm.evaluation.systems import System, read_run
from emollm.metrics.bootstrap import Group, Interval, estimate, interval, resample, sign_p_value
from emollm.metrics.metrics import Floats
from emollm.metrics.multiplicity import holm
from emollm.metrics.predictions import Prediction
from emollm.metrics.questions import distinct
from emollm.metrics.scores import Invalid, split_tasks, task_groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """B against A on one task, by its headline metric."""

    task: str
    metric: str
    rows: int
    """Rows that both answered."""
    a: float
    b: float
    difference: float
    """b - a; NaN where either is undefined."""
    interval: Interval | None
    p_value: float
    corrected: float
    """The p-value, Holm-corrected for the number of tasks."""
    alpha: float

    @property
    def verdict(self) -> str:
        if math.isnan(self.difference):
            return "undefined"
        if self.corrected < self.alpha:
            return "B is better" if self.difference > 0 else "A is better"
        return "no difference shown"


@dataclass(frozen=True, slots=True)
class Comparison:
    a: str
    b: str
    tasks: list[Difference]
    left_out: list[str]
    """Tasks that only one of them has."""
    unequal_rows: int
    """Rows that only one of them has, in the tasks of both."""

    @property
    def verdict(self) -> str:
        """One sentence on all tasks."""
        better = [d.task for d in self.tasks if d.verdict == "B is better"]
        worse = [d.task for d in self.tasks if d.verdict == "A is better"]
        if better and not worse:
            return f"B is better: on {', '.join(better)}, and worse on none of {len(self.tasks)}."
        if worse and not better:
            return f"B is worse: on {', '.join(worse)}, and better on none of {len(self.tasks)}."
        if better:
            return f"Mixed: B is better on {', '.join(better)}, and worse on {', '.join(worse)}."
        return f"No difference shown on any of {len(self.tasks)} tasks: more rows would be needed to tell them apart."


def compare_runs(config: CompareConfig) -> Comparison:
    """Compare a system of each run.

    Raises DataError if a folder is not a run, if golds of the same row differ, or if the runs share no row.
    """
    a, b = _system(config.run_a, config.system_a), _system(config.run_b, config.system_b)
    by_task = split_tasks(a.predictions), split_tasks(b.predictions)
    shared = [task for task in by_task[0] if task in by_task[1]]
    pairs = {task: _pairs(by_task[0][task], by_task[1][task]) for task in shared}
    pairs = {task: found for task, found in pairs.items() if found}
    if not pairs:
        raise DataError(f"{config.run_a} and {config.run_b} share no row: were they run on the same --data or --aeb?")
    found = [_difference(config, mine) for mine in pairs.values()]
    corrected = holm([difference.p_value for difference in found])
    rows = sum(len(by_task[side][task]) - len(pairs.get(task, ())) for side in (0, 1) for task in shared)
    return Comparison(
        f"{a.name} ({config.run_a})",
        f"{b.name} ({config.run_b})",
        [replace(difference, corrected=p) for difference, p in zip(found, corrected, strict=True)],
        sorted(set(by_task[0]) ^ set(by_task[1])),
        rows,
    )


def _system(folder: Path, name: str | None) -> System:
    systems = read_run(folder).systems
    if name is None:
        return systems[0]
    for system in systems:
        if system.name == name:
            return system
    raise ConfigError(f"{folder} has no system {name!r}; choose from: {', '.join(s.name for s in systems)}")


def _pairs(a: Sequence[Prediction], b: Sequence[Prediction]) -> list[tuple[Prediction, Prediction]]:
    distinct(p.question for p in (*a, *b))  # raises where the runs mean different rows by one id
    of_a = {p.question.row: p for p in a}
    return [(of_a[p.question.row], p) for p in b if p.question.row in of_a]


def _difference(config: CompareConfig, pairs: Sequence[tuple[Prediction, Prediction]]) -> Difference:
    task = pairs[0][0].question.task
    if config.invalid == "drop":
        pairs = [(a, b) for a, b in pairs if a.value is not None and b.value is not None]
    values, drawn = [], []
    for side in (0, 1):
        value, draws = _headline(config, [pair[side] for pair in pairs], config.invalid)
        values.append(value)
        drawn.append(draws)
    differences = drawn[1] - drawn[0]
    return Difference(
        task=task.name,
        metric=task.metric,
        rows=len(pairs),
        a=values[0],
        b=values[1],
        difference=values[1] - values[0],
        interval=interval(differences),
        p_value=sign_p_value(differences),
        corrected=math.nan,
        alpha=config.alpha,
    )


def _headline(config: CompareConfig, predictions: Sequence[Prediction], invalid: Invalid) -> tuple[float, Floats]:
    """The task's metric, and in each resample; the draws are the same for both sides, for they have the same rows."""
    if not predictions:
        return math.nan, np.full(config.resamples, math.nan)
    task = predictions[0].question.task
    groups = [
        Group(group.rows, {task.metric: group.metrics[task.metric]})
        for group in task_groups(task, predictions, invalid).values()
    ]
    drawn = resample(groups, resamples=config.resamples, seed=config.seed)
    return estimate(groups)[task.metric], drawn[task.metric]
