"""A teacher whose tasks mean something else than the data's is refused before it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emollm.core.card import AffectCard, BaseModelInfo, write_card
from emollm.core.errors import ConfigError
from emollm.core.tasks import TASKS, OrdinalClass, Task
from emollm.training.distil import teacher_tasks
from emollm.training.options import TrainConfig


def config(folder: Path, *tasks: Task) -> TrainConfig:
    base = BaseModelInfo(name="b", architecture="decoder", licence="l", fingerprint="f")
    write_card(folder, AffectCard(name="teacher", base=base, tasks=tasks))
    return TrainConfig(
        data=Path("mine"), out=folder / "student", objective="heads", freeze=True, teacher=str(folder),
        unlabelled=Path("posts"),
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
    asked = config(tmp_path, Task.model_validate(TASKS[name].model_dump() | theirs))
    with pytest.raises(ConfigError, match=f"{name} differs between mine and .*: {message}"):
        teacher_tasks(asked, [TASKS[name]])


def test_other_wording_and_tasks_of_its_own_do_no_harm(tmp_path: Path) -> None:
    worded = TASKS["V-reg"].model_copy(update={"templates": ("How good?",), "title": "Mood"})
    asked = config(tmp_path, worded, TASKS["SST"])
    assert teacher_tasks(asked, [TASKS["V-reg"], TASKS["E-c"]]) == (worded, TASKS["SST"])
