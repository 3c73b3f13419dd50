"""Several annotators of one corpus: how far they agree, and one answer of all theirs.

Numbers are averaged, classes too (to the nearest one), a single label is the one with most weight behind it, and a set
holds a label by vote, by union or by intersection. Weights are equal, or come from posts whose truth is known: an
annotator counts by one over its mean squared distance from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from emollm.core.errors import DataError
from emollm.core.prompts import Question, column_name
from emollm.core.tasks import Kind, Task, Value
from emollm.data.raters import alpha, distance
from emollm.metrics.agreement import MEASURES, agreement
from emollm.review.annotated import Annotated

SetRule = Literal["vote", "union", "intersection"]
_LEAST_SQUARED = 1e-4
"""Of a distance from the truth: an annotator that is always right does not outweigh all others beyond measure."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """The agreement of the annotators of one question."""

    column: str
    measure: str
    """The pairwise measure of the question's kind."""
    pairs: dict[tuple[str, str], tuple[float, int]]
    """Of each two annotators: the measure, NaN where undefined, and the posts that both answered."""
    alpha: float
    weights: dict[str, float]
    """Of each annotator, summing to 1."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """The answers of several annotators side by side."""

    names: list[str]
    ids: list[str]
    texts: list[str]
    questions: list[Question]
    ratings: dict[str, list[list[Value | None]]]
    """By column: of each post, each annotator's answer; None where it has none."""


def align(annotators: Sequence[Annotated]) -> Aligned:
    """All posts that any annotator has, in the order of their first. Raises DataError where no post is shared."""
    names = [a.name for a in annotators]
    if len(set(names)) < len(names):
        names = [f"{a.name} ({n})" for n, a in enumerate(annotators, 1)]
    places: dict[str, int] = {}
    texts: list[str] = []
    for annotator in annotators:
        for one, text in zip(annotator.ids, annotator.texts, strict=True):
            if one not in places:
                places[one] = len(places)
                texts.append(text)
    if len(places) == sum(len(a.ids) for a in annotators) and len(annotators) > 1:
        raise DataError(f"{', '.join(names)} have no post in common; posts are told apart by their id")
    questions = {column_name(q): q for a in annotators for q in a.questions}
    ratings: dict[str, list[list[Value | None]]] = {
        name: [[None] * len(annotators) for _ in places] for name in questions
    }
    for k, annotator in enumerate(annotators):
        for name, values in annotator.values.items():
            for one, value in zip(annotator.ids, values, strict=True):
                ratings[name][places[one]][k] = value
    return Aligned(names, list(places), texts, list(questions.values()), ratings)


def compare(aligned: Aligned, gold: Annotated | None = None) -> list[Agreed]:
    """The agreement on each question, and the weights that `gold`, posts whose truth is known, gives."""
    return [_agreed(aligned, question, gold) for question in aligned.questions]


def combine(aligned: Aligned, agreed: Sequence[Agreed], *, sets: SetRule = "vote") -> pa.Table:
    """`id`, `text` and of each question the value of all annotators, `_std` or `_share` and `_annotators`.

    `_std` is the standard deviation of a number's or class's answers; `_share` the weight behind a label, of a set the
    mean Jaccard index with the annotators' own sets; `_annotators` counts those that answered.
    """
    columns: dict[str, Any] = {"id": aligned.ids, "text": aligned.texts}
    for question, found in zip(aligned.questions, agreed, strict=True):
        name, task = column_name(question), question.task
        weights = [found.weights.get(one, 0.0) for one in aligned.names]
        values, spreads, counts = [], [], []
        for row in aligned.ratings[name]:
            known = [(value, weight) for value, weight in zip(row, weights, strict=True) if value is not None]
            value, spread = joined(task, known, sets) if known else (None, None)
            values.append(list(value) if isinstance(value, tuple) else value)
            spreads.append(spread)
            counts.append(len(known))
        columns[name] = values
        columns[f"{name}_{'share' if task.labels else 'std'}"] = spreads
        columns[f"{name}_annotators"] = pa.array(counts, pa.int32())
    return pa.table(columns)


def joined(task: Task, known: Sequence[tuple[Value, float]], sets: SetRule) -> tuple[Value, float]:
    """One value of several with their weights, and how far they are apart or together."""
    weight_N = np.array([weight for _, weight in known])
    weight_N = weight_N / weight_N.sum() if weight_N.sum() > 0 else np.full(len(known), 1 / len(known))
    if task.kind in (Kind.REGRESSION, Kind.ORDINAL):
        number_N = np.array([float(value) for value, _ in known])  # type: ignore[arg-type]
        mean = float(weight_N @ number_N)
        spread = math.sqrt(float(weight_N @ (number_N - mean) ** 2))
        if task.kind is Kind.REGRESSION:
            return mean, spread
        return min(task.answer_values, key=lambda c: abs(float(c) - mean)), spread  # type: ignore[arg-type]
    if task.kind is Kind.SINGLE_LABEL:
        behind = {label: float(sum(w for (v, _), w in zip(known, weight_N, strict=True) if v == label))
                  for label in task.labels}  # fmt: skip
        best = max(behind, key=lambda label: behind[label])
        return best, behind[best]
    given = tuple(label for label in task.labels if _held(label, known, weight_N, sets))
    return given, float(sum(w * (1 - distance(task, v, given)) for (v, _), w in zip(known, weight_N, strict=True)))


def _held(label: str, known: Sequence[tuple[Any, float]], weight_N: Any, sets: SetRule) -> bool:
    behind = float(sum(w for (value, _), w in zip(known, weight_N, strict=True) if label in value))
    match sets:
        case "union":
            return behind > 0
        case "intersection":
            return behind > 1 - 1e-9
        case _:
            return behind > 0.5


def _agreed(aligned: Aligned, question: Question, gold: Annotated | None) -> Agreed:
    name, task = column_name(question), question.task
    ratings, pairs = aligned.ratings[name], {}
    measure = MEASURES[task.kind]
    for i, first in enumerate(aligned.names):
        for j in range(i + 1, len(aligned.names)):
            both = [(row[i], row[j]) for row in ratings if row[i] is not None and row[j] is not None]
            if both:
                a, b = zip(*both, strict=True)
                pairs[first, aligned.names[j]] = agreement(task, a, b), len(both)
    return Agreed(name, measure, pairs, alpha(task, ratings), _weights(aligned, task, name, gold))


def _weights(aligned: Aligned, task: Task, name: str, gold: Annotated | None) -> dict[str, float]:
    answered = [k for k in range(len(aligned.names)) if any(row[k] is not None for row in aligned.ratings[name])]
    equal = {aligned.names[k]: 1 / len(answered) for k in answered}
    if gold is None or name not in gold.values:
        return equal
    truths: Mapping[str, Value | None] = dict(zip(gold.ids, gold.values[name], strict=True))
    weights: dict[str, float] = {}
    for k in answered:
        apart = list(_apart(aligned, task, name, k, truths))
        if not apart:
            raise DataError(f"{aligned.names[k]} answered {name} on no post of {gold.name}, so it gets no weight")
        weights[aligned.names[k]] = 1 / max(float(np.mean(np.square(apart))), _LEAST_SQUARED)
    total = sum(weights.values())
    return {one: weight / total for one, weight in weights.items()}


def _apart(aligned: Aligned, task: Task, name: str, k: int, truths: Mapping[str, Value | None]) -> Iterable[float]:
    for one, row in zip(aligned.ids, aligned.ratings[name], strict=True):
        truth, value = truths.get(one), row[k]
        if truth is not None and value is not None:
            yield distance(task, value, truth)
