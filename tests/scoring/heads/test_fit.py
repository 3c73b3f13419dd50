"""Fitting: gaps teach nothing, texts are held out together, and what is planted in features is found."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import f1_score

from emollm.core.errors import DataError
from emollm.core.heads_card import FeatureSpec, Head
from emollm.core.tasks import PROFILE, TASKS, OrdinalClass, QuestionKey, select_tasks
from emollm.data.corpora.example import Example
from emollm.data.instructions import build_rows
from emollm.scoring.heads import head_calibration, readout
from emollm.scoring.heads.fit import fit_heads
from emollm.scoring.heads.labels import FOLDS, LabelledText, folds, read_labels
from emollm.scoring.heads.ridge import (
    SufficientStats,
    explained_variance,
    fold_moments,
    scale_of,
    scaled_parts,
    solve,
    squared_errors,
)

GOOD, NOISE = FeatureSpec(layer=2, pooling="last"), FeatureSpec(layer=1, pooling="mean")
RNG = np.random.default_rng(0)


def planted(count: int = 400, size: int = 12) -> tuple[dict[FeatureSpec, np.ndarray], LabelledText]:
    """Features of which one reading knows the golds of four kinds of questions, and the other nothing."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(count, size)).astype(np.float32) * 3 + 5
    direction = rng.normal(size=(size, 4)) / (3 * size**0.5)
    hidden = (x - 5) @ direction + rng.normal(scale=0.1, size=(count, 4))
    number = np.clip(0.5 + 0.2 * hidden[:, :1], 0, 1)
    rank = np.digitize(number[:, 0], [0.35, 0.5, 0.65])
    golds = {
        QuestionKey("EI-reg", "joy"): number,
        QuestionKey("EI-oc", "joy"): np.eye(4)[rank],
        QuestionKey("V-oc", None): np.eye(7)[np.clip(np.round(hidden[:, 1] * 2 + 3), 0, 6).astype(int)],
        QuestionKey("E-c", None): (hidden @ rng.normal(size=(4, 11)) > 0.4).astype(float),
    }
    # Each text has labels for some questions only.
    for (task, _), gold in golds.items():
        if task != "EI-oc":
            gold[rng.random(count) < 0.3] = np.nan
    golds["EI-oc", "joy"][np.isnan(number[:, 0])] = np.nan
    texts = [f"text {i}" for i in range(count)]
    labelled = LabelledText(texts, golds, folds(texts), np.ones(count, dtype=bool))
    return {GOOD: x, NOISE: rng.normal(size=(count, size)).astype(np.float32)}, labelled


TASKS_HERE = select_tasks(["EI-reg", "EI-oc", "V-oc", "E-c"])


def test_heads_fitted_on_a_device_of_pytorch_are_those_of_numpy() -> None:
    features, labelled = planted()
    ours, theirs = (fit_heads(features, labelled, TASKS_HERE, device=device) for device in (None, "cpu"))
    assert (theirs.feature_specs, theirs.borrows) == (ours.feature_specs, ours.borrows)
    np.testing.assert_allclose(theirs.head_weights.weight_OF, ours.head_weights.weight_OF, rtol=1e-5, atol=1e-8)


def test_what_is_planted_is_found_and_the_reading_that_knows_it_is_chosen() -> None:
    features, labelled = planted()
    fitted = fit_heads(features, labelled, TASKS_HERE)
    assert fitted.feature_specs == (GOOD,)
    by_key = {head.key: head for head in fitted.heads}
    assert by_key["EI-reg", "joy"].metrics["pearson"] > 0.85
    assert by_key["E-c", None].metrics["jaccard"] > 0.7
    assert by_key["V-oc", None].metrics["pearson"] > 0.8
    assert 0.85 < by_key["EI-reg", "joy"].metrics["in_90"] < 0.95
    assert {head.origin for head in fitted.heads} == {"trained"}
    # The classes are the number cut up, so they read its output.
    assert by_key["EI-oc", "joy"].outputs == by_key["EI-reg", "joy"].outputs
    assert fitted.head_weights.weight_OF.shape == (1 + 1 + 11, 12)


def test_a_text_without_a_label_changes_nothing() -> None:
    features, labelled = planted()
    known = labelled.known(("EI-reg", "joy"))
    only = LabelledText(
        [labelled.texts[i] for i in known],
        {QuestionKey("EI-reg", "joy"): labelled.golds["EI-reg", "joy"][known]},
        labelled.fold_N[known],
        labelled.is_gold_N[known],
    )
    tasks = select_tasks(["EI-reg"])
    masked = LabelledText(labelled.texts, {k: v for k, v in labelled.golds.items() if k[0] == "EI-reg"},
                      labelled.fold_N, labelled.is_gold_N)  # fmt: skip
    with_gaps = fit_heads(features, masked, tasks, feature_specs=(GOOD,))
    without = fit_heads({GOOD: features[GOOD][known]}, only, tasks, feature_specs=(GOOD,))
    # Only the features' scale is taken over all texts, and regularisation hardly matters here.
    np.testing.assert_allclose(with_gaps.head_weights.weight_OF, without.head_weights.weight_OF, atol=1e-3)
    assert with_gaps.heads[0].rows == len(known)


def test_moments_give_the_ridge_of_scikit_learn() -> None:
    features, labelled = planted(200)
    index, strength = np.arange(200), 0.3
    y = RNG.normal(size=(200, 2))
    scale = scale_of(features, (GOOD,))
    moments = fold_moments(features, (GOOD,), scale, index, y, labelled.fold_N)
    total = sum(moments[1:], start=moments[0])
    [x] = scaled_parts(features, (GOOD,), scale, None)
    theirs = Ridge(alpha=strength * 200).fit(x, y)
    ours = solve(total, strength)
    np.testing.assert_allclose(ours.weight_FK, theirs.coef_.T, atol=1e-8)
    np.testing.assert_allclose(ours.bias_K, theirs.intercept_, atol=1e-8)
    np.testing.assert_allclose(squared_errors(total, ours), ((theirs.predict(x) - y) ** 2).sum(axis=0))
    # Held out by hand, fold by fold.
    errors = np.zeros(2)
    for fold in range(FOLDS):
        out = labelled.fold_N == fold
        held = Ridge(alpha=strength * (~out).sum()).fit(x[~out], y[~out])
        errors += ((held.predict(x[out]) - y[out]) ** 2).sum(axis=0)
    expected = 1 - errors / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    np.testing.assert_allclose(explained_variance(moments, (strength,))[0], expected)
    assert isinstance(total, SufficientStats)


def test_copies_of_a_text_are_held_out_together() -> None:
    copies = ["So GLAD!!", "so glad", "@you so glad https://t.co/x", "so   glad."]
    assert len(set(folds(copies))) == 1
    assert set(folds([f"text {i}" for i in range(100)])) == set(range(FOLDS))


def test_labels_of_all_wordings_of_a_text_are_one_row_with_gaps() -> None:
    examples = [
        Example(
            task="V-reg", emotion=None, id="1", text="Sun!", value=0.9, source="s", path="f", line=1, split="train"
        ),
        Example(
            task="E-c", emotion=None, id="2", text="Sun!", value=("joy",), source="s", path="f", line=2, split="train"
        ),
        Example(task="E-c", emotion=None, id="3", text="Rain.", value=(), source="s", path="f", line=3, split="train"),
    ]
    labelled = read_labels(build_rows(examples, seed=0, templates_per_example=3), [TASKS[name] for name in PROFILE])
    where = {text: n for n, text in enumerate(labelled.texts)}
    assert set(labelled.golds) == {("V-reg", None), ("E-c", None)}
    assert labelled.golds["V-reg", None][where["Sun!"]] == pytest.approx([0.9])
    assert list(labelled.known(("V-reg", None))) == [where["Sun!"]]
    assert labelled.golds["E-c", None].sum(axis=1)[[where["Sun!"], where["Rain."]]].tolist() == [1, 0]


def test_too_few_labels_are_refused_by_name() -> None:
    features, labelled = planted()
    labelled.golds["EI-reg", "joy"][5:] = np.nan
    with pytest.raises(DataError, match=r"EI-reg\.joy has \d labelled texts, too few.*--tasks"):
        fit_heads(features, labelled, TASKS_HERE)


def test_calibration_makes_probabilities_true() -> None:
    rng = np.random.default_rng(2)
    score = rng.normal(size=20_000)
    truth = 1 / (1 + np.exp(-(3 * score - 1)))
    golds = (rng.random(20_000) < truth).astype(float)
    head = Head(task="E-c", origin="trained", outputs=(0,))
    fitted = head_calibration.calibrated(TASKS["E-c"], head, score[:, None], golds[:, None])
    assert (fitted.slope[0], fitted.offset[0]) == (pytest.approx(3, abs=0.15), pytest.approx(-1, abs=0.1))
    # Cuts of a proportional-odds model, from classes drawn of one.
    ranks = np.digitize(2 * score + rng.logistic(size=20_000), [-1.0, 0.5, 2.0])
    ordinal = Head(task="EI-oc", emotion="joy", origin="trained", outputs=(0,))
    cut = head_calibration.calibrated(TASKS["EI-oc"], ordinal, score[:, None], np.eye(4)[ranks])
    assert cut.slope[0] == pytest.approx(2, abs=0.1)
    assert cut.offset == pytest.approx((-1.0, 0.5, 2.0), abs=0.1)


def test_a_class_that_never_occurs_keeps_its_place() -> None:
    score = np.random.default_rng(3).normal(size=500)
    ranks = np.where(score > 0, 3, 0)  # neither 1 nor 2
    head = Head(task="EI-oc", emotion="joy", origin="trained", outputs=(0,))
    fitted = head_calibration.calibrated(TASKS["EI-oc"], head, score[:, None], np.eye(4)[ranks])
    assert list(fitted.offset) == sorted(fitted.offset)
    assert fitted.metrics == {}


def test_the_metrics_of_a_head_are_those_of_its_answers() -> None:
    rng = np.random.default_rng(4)
    task = TASKS["SST5"].model_copy(
        update={"classes": tuple(OrdinalClass(value=value, phrase="") for value in (1, 2, 5)), "metric": "pearson"}
    )
    score = rng.normal(size=(2000, 1))
    ranks = np.digitize(score[:, 0] + 0.8 * rng.logistic(size=2000), [-0.5, 0.8])
    head = Head(task="SST5", origin="trained", outputs=(0,))
    fitted = head_calibration.calibrated(task, head, score, np.eye(3)[ranks])
    golds, worth = np.array([1, 2, 5])[ranks], {}
    for decision in ("likeliest", "expected"):
        answers = readout.class_answers(task, readout.class_probabilities(fitted, score), decision)
        given = np.array([answer.value for answer in answers.answers()])
        worth[decision] = float(np.corrcoef(given, golds)[0, 1])
        said = head_calibration.held_out_metrics(
            task, fitted.model_copy(update={"decision": decision}), score, np.eye(3)[ranks]
        )
        assert said == {"pearson": pytest.approx(worth[decision]), "accuracy": pytest.approx(np.mean(given == golds))}
    assert worth["likeliest"] != worth["expected"]
    assert fitted.decision == max(worth, key=lambda decision: worth[decision])


def test_rare_labels_are_given_sooner_where_that_costs_little_jaccard() -> None:
    rng = np.random.default_rng(3)
    score = rng.normal(size=(4000, 6))
    slope, shift = np.array([3, 3, 2, 1, 1, 1]), np.array([0.5, 0.0, -0.5, -2.5, -2.5, -3])
    golds = (rng.random(score.shape) < 1 / (1 + np.exp(-(slope * score + shift)))).astype(float)
    head = Head(task="E-c", origin="trained", outputs=tuple(range(6)))
    fitted = head_calibration.calibrated(TASKS["E-c"], head, score[:2000], golds[:2000])
    assert fitted.lift or len(set(fitted.thresholds)) > 1
    each = readout.label_probabilities(fitted, score[2000:], exclusive=False)
    mine, strict = readout.given_labels(fitted, each), readout.best_jaccard(each)
    rest = golds[2000:]
    assert head_calibration.macro_f1(mine, rest) > head_calibration.macro_f1(strict, rest) + 0.02
    assert head_calibration.soft_jaccard(mine, rest) > head_calibration.soft_jaccard(strict, rest) - 0.02
    assert head_calibration.macro_f1(mine, rest) == pytest.approx(f1_score(rest, mine, average="macro"))


def test_the_threshold_is_the_one_with_the_best_jaccard() -> None:
    golds = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    each = np.array([[0.45, 0.3], [0.5, 0.36], [0.1, 0.2], [0.4, 0.1]])
    # Above .3 and up to .36 the second label is right everywhere, and the first is too.
    assert all(0.30 < t <= 0.36 for t in head_calibration.jaccard_thresholds(each, golds))
    assert head_calibration.soft_jaccard(each >= 0.35, golds) == 1.0


def test_labels_that_are_all_the_same_are_refused_by_name() -> None:
    texts = [f"post {i}" for i in range(40)]
    spec = FeatureSpec(layer=1, pooling="mean")
    one_class = LabelledText(
        texts, {QuestionKey("V-oc"): np.tile(np.eye(7)[2], (40, 1))}, folds(texts), np.ones(40, dtype=bool)
    )
    features = {spec: np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)}
    with pytest.raises(DataError, match="all 40 labelled texts of V-oc have the same answer"):
        fit_heads(features, one_class, [TASKS["V-oc"]], feature_specs=[spec])
