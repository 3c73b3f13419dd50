"""Predictions to conformal scores, quantiles, and coverage of the sets on rows that they were not fitted on."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emollm.core.conformal import Conformal, Floats, in_set, interval, quantile, quantiles
from emollm.core.tasks import Kind, QuestionKey
from emollm.metrics.predictions import Prediction

LEAST_ROWS = 100
"""Least rows of a question: with fewer, the coverage of a quantile is off by more than three percentage points."""
SPLITS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SetCoverage:
    """Coverage and size of the sets or intervals of a task."""

    task: str
    rows: int
    level: float
    """The nominal coverage."""
    coverage: float
    """The share of posts whose truth was in the set."""
    low: float
    """2.5% quantile of the coverage over the splits, or over bootstrap resamples."""
    high: float
    size: float
    """Mean number of classes or labels in a set; for an interval its share of the task's range."""
    out_of: int
    """Number of classes or labels of the task; 1 for a range."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Known:
    """The answers to one question that have a conformal score."""

    score: Literal["probability", "std", "distance"]
    scores_N: Floats
    rows: list[Prediction]

    def sizes(self, q: float) -> Floats:
        """[N] of the sets that the quantile gives."""
        task = self.rows[0].question.task
        if task.kind is Kind.REGRESSION:
            assert task.low is not None and task.high is not None
            value_N = np.array([p.value for p in self.rows], dtype=float)
            unit_N = _units(self.rows, self.score)
            low_N, high_N = interval(value_N, unit_N, q, low=task.low, high=task.high)
            shares_N: Floats = (high_N - low_N) / (task.high - task.low)
            return shares_N
        held = in_set(_probabilities(self.rows), q, exclusive=task.kind is not Kind.LABEL_SET)
        counts_N: Floats = held.sum(axis=1).astype(float)
        return counts_N


def known(predictions: Sequence[Prediction]) -> _Known | None:
    """The conformal scores of one question's predictions; None if the engine gives no distribution."""
    if not predictions:
        return None
    task = predictions[0].question.task
    answered = [p for p in predictions if p.value is not None]
    if task.kind is Kind.REGRESSION:
        if not answered:
            return None
        score: Literal["std", "distance"] = "std" if all(p.std for p in answered) else "distance"
        apart_N = np.array([abs(float(p.value) - float(p.question.gold)) for p in answered])  # type: ignore[arg-type]
        return _Known(score, apart_N / _units(answered, score), answered)
    full = [p for p in answered if set(p.probabilities) == set(task.answer_names)]
    if not full:
        return None
    probabilities_NK = _probabilities(full)
    scores_N = np.array([_missed(p, row) for p, row in zip(full, probabilities_NK, strict=True)])
    return _Known("probability", scores_N, full)


def fit_sets(predictions: Sequence[Prediction]) -> tuple[Conformal, ...]:
    """The quantiles of each question with `LEAST_ROWS` answers."""
    found = []
    for key, mine in by_question(predictions).items():
        scored = known(mine)
        if scored and len(scored.rows) >= LEAST_ROWS:
            found.append(
                Conformal(
                    task=key.task,
                    emotion=key.emotion,
                    score=scored.score,
                    rows=len(scored.rows),
                    quantiles=quantiles(scored.scores_N),
                )
            )
    return tuple(found)


def expected_coverage(
    predictions: Sequence[Prediction], level: float, *, splits: int = SPLITS, seed: int = 0
) -> list[SetCoverage]:
    """Per task, the coverage of sets fitted on one half of the texts on the other half, over random halves.

    A question with fewer than `LEAST_ROWS` answers in all is left out, as it gets no sets.
    """
    tasks: dict[str, list[_Known]] = {}
    for key, mine in by_question(predictions).items():
        scored = known(mine)
        if scored and len(scored.rows) >= LEAST_ROWS:
            tasks.setdefault(key.task, []).append(scored)
    return [_over_halves(name, questions, level, splits, seed) for name, questions in tasks.items()]


def measured_coverage(
    predictions: Sequence[Prediction], sets: Sequence[Conformal], level: float, *, resamples: int = 1000, seed: int = 0
) -> list[SetCoverage]:
    """Per task, the coverage of a card's sets on these rows; the interval is from a bootstrap over rows."""
    quantile_of = {one.key: one.quantiles.get(f"{level:g}") for one in sets}
    tasks: dict[str, list[tuple[_Known, float]]] = {}
    for key, mine in by_question(predictions).items():
        scored, q = known(mine), quantile_of.get(key)
        if scored and q is not None:
            tasks.setdefault(key.task, []).append((scored, q))
    found = []
    for name, questions in tasks.items():
        held_N = np.concatenate([scored.scores_N <= q + 1e-9 for scored, q in questions]).astype(float)
        sizes_N = np.concatenate([scored.sizes(q) for scored, q in questions])
        rng = np.random.default_rng(seed)
        drawn_R = rng.binomial(len(held_N), held_N.mean(), resamples) / len(held_N)
        found.append(_coverage(name, questions[0][0], level, len(held_N), held_N.mean(), drawn_R, sizes_N.mean()))
    return found


def by_question(predictions: Sequence[Prediction]) -> Mapping[QuestionKey, list[Prediction]]:
    groups: dict[QuestionKey, list[Prediction]] = {}
    for prediction in predictions:
        groups.setdefault(prediction.question.key, []).append(prediction)
    return groups


def _over_halves(name: str, questions: Sequence[_Known], level: float, splits: int, seed: int) -> SetCoverage:
    shares, sizes = [], []
    for split in range(splits):
        held, size = [], []
        for scored in questions:
            first_N = np.array([_half(p, f"{seed}.{split}") == 0 for p in scored.rows])
            q = quantile(scored.scores_N[first_N], level)
            if q is None or first_N.all():
                continue
            held.append(scored.scores_N[~first_N] <= q)
            size.append(scored.sizes(q)[~first_N])
        shares.append(float(np.concatenate(held).mean()))
        sizes.append(float(np.concatenate(size).mean()))
    rows = sum(len(scored.rows) for scored in questions)
    return _coverage(name, questions[0], level, rows, float(np.mean(shares)), np.array(shares), float(np.mean(sizes)))


def _coverage(
    name: str, scored: _Known, level: float, rows: int, share: float, shares_R: Floats, size: float
) -> SetCoverage:
    low, high = np.quantile(shares_R, [0.025, 0.975])
    task = scored.rows[0].question.task
    return SetCoverage(
        task=name, rows=rows, level=level, coverage=float(share), low=float(low), high=float(high), size=float(size),
        out_of=len(task.answer_values) or 1,
    )  # fmt: skip


def _half(prediction: Prediction, salt: str) -> int:
    """0 or 1, by the text, so that no text is on both sides."""
    return zlib.crc32(f"{salt} {prediction.question.text}".encode()) >> 7 & 1


def _units(predictions: Sequence[Prediction], score: str) -> Floats:
    """[N] what a number's distance is divided by."""
    if score == "std":
        return np.array([p.std for p in predictions], dtype=float)
    return np.ones(len(predictions))


def _probabilities(predictions: Sequence[Prediction]) -> Floats:
    names = predictions[0].question.task.answer_names
    return np.array([[p.probabilities[name] for name in names] for p in predictions], dtype=float)


def _missed(prediction: Prediction, probability_K: NDArray[np.float64]) -> float:
    """The score that a set must reach to contain the truth; 0 if there is nothing to contain."""
    task, gold = prediction.question.task, prediction.question.gold
    if task.kind is Kind.LABEL_SET:
        held = [p for label, p in zip(task.labels, probability_K, strict=True) if label in gold]  # type: ignore[operator]
        return 1.0 - min(held) if held else 0.0
    at = task.answer_values.index(gold)
    # The most likely class is always included.
    return 0.0 if at == int(probability_K.argmax()) else 1.0 - float(probability_K[at])
