"""Systems with what they scored, and how metrics.json tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from emollm.core.tasks import TASKS, Task
from emollm.evaluation.fragility import Fragility
from emollm.evaluation.options import EvaluateConfig
from emollm.evaluation.systems import System
from emollm.metrics.conformal import SetCoverage, measured_coverage
from emollm.metrics.raters import RaterFigures, measure_raters
from emollm.metrics.reliability import Reliability
from emollm.metrics.reliability import measure as measure_reliability
from emollm.metrics.scores import Bootstrap, TaskResult, score_task, split_tasks


@dataclass(frozen=True, slots=True)
class Measured:
    """A system and what it scored."""

    system: System
    results: list[TaskResult]
    reliability: dict[str, Reliability] = field(default_factory=dict)
    """By task, where the system gives probabilities."""
    raters: list[RaterFigures] = field(default_factory=list)
    """Of each question whose rows have several raters."""
    sets: list[SetCoverage] = field(default_factory=list)
    """By task, what the 90% sets of the model's card hold on these rows."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that a run measured: the model or the given predictions first, then the baselines."""

    measured: list[Measured]
    rows_from: dict[str, str]
    """Where the rows of each task came from, in words."""
    fragility: Fragility | None = None
    """How far wordings and small changes move the model's answers, where that was asked for."""

    @property
    def main(self) -> list[TaskResult]:
        """The results of the first system."""
        return self.measured[0].results

    @property
    def tasks(self) -> list[Task]:
        """Those that any system answered, in the order of the project."""
        found = {p.question.task.name: p.question.task for m in self.measured for p in m.system.predictions}
        order = [*TASKS, *found]
        return sorted(found.values(), key=lambda task: order.index(task.name))


def measure(system: System, config: EvaluateConfig) -> Measured:
    """All metrics of a system's predictions."""
    bootstrap = Bootstrap(config.resamples, config.seed) if config.resamples else None
    results, reliability = [], {}
    by_task = split_tasks(system.predictions)
    order = [*TASKS, *by_task]
    for name in sorted(by_task, key=order.index):
        results.append(score_task(by_task[name], invalid=config.invalid, bootstrap=bootstrap))
        found = measure_reliability(by_task[name], right_share=config.right_share)
        if found is not None:
            reliability[name] = found
    sets = measured_coverage(system.predictions, system.sets, 0.9) if system.sets else []
    return Measured(system, results, reliability, measure_raters(system.predictions), sets)


def metrics_json(config: EvaluateConfig, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "invalid": config.invalid,
        "resamples": config.resamples,
        "seed": config.seed,
        "rows_from": evaluation.rows_from,
        "systems": [
            {
                "name": m.system.name,
                "role": m.system.role,
                "facts": m.system.facts,
                "results": [result.as_json() for result in m.results],
                "reliability": {name: found.as_json() for name, found in m.reliability.items()},
                "raters": [found.as_json() for found in m.raters],
                "sets": [found.as_json() for found in m.sets],
            }
            for m in evaluation.measured
        ],
        "fragility": evaluation.fragility.as_json() if evaluation.fragility else None,
        "tasks": [task.model_dump(mode="json") for task in evaluation.tasks],
    }
