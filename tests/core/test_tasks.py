"""Affect tasks: what a task file may hold, and what a task accepts as its value."""

import re
from pathlib import Path

import pytest

from emollm.core.card import AffectCard, BaseModelInfo
from emollm.core.errors import ConfigError, DataError
from emollm.core.prompts import fill_template
from emollm.core.tasks import PROFILE, TASKS, Kind, Task, load_tasks, select_tasks

AAID_TASKS = PROFILE
BASE = BaseModelInfo(name="none", architecture="decoder", licence="", fingerprint="")
AEB_RANGES = {
    "EI-reg": (0, 1), "Intensity": (0, 1), "V-reg": (0, 1), "SST": (0, 1),
    "EmoBank-V": (1, 5), "EmoBank-A": (1, 5), "EmoBank-D": (1, 5),
    "VADER-Amazon": (-4, 4), "VADER-Movie": (-4, 4), "VADER-NYT": (-4, 4), "VADER-Tweets": (-4, 4),
}  # fmt: skip


def test_profile_is_eleven_questions() -> None:
    assert PROFILE == ("EI-reg", "EI-oc", "V-reg", "V-oc", "E-c")
    assert sum(len(TASKS[name].emotions) or 1 for name in PROFILE) == 11


def test_regressions_have_their_corpus_range() -> None:
    assert {n: (t.low, t.high) for n, t in TASKS.items() if t.kind is Kind.REGRESSION} == AEB_RANGES


def test_classes_and_labels() -> None:
    values = {name: [c.value for c in TASKS[name].classes] for name in ("EI-oc", "V-oc", "SST5", "TDT")}
    assert values == {"EI-oc": [0, 1, 2, 3], "V-oc": [*range(-3, 4)], "SST5": [*range(5)], "TDT": [-1, 0, 1]}
    assert [len(TASKS[name].labels) for name in ("E-c", "GoEmotions", "GoEmotions-28")] == [11, 7, 28]
    assert TASKS["E-c"].labels == tuple(sorted(TASKS["E-c"].labels))


def test_aaid_tasks_have_ten_different_wordings() -> None:
    for name in AAID_TASKS:
        assert len(set(TASKS[name].templates)) == 10
    assert all(len(set(t.templates)) == len(t.templates) >= 3 for t in TASKS.values())


def test_wordings_name_what_the_question_needs() -> None:
    for task in TASKS.values():
        for template in task.templates:
            assert ("E" in re.findall(r"\b[A-Z]\b", template)) == bool(task.emotions), template
            match task.kind:
                case Kind.REGRESSION:
                    # Models are asked in 0..1 whatever the corpus's own range is.
                    ends = {r"(0|Zero)", r"(1|one)"}
                case Kind.ORDINAL:
                    ends = {rf"(?<!\d){task.classes[0].value}", str(task.classes[-1].value)}
                case _:
                    ends = set(task.labels)
            filled = fill_template(task, template)
            assert all(re.search(rf"{end}\b", filled) for end in ends) or template == task.templates[0], template
        assert task.question.endswith(" ")


@pytest.mark.parametrize(
    ("task", "value"),
    [
        ("EmoBank-V", 0.9), ("EmoBank-V", 5.1), ("SST", -0.1), ("VADER-NYT", float("nan")), ("EI-reg", True),
        ("EI-oc", 4), ("V-oc", -4), ("TDT", True), ("SST5", "2"),
        ("E-c", ("envy",)), ("E-c", "joy"), ("GoEmotions", ("love",)),
    ],
)  # fmt: skip
def test_value_that_is_none_of_the_tasks_is_refused(task: str, value: float | int | str | tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=re.escape(task)):
        TASKS[task].check_value(value)


@pytest.mark.parametrize(
    ("task", "value"),
    [
        ("EmoBank-V", 1),
        ("EmoBank-V", 5.0),
        ("VADER-NYT", -4.0),
        ("EI-oc", 0),
        ("E-c", ()),
        ("GoEmotions", ("neutral",)),
    ],
)
def test_ends_of_the_range_are_values(task: str, value: float | int | tuple[str, ...]) -> None:
    TASKS[task].check_value(value)


def test_emotion_is_one_of_the_tasks() -> None:
    TASKS["EI-reg"].check_emotion("joy")
    TASKS["V-reg"].check_emotion(None)
    with pytest.raises(DataError, match="unknown emotion 'envy' for EI-reg; choose from: anger, fear, joy, sadness"):
        TASKS["EI-reg"].check_emotion("envy")
    with pytest.raises(DataError, match="takes no emotion"):
        TASKS["V-reg"].check_emotion("joy")


def test_selection_keeps_order_and_lists_choices() -> None:
    assert [t.name for t in select_tasks(["V-reg", "profile"])] == ["V-reg", "EI-reg", "EI-oc", "V-oc", "E-c"]
    with pytest.raises(ConfigError, match=r"unknown task 'V-rg'; did you mean V-reg\? choose from: EI-reg"):
        select_tasks(["V-rg"])


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("", r"has no \[\[task\]\]"),
        ("[[task]]\nname = 'X'", "task 1 .X.*kind: is required"),
        ("[[task", "not a readable TOML"),
    ],
)
def test_wrong_task_file_is_named(tmp_path: Path, toml: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(toml)
    with pytest.raises(ConfigError, match=message):
        load_tasks(path)
    with pytest.raises(ConfigError, match="no task file at"):
        load_tasks(tmp_path / "nowhere.toml")


def test_a_task_of_a_kind_needs_its_parts() -> None:
    entry = {**TASKS["EmoBank-V"].model_dump(), "name": "X"}
    with pytest.raises(ValueError, match="needs low < high"):
        Task.model_validate({**entry, "low": 5.0, "high": 1.0})
    with pytest.raises(ValueError, match="needs two or more classes"):
        Task.model_validate({**entry, "kind": "ordinal"})


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("E-c", {"labels": ("joy, mild", "fear")}, "'joy, mild' has a comma"),
        ("E-c", {"labels": ("Joy", "joy")}, "'joy' and 'Joy' differ at most in case"),
        (
            "E-c",
            {"labels": ("joy", "None"), "no_label": "none"},
            "'none' and 'None' differ at most in case; rename no_l",
        ),
        ("E-c", {"labels": ("joy.", "fear")}, "'joy.' is empty, or has blanks"),
        ("TDT", {"classes": ({"value": 0, "phrase": "low {x}"}, {"value": 1, "phrase": "b"})}, "'low {x}' may have no"),
        ("EI-oc", {"classes": ({"value": 0, "phrase": "{x}"}, {"value": 1, "phrase": "b"})}, "may have {emotion} in"),
        ("TDT", {"classes": ({"value": 0, "phrase": "{"}, {"value": 1, "phrase": "b"})}, "write a brace as {{"),
        ("V-reg", {"high": float("inf")}, "low and high must be finite"),
        ("EI-reg", {"emotions": ("joy", "Joy")}, "two of its emotions have the same column"),
        ("V-reg", {"name": "Error"}, "column 'error' is that of Error and of every output"),
    ],
)
def test_a_task_whose_answers_could_not_be_told_apart_is_refused(
    task: str, change: dict[str, object], message: str
) -> None:
    entry = {**TASKS[task].model_dump(), "name": "Mine", **change}
    with pytest.raises(ValueError, match=re.escape(message)):
        Task.model_validate(entry)


def test_tasks_whose_columns_fold_together_are_not_asked_together() -> None:
    mine = [TASKS["V-reg"].model_copy(update={"name": name}) for name in ("my-task", "my_task", "v_reg", "v-reg-std")]
    for tasks in ([mine[0], mine[1]], [TASKS["V-reg"], mine[2]], [TASKS["V-reg"], mine[3]]):
        with pytest.raises(ConfigError, match=r"cannot be asked together: column .* is that of"):
            select_tasks([task.name for task in tasks], tasks)
        with pytest.raises(ValueError, match="is that of"):
            AffectCard(name="m", base=BASE, tasks=tuple(tasks))
    assert len(select_tasks(["my-task"], mine)) == 1
