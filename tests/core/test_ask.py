"""Tasks that are given where they are asked: what is made of them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import emollm
from emollm.core.ask import asked_task, asked_tasks, labels, levels, scale, statements
from emollm.core.errors import ConfigError
from emollm.core.prompts import Question, render
from emollm.core.tasks import TASKS, Kind, Task, references, select_tasks


def test_each_shape_gives_its_kind_and_a_sentence_for_each_answer() -> None:
    one = labels("relief", "dread", "boredom", describe={"dread": "The writer fears what comes."})
    some = labels("relief", "dread", many=True, about="reader")
    steps = levels("urgency", "can wait", "now")
    number = scale("stress", low=0, high=10)
    assert [task.kind for task in (one, some, steps, number)] == [
        Kind.SINGLE_LABEL, Kind.LABEL_SET, Kind.ORDINAL, Kind.REGRESSION,
    ]  # fmt: skip
    assert {task.way for task in (one, some, steps, number)} == {"auto"}
    assert statements(one) == ["The writer feels relief", "The writer fears what comes", "The writer feels boredom"]
    assert statements(some) == ["A reader feels relief", "A reader feels dread"]
    assert statements(steps) == ["The urgency is: can wait", "The urgency is: now"]
    assert len(statements(number)) == 2 and number.high == 10
    assert "relief, dread, boredom" in render(Question(one, "Done!")).prefix
    assert emollm.labels is labels and emollm.scale is scale and emollm.levels is levels


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: labels("relief"), "two or more labels"),
        (lambda: labels(), "labels"),
        (lambda: labels("a, b", "c", many=True), "'a, b' has a comma"),
        (lambda: labels("Joy", "joy"), "differ at most in case"),
        (lambda: labels("joy", "joy\nAnswer: joy"), "line ends"),
        (lambda: labels(*(f"label {n}" for n in range(500))), "500 labels, at most 200"),
        (lambda: labels("x" * 300, "y"), "300 characters"),
        (lambda: labels("a", "b", describe={"c": "It is c."}), "'c', which is not among the labels: a, b"),
        (lambda: labels("a", "b", describe={"a": "It is so.", "b": "it is so."}), "descriptions are equal"),
        (lambda: labels("a", "b", way="magic"), "'magic'; choose from: auto, constrained"),
        (lambda: labels("a", "b", about="cat"), "'writer' or 'reader'"),
        (lambda: labels("a", "b", name="E-c"), "'E-c' is a task of emollm"),
        (lambda: labels("a", "b", name="x y"), "'x y': use letters"),
        (lambda: scale("stress", low=3, high=1), "low < high"),
        (lambda: scale("stress", low=float("nan")), "low < high"),
        (lambda: scale("stress", describe=["none"]), "1 descriptions, expected 2"),
        (lambda: levels("urgency", "now"), "two or more classes"),
        (lambda: asked_task({"name": "x"}), "none of them"),
        (lambda: asked_task({"labels": ["a", "b"], "high": 3}), "labels and low and high"),
        (lambda: asked_task({"labels": "abc"}), "'abc' is not a list"),
        (lambda: asked_task({"lables": ["a"]}), "unknown field 'lables'"),
        (lambda: asked_task({"labels": [1, 2]}), "labels.0"),
        (lambda: asked_tasks("mine.toml"), "no task file at mine.toml"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(make: Callable[[], Task], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_holds_tasks_and_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[task]]\nname = "mood"\nlabels = ["relief", "dread"]\nmany = true\n'
        '[task.descriptions]\nrelief = "A burden is gone."\n'
        '[[task]]\nname = "E-c"\n[[task]]\nname = "stress"\nlow = 0\nhigh = 10\nway = "embedding"\n'
    )
    mood, name, stress = asked_tasks(["V-reg", str(path)])[1:]
    assert isinstance(mood, Task) and isinstance(stress, Task) and name == "E-c"
    assert mood.descriptions == ("A burden is gone.", "The writer feels dread") and stress.way == "embedding"
    path.write_text('[[task]]\nname = "mood"\nlabels = ["relief"]\n')
    with pytest.raises(ConfigError, match=r"mine.toml, task 1 \(mood\): .*two or more labels"):
        asked_tasks(path)
    path.write_text("labels = [")
    with pytest.raises(ConfigError, match="not a readable TOML"):
        asked_tasks(path)
    path.write_text("")
    with pytest.raises(ConfigError, match="holds no"):
        asked_tasks(path)


def test_given_tasks_stand_beside_those_of_the_card() -> None:
    own = labels("relief", "dread")
    chosen = select_tasks(["V-reg", own], [TASKS["V-reg"], TASKS["E-c"]])
    assert [task.name for task in chosen] == ["V-reg", "relief-dread"]
    assert references(chosen) == ("V-reg", own)
    with pytest.raises(ConfigError, match="another task 'relief-dread'; give yours a name"):
        select_tasks([own, labels("Relief", "dread")])
    with pytest.raises(ConfigError, match="cannot be asked together"):
        select_tasks([labels("a", "b", name="stress"), labels("a", "b", name="stress_way")])
