"""Predictions to metrics: which metrics a task gets, how an invalid answer counts, and confidence intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from emollm.core.tasks import Kind, Task, Value
from emollm.metrics import metrics
from emollm.metrics.bootstrap import Group, Interval, estimate, interval, resample
from emollm.metrics.metrics import Resampled
from emollm.metrics.predictions import Prediction

Invalid = Literal["clip", "drop", "worst"]
POLICIES: tuple[Invalid, ...] = get_args(Invalid)

UNREAD = "<unread>"
"""A label outside every list: a set with it has no label in common with any gold, and is not empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """The scores of a system on one task."""

    task: str
    rows: int
    """Rows asked."""
    valid: float
    """Share of answers that are values of the task, 0..1."""
    scores: dict[str, float]
    """By metric name; NaN if undefined. The task's headline metric comes first."""
    intervals: dict[str, Interval | None] = field(default_factory=dict)
    """The 95% bootstrap interval of each score; None if it has none, empty if none was requested."""
    by_emotion: dict[str, float] = field(default_factory=dict)
    """The headline metric for each emotion of the task."""
    by_policy: dict[str, float] = field(default_factory=dict)
    """The headline metric under each policy for invalid answers, if there are any."""
    errors: dict[str, int] = field(default_factory=dict)
    """Invalid answers by reason."""
    undefined: str | None = None
    """Why the headline metric has no value."""

    @property
    def headline(self) -> tuple[str, float]:
        return next(iter(self.scores.items()))

    def as_json(self) -> dict[str, Any]:
        """For JSON, which has no NaN: an undefined score is null."""

        def clean(scores: Mapping[str, float]) -> dict[str, float | None]:
            return {name: None if math.isnan(value) else value for name, value in scores.items()}

        return {**asdict(self), **{name: clean(getattr(self, name)) for name in ("scores", "by_emotion", "by_policy")}}


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are drawn."""

    resamples: int = 1000
    seed: int = 0


def score_results(
    predictions: Sequence[Prediction], *, invalid: Invalid = "clip", bootstrap: Bootstrap | None = None
) -> list[TaskResult]:
    """Metrics per task, in the order in which tasks first occur, with intervals if `bootstrap` is given.

    `resolve_invalid` defines how an invalid answer counts.
    """
    return [score_task(mine, invalid=invalid, bootstrap=bootstrap) for mine in split_tasks(predictions).values()]


def split_tasks(predictions: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    tasks: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        tasks.setdefault(prediction.question.task.name, []).append(prediction)
    return tasks


def score_task(
    predictions: Sequence[Prediction], *, invalid: Invalid = "clip", bootstrap: Bootstrap | None = None
) -> TaskResult:
    """The metrics of one task's predictions."""
    task = predictions[0].question.task
    groups = task_groups(task, predictions, invalid)
    scores = estimate(list(groups.values()))
    headline = next(iter(scores))
    errors = Counter((p.error or "no answer").partition(":")[0] for p in predictions if p.value is None)
    drawn = resample(list(groups.values()), resamples=bootstrap.resamples, seed=bootstrap.seed) if bootstrap else {}
    return TaskResult(
        task=task.name,
        rows=len(predictions),
        valid=1 - errors.total() / len(predictions),
        scores=scores,
        intervals={name: None if math.isnan(scores[name]) else interval(drawn[name]) for name in drawn},
        by_emotion={e: estimate([group])[headline] for e, group in groups.items()} if task.emotions else {},
        by_policy={
            policy: estimate(list(task_groups(task, predictions, policy).values()))[headline] for policy in POLICIES
        }
        if errors
        else {},
        errors=dict(errors),
        undefined=_why_undefined(task, predictions, invalid) if math.isnan(scores[headline]) else None,
    )


def resolve_invalid(prediction: Prediction, invalid: Invalid) -> Value | None:
    """The value that an answer counts as; None if an invalid one is left out, or has no label that could be wrong.

    clip: a number out of range is the nearest in range, a number between classes the nearest class; anything else
    invalid counts as wrong. worst: every invalid answer is wrong. A wrong number is the one farthest from the gold.
    """
    task, gold = prediction.question.task, prediction.question.gold
    if prediction.value is not None or invalid == "drop":
        return prediction.value
    match task.kind:
        case Kind.REGRESSION:
            choices: Sequence[float] = (task.low or 0.0, task.high or 0.0)
        case Kind.ORDINAL:
            choices = task.answer_values  # type: ignore[assignment]
        case _:
            return None
    if invalid == "clip" and prediction.out_of_range_value is not None:
        out_of_range_value = prediction.out_of_range_value
        clipped = min(max(out_of_range_value, choices[0]), choices[-1])
        return clipped if task.kind is Kind.REGRESSION else min(choices, key=lambda c: abs(c - clipped))
    return max(choices, key=lambda choice: abs(choice - gold))  # type: ignore[operator]


def task_groups(task: Task, predictions: Sequence[Prediction], invalid: Invalid) -> dict[str, Group]:
    """The rows of each emotion of the task, or of "", with its metrics, the headline one first."""
    groups: dict[str, Group] = {}
    for emotion in task.emotions or ("",):
        mine = [p for p in predictions if (p.question.emotion or "") == emotion]
        if task.emotions and not mine:
            continue  # a part of a benchmark: the mean is over the emotions that it has
        if invalid == "drop":
            mine = [p for p in mine if p.value is not None]
        golds = [p.question.gold for p in mine]
        groups[emotion] = Group(
            len(mine), _METRICS[task.kind](task, golds, [resolve_invalid(p, invalid) for p in mine])
        )
    return groups


def _regression(_task: Task, gold: Sequence[Any], predicted: Sequence[Any]) -> dict[str, Resampled]:
    found = {
        "pearson": metrics.pearson_of(gold, predicted),
        "spearman": metrics.spearman_of(gold, predicted),
        "MAE": metrics.mae_of(gold, predicted),
        "CCC": metrics.ccc_of(gold, predicted),
    }
    if (_task.low, _task.high) == (0.0, 1.0):
        # SemEval-2018's second metric of its regressions.
        found["pearson (gold >= .5)"] = metrics.pearson_of(gold, predicted, among=[g >= 0.5 for g in gold])
    return found


def _ordinal(task: Task, gold: Sequence[Any], predicted: Sequence[Any]) -> dict[str, Resampled]:
    found = {
        "pearson": metrics.pearson_of(gold, predicted),
        "accuracy": metrics.accuracy_of(gold, predicted),
        "macro-F1": metrics.class_f1_of(gold, predicted, task.answer_values),
        "quadratic kappa": metrics.kappa_of(gold, predicted),
        "spearman": metrics.spearman_of(gold, predicted),
        "MAE": metrics.mae_of(gold, predicted),
    }
    return {task.metric: found.pop(task.metric), **found}


def _single_label(task: Task, gold: Sequence[Any], predicted: Sequence[Any]) -> dict[str, Resampled]:
    return {
        "accuracy": metrics.accuracy_of(gold, predicted),
        "macro-F1": metrics.class_f1_of(gold, predicted, task.labels),
    }


def _label_set(task: Task, gold: Sequence[Any], predicted: Sequence[Any]) -> dict[str, Resampled]:
    sets = [(UNREAD,) if p is None else p for p in predicted]
    return {
        "jaccard": metrics.jaccard_of(gold, sets),
        "micro-F1": metrics.micro_f1_of(gold, sets, task.labels),
        "macro-F1": metrics.macro_f1_of(gold, sets, task.labels),
        "weighted label jaccard": metrics.label_jaccard_of(gold, sets, task.labels),
    }


_METRICS: Mapping[Kind, Callable[[Task, Sequence[Any], Sequence[Any]], dict[str, Resampled]]] = {
    Kind.REGRESSION: _regression,
    Kind.ORDINAL: _ordinal,
    Kind.SINGLE_LABEL: _single_label,
    Kind.LABEL_SET: _label_set,
}


def _why_undefined(task: Task, predictions: Sequence[Prediction], invalid: Invalid) -> str:
    for emotion in task.emotions or ("",):
        mine = [p for p in predictions if (p.question.emotion or "") == emotion]
        where = f"{emotion}: " if emotion else ""
        settled = [value for p in mine if (value := resolve_invalid(p, invalid)) is not None]
        if mine and len(settled) < 2:
            return f"{where}{len(settled)} of {len(mine)} rows have an answer"
        if mine and len(set(settled)) == 1:
            return f"{where}the prediction is constant, {_short(settled[0])}"
        if mine and len({p.question.gold for p in mine}) == 1:
            return f"{where}the gold is constant, {_short(mine[0].question.gold)}"
    return "no rows"


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
