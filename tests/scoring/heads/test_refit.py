"""Heads fitted again on a trained backbone: the better ones are kept, calibrated on texts it has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from emollm.core.heads_card import Head, HeadsCard, Prompt
from emollm.core.tasks import TASKS, QuestionKey
from emollm.scoring.heads.fit import FittedHeads, fit_heads
from emollm.scoring.heads.labels import LabelledText, folds
from emollm.scoring.heads.refit import LEAST_TEXTS, Quality, Start, refit_heads
from emollm.scoring.heads.weights import HeadWeights
from tests.scoring.heads.test_fit import GOOD, TASKS_HERE, planted

JOY = QuestionKey("EI-reg", "joy")


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, LabelledText, np.ndarray]:
    features, labelled = planted(2000)
    return features[GOOD], labelled, folds(labelled.texts, parts=10) == 0


def started(x: np.ndarray, labelled: LabelledText, *, noise: float) -> tuple[Start, FittedHeads]:
    """Heads as good as can be, or spoilt by noise in their weights."""
    fitted = fit_heads({GOOD: x}, labelled, TASKS_HERE, feature_specs=(GOOD,))
    weight = fitted.head_weights.weight_OF
    spoilt = weight + noise * np.random.default_rng(5).normal(size=weight.shape).astype(np.float32)
    card = HeadsCard(prompt=Prompt(), feature_specs=(GOOD,), heads=fitted.heads)
    return Start(HeadWeights(spoilt, fitted.head_weights.bias_O), card, tuple(TASKS_HERE)), fitted


def refit(
    x: np.ndarray, labelled: LabelledText, held: np.ndarray, start: Start, tasks: list[str]
) -> tuple[FittedHeads, dict[str, Quality]]:
    return refit_heads({GOOD: x}, labelled, held, [TASKS[name] for name in tasks], start)


def test_spoilt_heads_are_replaced_and_their_scores_told(data: tuple[np.ndarray, LabelledText, np.ndarray]) -> None:
    x, labelled, held = data
    start, _ = started(x, labelled, noise=1.0)
    fitted, compared = refit(x, labelled, held, start, ["EI-reg", "V-oc", "E-c"])
    for task in ("EI-reg", "V-oc", "E-c"):
        assert compared[task]["refit"] > compared[task]["start"] + 0.1
    heads = {head.key: head for head in fitted.heads}
    # Calibrated and measured on the tenth: of these the metrics tell, and not of the others.
    known = held & ~np.isnan(labelled.golds[JOY][:, 0])
    assert known.sum() >= LEAST_TEXTS
    scores = fitted.head_weights.scores(x[known])[:, list(heads[JOY].outputs)][:, 0]
    assert heads[JOY].metrics["pearson"] == pytest.approx(
        np.corrcoef(scores, labelled.golds[JOY][known, 0])[0, 1], abs=0.01
    )
    # A task that the data does not have stays as it was, with its own weights.
    kept, before = heads["EI-oc", "joy"], next(h for h in start.heads.heads if h.task == "EI-oc")
    assert kept.offset == before.offset
    np.testing.assert_array_equal(
        fitted.head_weights.weight_OF[list(kept.outputs)], start.head_weights.weight_OF[list(before.outputs)]
    )


def test_a_head_that_is_better_stays(data: tuple[np.ndarray, LabelledText, np.ndarray]) -> None:
    x, labelled, held = data
    start, own = started(x, labelled, noise=0.0)
    spoilt = LabelledText(labelled.texts, dict(labelled.golds), labelled.fold_N, labelled.is_gold_N)
    # What it is fitted on asks for something else.
    other = (x - 5) @ np.random.default_rng(7).normal(size=(x.shape[1], 1)) * 0.02 + 0.5
    spoilt.golds[JOY] = np.where(held[:, None], labelled.golds[JOY], np.clip(other, 0, 1))
    fitted, compared = refit(x, spoilt, held, start, ["EI-reg"])
    assert compared["EI-reg"]["start"] > 0.8 > compared["EI-reg"]["refit"]
    [head] = [head for head in fitted.heads if head.task == "EI-reg"]
    before = next(h for h in own.heads if h.key == JOY)
    np.testing.assert_array_equal(
        fitted.head_weights.weight_OF[list(head.outputs)], own.head_weights.weight_OF[list(before.outputs)]
    )


def test_few_labels_are_calibrated_by_cross_validation_and_nothing_is_compared(
    data: tuple[np.ndarray, LabelledText, np.ndarray],
) -> None:
    x, labelled, held = data
    start, _ = started(x, labelled, noise=1.0)
    few = {JOY: labelled.golds[JOY].copy()}
    few[JOY][300:] = np.nan
    fitted, compared = refit(
        x, LabelledText(labelled.texts, few, labelled.fold_N, labelled.is_gold_N), held, start, ["EI-reg"]
    )
    assert compared == {"EI-reg": {}}
    [head] = [head for head in fitted.heads if head.task == "EI-reg"]
    assert head.rows < 300 and head.metrics["pearson"] > 0.8


def test_a_derivation_that_is_better_replaces_a_head(data: tuple[np.ndarray, LabelledText, np.ndarray]) -> None:
    x, labelled, held = data
    emotions = TASKS["EI-reg"].emotions
    golds = {QuestionKey("E-c"): labelled.golds["E-c", None]}
    for emotion in emotions:
        present = golds[QuestionKey("E-c")][:, TASKS["E-c"].labels.index(emotion)]
        number = np.clip(0.6 + (x[:, :1] - 5) * 0.05, 0, 1)
        golds[QuestionKey("EI-reg", emotion)] = number
        golds[QuestionKey("Intensity", emotion)] = number * present[:, None]
    every = LabelledText(labelled.texts, golds, labelled.fold_N, labelled.is_gold_N)
    tasks = [TASKS[name] for name in ("Intensity", "EI-reg", "E-c")]
    first = fit_heads({GOOD: x}, every, tasks, feature_specs=(GOOD,))
    card = HeadsCard(prompt=Prompt(), feature_specs=(GOOD,), heads=first.heads)
    fitted, compared = refit_heads({GOOD: x}, every, held, tasks, Start(first.head_weights, card, tuple(tasks)))
    assert compared["Intensity"]["derived"] > compared["Intensity"]["refit"]
    own = [head for head in fitted.heads if head.task == "Intensity"]
    assert [head.emotion for head in own] == list(emotions) and all(isinstance(h, Head) and h.derivation for h in own)
