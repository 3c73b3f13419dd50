"""From predictions to metrics."""

from __future__ import annotations

import json
import math

import pytest

from emollm.core.tasks import TASKS, Task, Value
from emollm.evaluation.report.terminal import format_score, results_table
from emollm.metrics.predictions import OUT_OF_RANGE, Prediction
from emollm.metrics.questions import GoldQuestion
from emollm.metrics.scores import Bootstrap, Invalid, TaskResult, resolve_invalid, score_results, score_task


def question(task: str | Task, gold: Value, emotion: str | None = None) -> GoldQuestion:
    found = TASKS[task] if isinstance(task, str) else task
    return GoldQuestion(id="x", task=found, emotion=emotion, text="t", gold=gold)


def prediction(task: str | Task, gold: Value, value: Value | None, emotion: str | None = None) -> Prediction:
    error = None if value is not None else "invalid_answer"
    return Prediction(question=question(task, gold, emotion), value=value, error=error)


def out_of_range_value(task: str, gold: Value, number: float) -> Prediction:
    return Prediction(question=question(task, gold), value=None, out_of_range_value=number, error=OUT_OF_RANGE)


def test_ei_scores_are_the_mean_over_emotions() -> None:
    emotions = ("anger", "fear", "joy", "sadness")
    golds = [(g, e) for e in emotions for g in (0.0, 0.5, 1.0)]
    values = [0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0, 0.5, 1.0, 0.0, 1.0, 0.5]
    (result,) = score_results([prediction("EI-reg", g, v, e) for (g, e), v in zip(golds, values, strict=True)])
    expected = {"anger": 1.0, "fear": -1.0, "joy": 1.0, "sadness": 0.5}
    assert result.by_emotion == {e: pytest.approx(r) for e, r in expected.items()}
    assert result.scores["pearson"] == pytest.approx(0.375)
    assert result.scores["MAE"] == pytest.approx((0 + 2 / 3 + 0 + 1 / 3) / 4)


def test_an_unread_answer_counts_as_wrong_for_classes_and_label_sets() -> None:
    classes = score_task([prediction("SST5", 1, 1), prediction("SST5", 4, None)])
    assert (classes.scores["accuracy"], classes.valid, classes.errors) == (0.5, 0.5, {"invalid_answer": 1})
    # An empty gold set and an unread answer: no agreement, unlike an empty answer.
    unread = [prediction("E-c", (), None), prediction("E-c", ("joy",), ("joy",))]
    assert score_task(unread).scores["jaccard"] == 0.5
    empty = [prediction("E-c", (), ()), prediction("E-c", ("joy",), ("joy",))]
    assert score_task(empty).scores["jaccard"] == 1.0


@pytest.mark.parametrize(
    ("number", "invalid", "settled"),
    [(48.0, "clip", 3), (1.4, "clip", 1), (-9.0, "clip", -3), (48.0, "worst", -3), (48.0, "drop", None)],
)
def test_what_an_invalid_class_counts_as(number: float, invalid: Invalid, settled: int | None) -> None:
    assert resolve_invalid(out_of_range_value("V-oc", 2, number), invalid) == settled


def test_what_an_invalid_number_counts_as() -> None:
    assert resolve_invalid(out_of_range_value("VADER-NYT", 1.0, 9.0), "clip") == 4.0
    assert resolve_invalid(out_of_range_value("VADER-NYT", 1.0, 9.0), "worst") == -4.0
    # What is no number at all cannot be clipped: it is wrong.
    assert resolve_invalid(prediction("VADER-NYT", -3.0, None), "clip") == 4.0
    assert resolve_invalid(prediction("VADER-NYT", -3.0, None), "drop") is None


def test_a_result_tells_what_the_choice_does() -> None:
    golds = [0.1, 0.3, 0.5, 0.7, 0.9]
    rows = [prediction("V-reg", g, g) for g in golds] + [out_of_range_value("V-reg", 0.2, 1.3)]
    result = score_task(rows, invalid="drop")
    assert result.scores["pearson"] == pytest.approx(1.0)
    assert result.by_policy["drop"] == pytest.approx(1.0)
    assert result.by_policy["clip"] < 0.6
    assert (result.rows, result.errors) == (6, {"out_of_range": 1})
    assert score_task(rows[:5]).by_policy == {}


def test_an_undefined_metric_says_why_and_enters_no_average() -> None:
    constant = score_task([prediction("V-reg", g, 0.5) for g in (0.1, 0.4, 0.9)], bootstrap=Bootstrap(50))
    assert math.isnan(constant.scores["pearson"])
    assert constant.undefined == "the prediction is constant, 0.5"
    assert constant.intervals["pearson"] is None
    assert json.loads(json.dumps(constant.as_json()))["scores"]["pearson"] is None
    # One emotion's constant makes the mean undefined; it is not left out, nor taken for 0.
    rows = [prediction("EI-reg", g, 0.5 if e == "fear" else g, e) for e in ("anger", "fear") for g in (0.1, 0.5)]
    mixed = score_task(rows)
    assert math.isnan(mixed.scores["pearson"])
    assert mixed.undefined == "fear: the prediction is constant, 0.5"
    none = score_task([prediction("V-reg", g, None) for g in (0.1, 0.4)], invalid="drop")
    assert none.undefined == "0 of 2 rows have an answer"


def test_intervals_hold_the_score() -> None:
    rows = [prediction("SST5", i % 5, (i + (i % 3 == 0)) % 5) for i in range(60)]
    result = score_task(rows, bootstrap=Bootstrap(200, seed=1))
    assert set(result.intervals) == set(result.scores)
    found = result.intervals["accuracy"]
    assert found is not None and found.low < result.scores["accuracy"] < found.high


def test_a_tasks_headline_metric_comes_first() -> None:
    for name in ("EI-oc", "SST5", "E-c", "SST"):
        task = TASKS[name]
        emotion = task.emotions[0] if task.emotions else None
        gold: Value = {"SST": 0.5, "E-c": ("joy",)}.get(name, 1)
        assert next(iter(score_task([prediction(name, gold, gold, emotion)]).scores)) == task.metric


def test_single_labels_are_scored_by_accuracy() -> None:
    task = Task.model_validate(
        {
            "name": "stance", "kind": "single-label", "title": "Stance", "source": "own", "metric": "accuracy",
            "labels": ["for", "against"], "question": "Stance: ", "templates": ["Which side?"],
        }
    )  # fmt: skip
    result = score_task([prediction(task, "for", v) for v in ("for", "against", None, "for")])
    assert result.scores["accuracy"] == 0.5


def test_scores_print_as_the_field_prints_them() -> None:
    assert [format_score(s) for s in (0.1234, -0.5, 1.0, -1.0, 0.0, 0.9996, math.nan)] == [
        ".123", "-.500", "1.000", "-1.000", ".000", "1.000", "–",
    ]  # fmt: skip
    result = TaskResult(task="E-c", rows=2, valid=0.5, scores={"jaccard": 0.5, "micro-F1": 0.25})
    table = results_table({"base": [result], "tuned": [result]}, title="t")
    assert [column.header for column in table.columns] == ["task", "metric", "rows", "base", "valid", "tuned", "valid"]
    assert table.row_count == 2
