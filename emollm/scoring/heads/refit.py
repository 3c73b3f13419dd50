"""Heads fitted again on a backbone that was trained together with heads, and what is best of them and those.

Such a backbone has seen the labels of its training texts, so that scores which only the ridge regression is held out
from look better than they are. What is calibrated and chosen here is therefore taken on a tenth of the texts that joint
training leaves out, too.

Shapes: N texts, O outputs of all heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emollm.core.heads_card import Head, HeadsCard
from emollm.core.tasks import TASKS, Kind, QuestionKey, Task
from emollm.scoring.arrays import AnswerArrays
from emollm.scoring.heads import head_calibration, readout
from emollm.scoring.heads.derive import DERIVATIONS, derived_task
from emollm.scoring.heads.fit import FittedHeads, fit_heads, in_order, packed
from emollm.scoring.heads.labels import Floats, LabelledText
from emollm.scoring.heads.ridge import Features
from emollm.scoring.heads.weights import HeadWeights, answers

LEAST_TEXTS = 100
"""With fewer labelled texts in the tenth, a question keeps the new head as cross-validation calibrated it."""

CLEARLY = 0.005
"""The mean of two fits is the safer choice: one of them takes its place only if it is so much better on the tenth."""

Quality = dict[str, float]
"""How good each way to answer a task is on the tenth: mean, refit, start, derived."""


@dataclass(frozen=True, slots=True)
class Start:
    """The heads that the backbone was trained with."""

    head_weights: HeadWeights
    heads: HeadsCard
    tasks: tuple[Task, ...]


def refit_heads(
    features: Features,
    labelled: LabelledText,
    held_out_N: NDArray[np.bool_],
    tasks: Sequence[Task],
    start: Start,
    *,
    device: str | None = None,
    num_threads: int = 1,
) -> tuple[FittedHeads, dict[str, Quality]]:
    """Fit on all but the texts held out; for each task of `tasks` keep what is best on those, with its calibration.

    The start's heads of other tasks stay as they are. Also returns the figures that decided, by task. `device` and
    `num_threads` are as for `fit_heads`.
    """
    fitted = fit_heads(
        features,
        _without(labelled, held_out_N, {task.name for task in tasks}),
        tasks,
        feature_specs=start.heads.feature_specs,
        device=device,
        num_threads=num_threads,
    )
    theirs = _shifted(start, by=len(fitted.head_weights.bias_O))
    rows_OF = [*_rows(fitted.head_weights), *_rows(start.head_weights)]
    ways = [_ways(task, fitted.heads, theirs, start, rows_OF) for task in tasks]
    held = np.flatnonzero(held_out_N)
    x_NF = np.concatenate([features[spec][held] for spec in start.heads.feature_specs], axis=1)
    rows = np.array(rows_OF, dtype=np.float32)
    scores_NO = HeadWeights(rows[:, :-1], rows[:, -1]).scores(x_NF)
    judge = _Judge({task.name: task for task in (*start.tasks, *tasks)}, labelled, held, scores_NO, start.heads)
    chosen: list[Head] = []
    found: dict[str, Quality] = {}
    for task, mine in zip(tasks, ways, strict=True):
        heads, found[task.name] = judge.best_of(task, mine)
        chosen += heads
    for task in tasks:
        chosen = judge.or_derived(task, chosen, found[task.name])
    names = {task.name for task in tasks}
    kept = [head for head in theirs if head.task not in names]
    everyone = [*tasks, *(task for task in start.tasks if task.name not in names)]
    head_weights, heads = packed(rows_OF, [*chosen, *kept])
    return replace(fitted, head_weights=head_weights, heads=tuple(in_order(heads, everyone))), found


@dataclass(frozen=True, slots=True)
class _Judge:
    """Calibrates heads and tells how good they are, on the texts held out."""

    tasks: Mapping[str, Task]
    labelled: LabelledText
    held: NDArray[np.intp]
    scores_NO: Floats
    card: HeadsCard

    def best_of(self, task: Task, ways: Mapping[str, list[Head]]) -> tuple[list[Head], Quality]:
        """The heads of the best way with their calibration, and how good each way is."""
        if not self._can_judge(ways["refit"]):
            return ways["refit"], {}
        ways = {way: [self._calibrated(task, head) for head in heads] for way, heads in ways.items()}
        quality = {way: self._quality(task, heads, heads) for way, heads in ways.items()}
        best = max(quality, key=lambda way: quality[way])
        usual = next(iter(ways))
        return ways[best if quality[best] > quality[usual] + CLEARLY else usual], quality

    def or_derived(self, task: Task, chosen: list[Head], quality: Quality) -> list[Head]:
        """The heads chosen, those of this task replaced by its derivation where that is better."""
        others = [head for head in chosen if head.task != task.name]
        if task.name not in DERIVATIONS or task != TASKS[task.name] or not quality:
            return chosen
        derived = derived_task(task.name, others)
        if not derived:
            return chosen
        best = max(quality.values())
        quality["derived"] = self._quality(task, derived, [*others, *derived])
        return [*others, *derived] if quality["derived"] > best else chosen

    def _can_judge(self, heads: Sequence[Head]) -> bool:
        return all(len(self._known(head.key)) >= LEAST_TEXTS for head in heads) and bool(heads)

    def _known(self, key: QuestionKey) -> NDArray[np.intp]:
        """Places among the texts held out."""
        return np.searchsorted(self.held, self.labelled.gold_first(key, self.held, at_least=LEAST_TEXTS))

    def _on_known(self, key: QuestionKey) -> tuple[Floats, Floats]:
        known = self._known(key)
        return self.scores_NO[known], self.labelled.golds[key][self.held][known]

    def _calibrated(self, task: Task, head: Head) -> Head:
        scores_NO, golds_NK = self._on_known(head.key)
        mine = scores_NO[:, list(head.outputs)]
        head = head_calibration.calibrated(task, head, mine, golds_NK)
        return head.model_copy(update={"metrics": head_calibration.held_out_metrics(task, head, mine, golds_NK)})

    def _quality(self, task: Task, heads: Sequence[Head], among: Sequence[Head]) -> float:
        """The mean over emotions."""
        card = self.card.model_copy(update={"heads": tuple(among)})
        each = []
        for head in heads:
            scores_NO, golds_NK = self._on_known(head.key)
            each.append(_agreement(task, answers(head, card, dict(self.tasks), scores_NO), golds_NK))
        return float(np.mean(each))


def _agreement(task: Task, found: AnswerArrays, golds_NK: Floats) -> float:
    """Correlation or accuracy; of label sets the Jaccard index plus macro-F1, by which their decision is chosen."""
    if task.kind is Kind.LABEL_SET:
        return head_calibration.soft_jaccard(found.value, golds_NK) + head_calibration.macro_f1(found.value, golds_NK)
    if task.kind is Kind.REGRESSION:
        return head_calibration.correlation(found.unit_N, golds_NK[:, 0])
    if task.metric == "pearson":
        value_K = readout.class_values(task)
        return head_calibration.correlation(value_K[found.value], golds_NK @ value_K)
    return float((found.value == golds_NK.argmax(axis=1)).mean())


def _without(labelled: LabelledText, held_out_N: NDArray[np.bool_], names: Set[str]) -> LabelledText:
    """The same texts and these tasks, with gaps for all golds of the texts held out."""
    golds = {
        key: np.where(held_out_N[:, None], np.nan, gold_NK)
        for key, gold_NK in labelled.golds.items()
        if key.task in names
    }
    return replace(labelled, golds={key: gold for key, gold in golds.items() if not np.isnan(gold).all()})


def _shifted(start: Start, *, by: int) -> list[Head]:
    """The start's heads, their outputs behind those of the new ones."""
    return [head.model_copy(update={"outputs": tuple(o + by for o in head.outputs)}) for head in start.heads.heads]


def _rows(weights: HeadWeights) -> list[Floats]:
    """[F + 1] of each output, the bias behind its weights."""
    return [np.append(row, bias) for row, bias in zip(weights.weight_OF, weights.bias_O, strict=True)]


def _ways(
    task: Task, new: Sequence[Head], old: Sequence[Head], start: Start, rows_OF: list[Floats]
) -> dict[str, list[Head]]:
    """The heads of a task that may be chosen: refit, start, and the mean of both, its rows put behind `rows_OF`."""
    refit, theirs = _of(new, task), {head.key: head for head in _of_same(old, task, start)}
    if not {head.key for head in refit} <= set(theirs):
        return {"refit": refit}
    means = [_mean(head, theirs[head.key], rows_OF) for head in refit]
    return {"mean": means, "refit": refit, "start": [theirs[head.key] for head in refit]}


def _mean(one: Head, other: Head, rows_OF: list[Floats]) -> Head:
    """Scores half way between those of two heads, each by its own slope: a linear map, so it costs nothing more."""
    first = len(rows_OF)
    slopes = zip(one.slope, other.slope, strict=True)
    for (mine, theirs), i, j in zip(slopes, one.outputs, other.outputs, strict=True):
        rows_OF.append((mine * rows_OF[i] + theirs * rows_OF[j]) / 2)
    return one.model_copy(update={"outputs": tuple(range(first, len(rows_OF)))})


def _of(heads: Sequence[Head], task: Task) -> list[Head]:
    return [head for head in heads if head.task == task.name]


def _of_same(heads: Sequence[Head], task: Task, start: Start) -> list[Head]:
    """The start's own heads of a task, where it means the same: kind, range, classes, labels in their order."""
    same = next((t for t in start.tasks if t.name == task.name), None)
    if same is None or (same.kind, same.low, same.high, same.answer_values) != (
        task.kind, task.low, task.high, task.answer_values,
    ):  # fmt: skip
        return []
    return [head for head in _of(heads, task) if head.derivation is None]
