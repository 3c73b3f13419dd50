"""Reliability of a system's probabilities: calibration curve, ECE, Brier score, risk-coverage, interval coverage.

Shapes: N rows or events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from emollm.core.tasks import Kind
from emollm.data.raters import distance
from emollm.metrics.metrics import Floats
from emollm.metrics.predictions import Prediction

BINS = 10
LEVELS = (0.5, 0.8, 0.9, 0.95)
NEAR = 0.1 + 1e-9
"""A number is right within a tenth of its range; the engines' confidence is the probability of that."""


class Bin(NamedTuple):
    """Events of similar probability."""

    probability: float
    """Their mean."""
    share: float
    """The share of them that was true, 0..1."""
    events: int


class Abstain(NamedTuple):
    """Answer only if the confidence is at least `threshold`."""

    right_share: float
    """The requested accuracy."""
    threshold: float
    coverage: float
    """Share of rows still answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """The figures of one task; confidences are those of answers, the events of a label set are single labels."""

    events: int
    ece: float
    brier: float
    bins: list[Bin]
    risk_area: float | None
    """Area under the risk-coverage curve, 0..1: mean share of wrong answers, most confident answers first."""
    risk: list[tuple[float, float]]
    """That curve: (coverage, share wrong), at twentieths."""
    abstain: Abstain | None
    """None if no threshold gives that accuracy."""
    coverage: dict[str, float]
    """Regressions: share of golds within the central interval of each level, from the standard deviation."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(predictions: Sequence[Prediction], *, right_share: float = 0.9) -> Reliability | None:
    """The figures of one task's predictions, or None if the system gives no probabilities."""
    probability_N, true_N = events(predictions)
    if not len(probability_N):
        return None
    sure_N, right_N = confidences(predictions)
    return Reliability(
        events=len(probability_N),
        ece=ece(probability_N, true_N),
        brier=brier(probability_N, true_N),
        bins=reliability_bins(probability_N, true_N),
        risk_area=float(np.mean(_risks(sure_N, right_N))) if len(sure_N) else None,
        risk=risk_coverage(sure_N, right_N) if len(sure_N) else [],
        abstain=abstain_threshold(sure_N, right_N, right_share) if len(sure_N) else None,
        coverage=interval_coverage(predictions),
    )


def confidences(predictions: Sequence[Prediction]) -> tuple[Floats, Floats]:
    """Confidence [N] of each answer that has one, and whether it is right (1 or 0) [N]."""
    known = [(p.confidence, right(p)) for p in predictions if p.confidence is not None and p.value is not None]
    return np.array([c for c, _ in known], dtype=float), np.array([r for _, r in known], dtype=float)


def events(predictions: Sequence[Prediction]) -> tuple[Floats, Floats]:
    """Probabilities [N] of events, and whether they are true: each label of a label set, else the answer itself."""
    if predictions and predictions[0].question.task.kind is Kind.LABEL_SET:
        pairs = [
            (probability, float(label in p.question.gold))  # type: ignore[operator]
            for p in predictions
            for label, probability in p.probabilities.items()
        ]
        return np.array([p for p, _ in pairs], dtype=float), np.array([t for _, t in pairs], dtype=float)
    return confidences(predictions)


def right_part(prediction: Prediction) -> float:
    """The share of an answer that is right, 0..1: for a label set the share of its labels, and an empty set is right
    or wrong; for the other kinds 1 or 0, as in `right`.
    """
    value, gold = prediction.value, prediction.question.gold
    if isinstance(value, tuple) and isinstance(gold, tuple) and value:
        return len(set(value) & set(gold)) / len(value)
    return float(right(prediction))


def right(prediction: Prediction) -> bool:
    task, value, gold = prediction.question.task, prediction.value, prediction.question.gold
    if task.kind is Kind.REGRESSION:
        return distance(task, value, gold) <= NEAR  # type: ignore[arg-type]
    if task.kind is Kind.LABEL_SET:
        return set(value) == set(gold)  # type: ignore[arg-type]
    return value == gold


def reliability_bins(probability_N: Floats, true_N: Floats, bins: int = BINS) -> list[Bin]:
    """Events in `bins` equal intervals of probability, the last one closed; empty ones are left out."""
    place_N = np.minimum((probability_N * bins).astype(int), bins - 1)
    found = [place_N == i for i in range(bins)]
    return [Bin(float(probability_N[m].mean()), float(true_N[m].mean()), int(m.sum())) for m in found if m.any()]


def ece(probability_N: Floats, true_N: Floats, bins: int = BINS) -> float:
    """Expected calibration error, 0..1: |mean probability - share true| of each bin, weighted by its events."""
    found = reliability_bins(probability_N, true_N, bins)
    return sum(b.events * abs(b.probability - b.share) for b in found) / len(probability_N)


def brier(probability_N: Floats, true_N: Floats) -> float:
    """Mean squared difference of probability and outcome, 0..1."""
    return float(np.mean((probability_N - true_N) ** 2))


def risk_coverage(sure_N: Floats, right_N: Floats, points: int = 20) -> list[tuple[float, float]]:
    """(coverage, share wrong) if only the most confident answers are kept, at `points` coverages up to 1."""
    risks = _risks(sure_N, right_N)
    kept = [max(1, round(len(risks) * i / points)) for i in range(1, points + 1)]
    return [(k / len(risks), float(risks[k - 1])) for k in kept]


def abstain_threshold(sure_N: Floats, right_N: Floats, right_share: float) -> Abstain | None:
    """The lowest confidence threshold with at least this accuracy of the kept answers; None if there is none.

    Answers with the same confidence stay together: a threshold cannot separate them.
    """
    order = np.argsort(-sure_N, kind="stable")
    share = np.cumsum(right_N[order]) / np.arange(1, len(order) + 1)
    last_of_its_kind = np.append(np.diff(sure_N[order]) != 0, True)
    enough = np.flatnonzero((share >= right_share - 1e-12) & last_of_its_kind)
    if not len(enough):
        return None
    return Abstain(right_share, float(sure_N[order][enough[-1]]), float((enough[-1] + 1) / len(order)))


RIGHT_SHARES = (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98)
"""Accuracies for which a card stores thresholds."""
LEAST_KEPT = 30
"""Least rows above a threshold: with fewer the accuracy is too uncertain."""


def abstain_thresholds(predictions: Sequence[Prediction], right_shares: Sequence[float]) -> list[Abstain]:
    """For each accuracy that some threshold reaches, the lowest such threshold; `right_part` defines what is right.

    Thresholds with fewer than `LEAST_KEPT` rows above them are left out.
    """
    known = [(p.confidence, right_part(p)) for p in predictions if p.confidence is not None and p.value is not None]
    if not known:
        return []
    sure_N, right_N = np.array(known, dtype=float).T
    found = (abstain_threshold(sure_N, right_N, share) for share in right_shares)
    return [one for one in found if one and round(one.coverage * len(known)) >= LEAST_KEPT]


def interval_coverage(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Share of golds within value ± z std, for each of `LEVELS`; empty if there is no std."""
    known = [
        (abs(float(p.value) - float(p.question.gold)), p.std)  # type: ignore[arg-type]
        for p in predictions
        if p.std is not None and p.value is not None
    ]
    if not known:
        return {}
    apart_N, std_N = np.array(known, dtype=float).T
    return {f"{level:g}": float(np.mean(apart_N <= ndtri((1 + level) / 2) * std_N + 1e-12)) for level in LEVELS}


def _risks(sure_N: Floats, right_N: Floats) -> Floats:
    """Share wrong among the k most confident answers, k = 1..N."""
    order = np.argsort(-sure_N, kind="stable")
    risks: Floats = np.cumsum(1 - right_N[order]) / np.arange(1, len(order) + 1)
    return risks
