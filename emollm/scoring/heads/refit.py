"""Heads fitted again on a backbone that was trained together with heads: of both, and of a derivation, the best.

Such a backbone has seen the labels of the texts it was trained on, so that scores which only the ridge regression is
held out from look better than they are. What is calibrated and chosen here is therefore taken on a tenth of the texts that
joint training leaves out, too.

Shapes: N texts, O outputs of all heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emollm.core.heads_card import Head, HeadsCard
from emollm.core.tasks import TASKS, Kind, QuestionKey, Task
from emollm.scoring.arrays import AnswerArrays
from emollm.scoring.heads import calibrate, readout
from emollm.scoring.heads.derive import DERIVATIONS, derived_task
from emollm.scoring.heads.fit import FittedHeads, fit_heads, in_order, packed
from emollm.scoring.heads.labels import Floats, LabelledText
from emollm.scoring.heads.ridge import Features
from emollm.scoring.heads.weights import HeadWeights, answers

LEAST_TEXTS = 100
"""With fewer labelled texts in the tenth, a question keeps the new head as cross-validation calibrated it."""

Quality = dict[str, float]
"""How good each way to answer a task is on the tenth: refit, start, derived."""


@dataclass(frozen=True, slots=True)
class Start:
    """The heads that the backbone was trained with."""

    head_weights: HeadWeights
    heads: HeadsCard
    tasks: tuple[Task, ...]


def refit_heads(
    features: Features, labelled: LabelledText, held_out_N: NDArray[np.bool_], tasks: Sequence[Task], start: Start
) -> tuple[FittedHeads, dict[str, Quality]]:
    """Fit on all but the texts held out; for each task of `tasks` keep what is best on those, with its calibration.

    The start's heads of other tasks stay as they are. Also returns the figures that decided, by task.
    """
    fitted = fit_heads(features, _without(labelled, held_out_N), tasks, feature_specs=start.heads.feature_specs)
    both = HeadWeights(
        np.concatenate([fitted.head_weights.weight_OF, start.head_weights.weight_OF]),
        np.concatenate([fitted.head_weights.bias_O, start.head_weights.bias_O]),
    )
    held = np.flatnonzero(held_out_N)
    scores_NO = both.scores(np.concatenate([features[spec][held] for spec in start.heads.feature_specs], axis=1))
    judge = _Judge({task.name: task for task in (*start.tasks, *tasks)}, labelled, held, scores_NO, start.heads)
    theirs = _shifted(start, by=len(fitted.head_weights.bias_O))
    chosen: list[Head] = []
    found: dict[str, Quality] = {}
    for task in tasks:
        heads, found[task.name] = judge.better_of(task, _of(fitted.heads, task), _of_same(theirs, task, start))
        chosen += heads
    for task in tasks:
        chosen = judge.or_derived(task, chosen, found[task.name])
    names = {task.name for task in tasks}
    kept = [head for head in theirs if head.task not in names]
    everyone = [*tasks, *(task for task in start.tasks if task.name not in names)]
    rows_OF = [np.append(row, bias) for row, bias in zip(both.weight_OF, both.bias_O, strict=True)]
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

    def better_of(self, task: Task, new: list[Head], old: list[Head]) -> tuple[list[Head], Quality]:
        if not self._can_judge(task, new):
            return new, {}
        new, old = ([self._calibrated(task, head) for head in heads] for heads in (new, old))
        quality = {"refit": self._quality(task, new, new)}
        if {head.key for head in old} < {head.key for head in new} or not old:
            return new, quality
        quality["start"] = self._quality(task, old, old)
        return (old if quality["start"] > quality["refit"] else new), quality

    def or_derived(self, task: Task, chosen: list[Head], quality: Quality) -> list[Head]:
        """The heads chosen, those of this task replaced by its derivation where that is better."""
        own, others = _of(chosen, task), [head for head in chosen if head.task != task.name]
        if task.name not in DERIVATIONS or task != TASKS[task.name] or not quality:
            return chosen
        derived = derived_task(task.name, others)
        if not derived:
            return chosen
        quality["derived"] = self._quality(task, derived, [*others, *derived])
        return [*others, *derived] if quality["derived"] > max(q for w, q in quality.items() if w != "derived") else chosen

    def _can_judge(self, task: Task, heads: Sequence[Head]) -> bool:
        return all(len(self._known(head.key)) >= LEAST_TEXTS for head in heads) and bool(heads)

    def _known(self, key: QuestionKey) -> NDArray[np.intp]:
        return np.flatnonzero(~np.isnan(self.labelled.golds[key][self.held]).any(axis=1))

    def _on_known(self, key: QuestionKey) -> tuple[Floats, Floats]:
        known = self._known(key)
        return self.scores_NO[known], self.labelled.golds[key][self.held][known]

    def _calibrated(self, task: Task, head: Head) -> Head:
        scores_NO, golds_NK = self._on_known(head.key)
        mine = scores_NO[:, list(head.outputs)]
        head = calibrate.calibrated(task, head, mine, golds_NK)
        return head.model_copy(update={"metrics": calibrate.held_out_metrics(task, head, mine, golds_NK)})

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
        return calibrate.soft_jaccard(found.value, golds_NK) + calibrate.macro_f1(found.value, golds_NK)
    if task.kind is Kind.REGRESSION:
        return calibrate.correlation(found.unit_N, golds_NK[:, 0])
    if task.metric == "pearson":
        value_K = readout.class_values(task)
        return calibrate.correlation(value_K[found.value], golds_NK @ value_K)
    return float((found.value == golds_NK.argmax(axis=1)).mean())


def _without(labelled: LabelledText, held_out_N: NDArray[np.bool_]) -> LabelledText:
    """The same texts, with gaps for all golds of those held out."""
    golds = {key: np.where(held_out_N[:, None], np.nan, gold_NK) for key, gold_NK in labelled.golds.items()}
    return replace(labelled, golds={key: gold for key, gold in golds.items() if not np.isnan(gold).all()})


def _shifted(start: Start, *, by: int) -> list[Head]:
    """The start's heads, their outputs behind those of the new ones."""
    return [head.model_copy(update={"outputs": tuple(o + by for o in head.outputs)}) for head in start.heads.heads]


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
