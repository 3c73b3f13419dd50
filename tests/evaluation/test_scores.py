"""From a data folder to metrics."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from emollm.errors import DataError
from emollm.evaluation.report import format_score, results_table
from emollm.evaluation.scores import GoldQuestion, TaskResult, load_questions, score_results
from emollm.tasks import TASKS, Task, Value, select_tasks


def question(task: str, gold: Value, emotion: str | None = None) -> GoldQuestion:
    return GoldQuestion(id="x", task=TASKS[task], emotion=emotion, text="t", gold=gold)


def only(results: list[TaskResult]) -> TaskResult:
    (result,) = results
    return result


def test_each_question_is_asked_once_however_many_wordings(sample_data: Path) -> None:
    questions = load_questions(sample_data, select_tasks(["profile"]))
    assert len(questions) == 782  # the sample's dev rows, not ten times as many
    assert len({q.id for q in questions}) == 782
    few = load_questions(sample_data, select_tasks(["EI-reg"]), max_rows=3)
    assert sorted(q.emotion or "" for q in few) == ["anger"] * 3 + ["fear"] * 3 + ["joy"] * 3 + ["sadness"] * 3
    assert all(isinstance(q.gold, float) for q in few)


def test_a_folder_without_the_tasks_is_refused(sample_data: Path) -> None:
    with pytest.raises(DataError, match="has no row of SST5"):
        load_questions(sample_data, [TASKS["SST5"]])


def test_ei_scores_are_the_mean_over_emotions() -> None:
    questions = [question("EI-reg", g, e) for e in ("anger", "fear", "joy", "sadness") for g in (0.0, 0.5, 1.0)]
    result = only(score_results(questions, [0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0, 0.5, 1.0, 0.0, 1.0, 0.5]))
    assert result.by_emotion == {
        "anger": pytest.approx(1.0),
        "fear": pytest.approx(-1.0),
        "joy": pytest.approx(1.0),
        "sadness": pytest.approx(0.5),
    }
    assert result.scores["pearson"] == pytest.approx(0.375)


def test_an_unread_answer_counts_as_wrong_for_classes_and_label_sets() -> None:
    classes = only(score_results([question("V-oc", 1), question("V-oc", -1)], [1, None]))
    assert (classes.scores["accuracy"], classes.valid) == (0.5, 0.5)
    # An empty gold set and an unread answer: no agreement, unlike an empty answer.
    sets = [question("E-c", ()), question("E-c", ("joy",))]
    assert only(score_results(sets, [None, ("joy",)])).scores["jaccard"] == 0.5
    assert only(score_results(sets, [(), ("joy",)])).scores["jaccard"] == 1.0


def test_a_correlation_leaves_unread_answers_out_and_says_how_many() -> None:
    questions = [question("V-reg", g) for g in (0.1, 0.4, 0.9)]
    result = only(score_results(questions, [0.2, None, 0.7]))
    assert result.valid == pytest.approx(2 / 3)
    assert result.scores["pearson"] == pytest.approx(1.0)
    assert math.isnan(only(score_results(questions, [None, None, None])).scores["pearson"])


def test_single_labels_are_scored_by_accuracy() -> None:
    task = Task.model_validate(
        {
            "name": "stance", "kind": "single-label", "title": "Stance", "source": "own", "metric": "accuracy",
            "labels": ["for", "against"], "question": "Stance: ", "templates": ["Which side?"],
        }
    )  # fmt: skip
    asked = [GoldQuestion(id=str(i), task=task, emotion=None, text="t", gold="for") for i in range(4)]
    assert only(score_results(asked, ["for", "against", None, "for"])).scores == {"accuracy": 0.5}


def test_scores_print_as_the_field_prints_them() -> None:
    assert [format_score(s) for s in (0.1234, -0.5, 1.0, -1.0, 0.0, 0.9996, math.nan)] == [
        ".123", "-.500", "1.000", "-1.000", ".000", "1.000", "–",
    ]  # fmt: skip
    result = TaskResult(task="E-c", rows=2, valid=0.5, scores={"jaccard": 0.5, "micro-F1": 0.25})
    table = results_table({"base": [result], "tuned": [result]}, title="t")
    assert [column.header for column in table.columns] == ["task", "metric", "rows", "base", "valid", "tuned", "valid"]
    assert table.row_count == 2
