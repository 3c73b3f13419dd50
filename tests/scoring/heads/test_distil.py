"""Distillation without a training: which tasks teachers are asked, and what becomes of their answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from emollm.core.card import AffectCard, BaseModelInfo, write_card
from emollm.core.errors import ConfigError
from emollm.core.tasks import TASKS, OrdinalClass, QuestionKey, Task
from emollm.training.distil import mean_labels, soft_labels, teacher_tasks
from emollm.training.options import TrainConfig


def config(folder: Path, *teachers: tuple[Task, ...]) -> TrainConfig:
    base = BaseModelInfo(name="b", architecture="decoder", licence="l", fingerprint="f")
    folders = [folder / f"teacher-{n}" for n in range(len(teachers))]
    for each, tasks in zip(folders, teachers, strict=True):
        each.mkdir()
        write_card(each, AffectCard(name="teacher", base=base, tasks=tasks))
    return TrainConfig(
        data=Path("mine"), out=folder / "student", objective="heads", freeze=True,
        teacher=tuple(map(str, folders)), unlabelled=Path("posts"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "theirs", "message"),
    [
        ("E-c", {"labels": tuple(reversed(TASKS["E-c"].labels))}, "labels .*'anger'.* and .*'trust'"),
        ("E-c", {"labels": TASKS["E-c"].labels[:10]}, "labels"),
        ("SST5", {"classes": tuple(OrdinalClass(value=v, phrase="") for v in range(1, 6))}, r"classes \(0, .*4\) and"),
        ("EmoBank-V", {"high": 9.0}, r"range \(1.0, 5.0\) and \(1.0, 9.0\)"),
        ("V-reg", {"kind": "ordinal", "classes": TASKS["V-oc"].classes}, "kind regression and ordinal"),
    ],
    ids=["order", "number", "classes", "range", "kind"],
)
def test_a_task_that_means_something_else_to_the_teacher_is_refused(
    tmp_path: Path, name: str, theirs: dict[str, Any], message: str
) -> None:
    other = Task.model_validate(TASKS[name].model_dump() | theirs)
    asked = config(tmp_path, (TASKS[name],), (other,))
    with pytest.raises(ConfigError, match=f"{name} differs between mine and .*teacher-1: {message}"):
        teacher_tasks(asked, [TASKS[name]])
    with pytest.raises(ConfigError, match=f"{name} differs between .*teacher-0 and .*teacher-1: {message}"):
        teacher_tasks(asked, [])


def test_other_wording_and_tasks_of_its_own_do_no_harm(tmp_path: Path) -> None:
    worded = TASKS["V-reg"].model_copy(update={"templates": ("How good?",), "title": "Mood"})
    asked = config(tmp_path, (worded, TASKS["SST"]))
    assert teacher_tasks(asked, [TASKS["V-reg"], TASKS["E-c"]]) == {asked.teacher[0]: (worded, TASKS["SST"])}


def test_what_a_teacher_derives_its_student_derives_too() -> None:
    options = {"data": "mine", "out": "student", "objective": "heads", "unlabelled": "posts"}
    names = ("minilm-affect", "smollm2-135m-heads")
    asked = teacher_tasks(TrainConfig.model_validate({**options, "teacher": names}), [])
    assert {task.name for task in asked[names[1]]} == {"EI-reg", "EI-oc", "V-reg", "V-oc", "E-c"}
    assert "SST" in {task.name for task in asked[names[0]]}
    named = TrainConfig.model_validate({**options, "teacher": names, "tasks": ("SST",)})
    assert [task.name for task in teacher_tasks(named, [])[names[1]]] == ["SST"]


def test_labels_of_several_teachers_are_the_mean_of_those_who_answered() -> None:
    tasks = (TASKS["V-reg"], TASKS["V-oc"])
    levels = TASKS["V-oc"].answer_names

    def answers(posts: dict[str, tuple[float | None, float | None]]) -> pa.Table:
        return pa.table(
            {
                "text": list(posts),
                "v_reg": [number for number, _ in posts.values()],
                "v_oc_probabilities": [
                    None if p is None else {n: p if n == levels[0] else (1 - p) / 6 for n in levels}
                    for _, p in posts.values()
                ],
            }
        )

    one = soft_labels(answers({"a": (0.2, 0.4), "b": (0.6, None), "c": (None, None)}), tasks)
    other = soft_labels(answers({"c": (None, 0.1), "b": (0.8, None), "a": (None, 0.8)}), tasks)
    both = mean_labels([one, other])
    assert both.texts == ["a", "b", "c"] and not both.is_gold_N.any()
    np.testing.assert_allclose(both.golds[QuestionKey("V-reg")][:, 0], [0.2, 0.7, np.nan])
    np.testing.assert_allclose(both.golds[QuestionKey("V-oc")][:, 0], [0.6, np.nan, 0.1])
