"""Uncalibrated predictions on validation rows to a `Calibration`, and what it is worth on rows it did not see."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from emollm.core.answers import Answer, to_unit, unit_of
from emollm.core.calibration import Calibration, Curve, QuestionCalibration, temper
from emollm.core.errors import DataError
from emollm.core.tasks import Kind, QuestionKey, Task
from emollm.metrics.metrics import Floats
from emollm.metrics.predictions import Prediction
from emollm.metrics.reliability import confidences

LEAST_ROWS = 50
"""In each half of the texts. With fewer it could not be told what a question's maps are worth: it is left as it is."""
_KNOTS = 25
_Z90 = 1.6448536269514722


def fit_maps(predictions: Sequence[Prediction], *, fitted_on: Mapping[str, Any] | None = None) -> Calibration:
    """The maps of each question that has `LEAST_ROWS` answers with probabilities in each half of the texts.

    Raises DataError if none has.
    """
    questions = _fitted(predictions, _large_enough(predictions))
    if not questions:
        raise DataError(
            f"nothing to calibrate: no question has {2 * LEAST_ROWS} validation rows with answers and probabilities, "
            f"{LEAST_ROWS} in each half of the texts"
        )
    return Calibration(questions=questions, fitted_on=dict(fitted_on or {}))


def cross_fitted(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Each prediction through maps fitted on the other half of the texts: what to expect on new rows.

    Order is kept. A question with too few rows stays as it is, as in `fit_maps`.
    """
    questions = _large_enough(predictions)
    maps = [Calibration(questions=_fitted(half, questions)) for half in _halves(predictions)]
    return [mapped(p, maps[1 - _half(p)]) for p in predictions]


def _half(prediction: Prediction) -> int:
    """0 or 1, by the text, so that no text is on both sides."""
    return zlib.crc32(prediction.question.text.encode()) % 2


def _halves(predictions: Sequence[Prediction]) -> tuple[list[Prediction], list[Prediction]]:
    first, second = ([p for p in predictions if _half(p) == side] for side in (0, 1))
    return first, second


def mapped(prediction: Prediction, calibration: Calibration) -> Prediction:
    """A prediction as the calibrated engine would have given it."""
    task = prediction.question.task
    found = calibration.of(prediction.question.key)
    if found is None or prediction.value is None:
        return prediction
    answer = found.apply(task, _answer(task, prediction))
    return replace(
        prediction,
        value=answer.value,
        confidence=answer.confidence,
        std=answer.std,
        probabilities=answer.probabilities,
    )


def isotonic(probability_N: Floats, true_N: Floats) -> Curve:
    """The rising curve nearest to the outcomes, over up to 25 groups of like probability."""
    from sklearn.isotonic import IsotonicRegression

    order = np.argsort(probability_N, kind="stable")
    groups = [part for part in np.array_split(order, min(_KNOTS, len(order))) if len(part)]
    # Means of one and the same number differ in their last bit, also downwards.
    x = np.maximum.accumulate([probability_N[part].mean() for part in groups])
    y = np.array([true_N[part].mean() for part in groups])
    weights = np.array([len(part) for part in groups], dtype=float)
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(x, y, sample_weight=weights)
    # Groups of one and the same probability have one and the same y.
    knots = dict(zip(map(float, x), map(float, fitted), strict=True))
    return Curve(x=tuple(knots), y=tuple(np.maximum.accumulate(list(knots.values())).tolist()))


def temperature(probabilities_NK: Floats, gold_N: Sequence[int]) -> float:
    """The temperature with the least mean negative log-likelihood of the golds."""

    def loss(log_temperature: float) -> float:
        p_NK = temper(probabilities_NK, float(np.exp(log_temperature)))
        return float(-np.log(np.clip(p_NK[np.arange(len(gold_N)), gold_N], 1e-12, None)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def _large_enough(predictions: Sequence[Prediction]) -> set[QuestionKey]:
    first, second = (_by_question(half) for half in _halves(predictions))
    return {
        key
        for key in first
        if key in second and all(len(side[key]) >= LEAST_ROWS and _tells(side[key]) for side in (first, second))
    }


def _fitted(predictions: Sequence[Prediction], questions: set[QuestionKey]) -> tuple[QuestionCalibration, ...]:
    return tuple(_question(mine) for key, mine in _by_question(predictions).items() if key in questions)


def _by_question(predictions: Sequence[Prediction]) -> dict[QuestionKey, list[Prediction]]:
    groups: dict[QuestionKey, list[Prediction]] = {}
    for prediction in predictions:
        if prediction.value is not None:
            groups.setdefault(prediction.question.key, []).append(prediction)
    return groups


def _question(predictions: Sequence[Prediction]) -> QuestionCalibration:
    question = predictions[0].question
    about: dict[str, Any] = {"task": question.task.name, "emotion": question.emotion, "rows": len(predictions)}
    match question.task.kind:
        case Kind.REGRESSION:
            return _regression(question.task, predictions, about)
        case Kind.LABEL_SET:
            return _label_set(question.task, predictions, about)
        case _:
            return _classes(question.task, predictions, about)


def _regression(task: Task, predictions: Sequence[Prediction], about: dict[str, Any]) -> QuestionCalibration:
    assert task.low is not None and task.high is not None
    unit_N, gold_N = (
        np.array([to_unit(task, v) for v in side])  # type: ignore[arg-type]
        for side in ([p.value for p in predictions], [p.question.gold for p in predictions])
    )
    slope, offset = np.polyfit(unit_N, gold_N, 1) if np.ptp(unit_N) > 0 else (1.0, 0.0)
    if slope <= 0:
        slope, offset = 1.0, float(np.mean(gold_N - unit_N))
    about |= {"slope": float(slope), "offset": float(offset)}
    stds = [p.std for p in predictions]
    if all(stds):
        std_N = np.array(stds, dtype=float) / (task.high - task.low) * slope
        apart_N = np.abs(gold_N - np.clip(slope * unit_N + offset, 0, 1))
        about["std_scale"] = max(float(np.quantile(apart_N / std_N, 0.9)) / _Z90, 1e-3)
    bare = QuestionCalibration(**about)
    moved = [bare.apply(task, _answer(task, p)) for p in predictions]
    again = [replace(p, value=a.value) for p, a in zip(predictions, moved, strict=True)]
    return bare.model_copy(update={"confidence": _confidence(again)})


def _label_set(task: Task, predictions: Sequence[Prediction], about: dict[str, Any]) -> QuestionCalibration:
    curves = {}
    for label in task.labels:
        known = [(p.probabilities[label], label in p.question.gold) for p in predictions if label in p.probabilities]  # type: ignore[operator]
        if known:
            probability_N, true_N = np.array(known, dtype=float).T
            curves[label] = isotonic(probability_N, true_N)
    return QuestionCalibration(**about, labels=curves, confidence=_confidence(predictions))


def _classes(task: Task, predictions: Sequence[Prediction], about: dict[str, Any]) -> QuestionCalibration:
    names = task.answer_names
    full = [p for p in predictions if set(p.probabilities) == set(names)]
    if not full:
        return QuestionCalibration(**about, confidence=_confidence(predictions))
    probabilities_NK = np.array([[p.probabilities[name] for name in names] for p in full])
    golds = [names.index(str(p.question.gold)) for p in full]
    return QuestionCalibration(**about, temperature=temperature(probabilities_NK, golds))


def _confidence(predictions: Sequence[Prediction]) -> Curve | None:
    sure_N, right_N = confidences(predictions)
    return isotonic(sure_N, right_N) if len(sure_N) else None


def _tells(predictions: Iterable[Prediction]) -> bool:
    return any(p.probabilities or p.confidence is not None or p.std is not None for p in predictions)


def _answer(task: Task, prediction: Prediction) -> Answer:
    return Answer(
        value=prediction.value,
        unit=unit_of(task, prediction.value),
        std=prediction.std,
        confidence=prediction.confidence,
        probabilities=dict(prediction.probabilities),
    )
