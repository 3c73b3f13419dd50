"""Fit a model's calibration on validation rows and put it into its card: what `emollm calibrate` runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from emollm.core.bases import bundled, model_folder
from emollm.core.calibration import Abstention, Calibration
from emollm.core.card import CARD_FILE, card_of, card_tasks, write_card
from emollm.core.errors import ModelError
from emollm.core.tasks import select_tasks
from emollm.evaluation.calibration_maps import cross_fitted, fit_maps
from emollm.evaluation.options import CalibrateConfig
from emollm.evaluation.predict import predict
from emollm.metrics.conformal import SetCoverage, expected_coverage, fit_sets
from emollm.metrics.predictions import Prediction
from emollm.metrics.questions import load_questions
from emollm.metrics.reliability import RIGHT_SHARES, Reliability, abstain_thresholds
from emollm.metrics.reliability import measure as measure_reliability
from emollm.metrics.scores import score_task, split_tasks
from emollm.scoring.open import resolve_engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What calibration does to one task, on texts that the maps were not fitted on."""

    task: str
    before: Reliability
    after: Reliability
    mae_before: float | None
    """Regressions: mean absolute error, in the task's own unit."""
    mae_after: float | None


@dataclass(frozen=True, slots=True)
class Calibrated:
    gains: list[Gain]
    """Of each task with a question that has maps."""
    left: tuple[str, ...]
    """Names of the questions that have none, for want of rows."""
    sets: list[SetCoverage]
    """What 90% sets hold, and how large they are, on texts that they were not fitted on."""


def calibrate_model(
    config: CalibrateConfig, *, on_rows: Callable[[int, int], None] = lambda _done, _total: None
) -> Calibrated:
    """Score the validation rows uncalibrated, fit, write the card.

    Gains are cross-fitted over two halves of the texts; the card's maps are fitted on all rows. Raises ModelError for
    a model without a folder that can be written, DataError if no question has rows enough.
    """
    folder = Path(model_folder(config.model))
    card = card_of(config.model)
    # The bundled default model is part of the package: what is fitted to it belongs to a copy.
    if card is None or bundled(config.model) or not os.access(folder, os.W_OK):
        where = f"copy {folder} and name the copy" if folder.is_dir() else "name a model directory"
        raise ModelError(f"{config.model} has no card that can be written; {where}")
    known = card_tasks(config.model)
    tasks = known if config.tasks is None else select_tasks(config.tasks, known)
    questions = load_questions(config.data, tasks, max_rows=config.max_rows)
    scored = predict(
        config.model,
        questions,
        options=config.scorer_options(),
        cluster=config.cluster,
        calibrated=False,
        on_rows=lambda n: on_rows(n, len(questions)),
    )
    about = {"data": config.data.name, "split": "validation", "rows": len(questions)}
    # Thresholds and sets are taken on texts that the maps have not seen.
    unseen = cross_fitted(scored.predictions) if config.maps else scored.predictions
    calibration = (
        fit_maps(scored.predictions, fitted_on=about) if config.maps else Calibration(questions=(), fitted_on=about)
    )
    gains = list(_gains(calibration, scored.predictions, unseen, config.right_share))
    calibration = calibration.model_copy(update={"abstain": abstentions(unseen), "sets": fit_sets(unseen)})
    engine = resolve_engine(config.model, config.engine)
    partial = folder / f".{CARD_FILE}.partial"
    partial.mkdir(exist_ok=True)
    # Beside and then in place: a crash leaves the old card.
    write_card(partial, card.model_copy(update={"calibration": {**card.calibration, engine: calibration}}))
    (partial / CARD_FILE).replace(folder / CARD_FILE)
    partial.rmdir()
    left = {question.key for question in questions} - {maps.key for maps in calibration.questions}
    return Calibrated(gains, tuple(sorted(map(str, left))) if config.maps else (), expected_coverage(unseen, 0.9))


def _gains(
    calibration: Calibration, predictions: Sequence[Prediction], unseen: Sequence[Prediction], right_share: float
) -> Iterator[Gain]:
    before, after = split_tasks(predictions), split_tasks(unseen)
    for task in dict.fromkeys(found.task for found in calibration.questions):
        measured = [measure_reliability(side[task], right_share=right_share) for side in (before, after)]
        errors = [score_task(side[task]).scores.get("MAE") for side in (before, after)]
        if measured[0] and measured[1]:
            yield Gain(task=task, before=measured[0], after=measured[1], mae_before=errors[0], mae_after=errors[1])


def abstentions(unseen: Sequence[Prediction]) -> dict[str, tuple[Abstention, ...]]:
    """Of each task, the confidence that gives each share of right answers, on rows that no map was fitted on."""
    return {
        task: tuple(
            Abstention(confidence=one.threshold, right_share=one.right_share, kept=one.coverage)
            for one in abstain_thresholds(mine, RIGHT_SHARES)
        )
        for task, mine in split_tasks(unseen).items()
    }
