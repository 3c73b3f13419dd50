"""Anybody's predictions: every form that values come in, and every way a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emollm.core.errors import ConfigError, DataError
from emollm.core.prompts import Question, render
from emollm.core.tasks import TASKS
from emollm.evaluation.external import RawValue, read_external, read_raw, read_released
from emollm.evaluation.options import EvaluateConfig
from emollm.evaluation.systems import given_systems
from emollm.metrics.predictions import OUT_OF_RANGE, Prediction
from emollm.metrics.questions import GoldQuestion
from emollm.metrics.scores import score_task


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("task", "raw", "reading"),
    [
        ("EI-reg", 0.25, RawValue(0.25)),
        ("EI-reg", " 0.25. ", RawValue(0.25)),
        ("EI-reg", 48, RawValue(out_of_range_value=48.0)),
        ("EI-reg", "48: disgust", RawValue()),
        ("EI-reg", "nan", RawValue()),
        ("EI-reg", True, RawValue()),
        ("VADER-NYT", "-3.5", RawValue(-3.5)),
        ("VADER-NYT", "\N{MINUS SIGN}0.333", RawValue(-0.333)),
        ("VADER-NYT", "- 0.156", RawValue(-0.156)),
        ("VADER-NYT", "\N{EN DASH} .5", RawValue(-0.5)),
        ("EI-reg", ".125", RawValue(0.125)),
        ("V-oc", "\N{MINUS SIGN}2: moderately negative emotional state can be inferred", RawValue(-2)),
        ("EI-oc", "2: moderate amount of joy can be inferred", RawValue(2)),
        ("EI-oc", 2.0, RawValue(2)),
        ("EI-oc", "2.4", RawValue(out_of_range_value=2.4)),
        ("EI-oc", "48: disgust", RawValue(out_of_range_value=48.0)),
        ("SST5", "1: negative", RawValue(1)),
        ("TDT", "-1", RawValue(-1)),
        ("E-c", "anger, disgust.", RawValue(("anger", "disgust"))),
        ("E-c", ["disgust", "anger"], RawValue(("anger", "disgust"))),
        ("E-c", [], RawValue(())),
        ("E-c", "neutral or no emotion.", RawValue(())),
        ("E-c", "anger, hope", RawValue()),
        ("E-c", None, RawValue()),
        ("GoEmotions", "Neutral", RawValue(("neutral",))),
    ],
)
def test_a_value_is_read_in_every_supported_form(task: str, raw: object, reading: RawValue) -> None:
    assert read_raw(TASKS[task], raw) == reading


def test_numbers_in_0_to_1_are_mapped_when_they_are_said_to_be() -> None:
    assert read_raw(TASKS["EmoBank-V"], "0.5", "unit") == RawValue(3.0)
    assert read_raw(TASKS["EmoBank-V"], "1.5", "unit") == RawValue(out_of_range_value=7.0)
    assert read_raw(TASKS["EmoBank-V"], "0.5", "own") == RawValue(out_of_range_value=0.5)


def test_the_emotion_is_read_from_instruction_or_column(tmp_path: Path) -> None:
    asked = render(Question(TASKS["EI-reg"], "what a day", "joy")).text
    rows = [
        {"instruction": asked, "gold": 0.5, "prediction": "0.6"},
        {"instruction": f"Human: \n{asked}\n\nAssistant:\n", "gold": "0.5", "prediction": 0.6},
        {"emotion": "fear", "gold": 0.5, "prediction": 0.6},
    ]
    found = read_external(write(tmp_path / "p.jsonl", rows), task="EI-reg")
    assert [p.question.emotion for p in found] == ["joy", "joy", "fear"]
    assert found[0].question.text == found[1].question.text == "what a day."
    assert [p.value for p in found] == [0.6] * 3
    (by_itself,) = read_external(write(tmp_path / "q.jsonl", rows[:1]))
    assert by_itself.question.task.name == "EI-reg"


def test_parquet_and_a_task_column_are_read_too(tmp_path: Path) -> None:
    table = pa.table({"task": ["E-c", "E-c"], "gold": [["joy"], []], "prediction": [["joy"], ["joy", "nonsense"]]})
    pq.write_table(table, tmp_path / "p.parquet")
    good, bad = read_external(tmp_path / "p.parquet")
    assert (good.value, good.error) == (("joy",), None)
    assert (bad.question.gold, bad.value, bad.error, bad.text) == ((), None, "invalid_answer", "['joy', 'nonsense']")


def test_an_answer_out_of_range_keeps_its_number(tmp_path: Path) -> None:
    (found,) = read_external(write(tmp_path / "p.jsonl", [{"gold": 0.5, "prediction": 48}]), task="V-reg")
    assert (found.value, found.out_of_range_value, found.error, found.text) == (None, 48.0, OUT_OF_RANGE, "48")


@pytest.mark.parametrize(
    ("rows", "task", "message"),
    [
        ([{"gold": 0.5}], "V-reg", r"p.jsonl:1: .*no `prediction`"),
        ([{"prediction": 1}], "V-reg", r"p.jsonl:1: .*no `gold`"),
        ([{"gold": 0.5, "prediction": 1}, {"gold": "", "prediction": 1}], "V-reg", r":2: .*no `gold`"),
        ([{"gold": "2: moderate", "prediction": 1}], "V-reg", "is not a value of V-reg: a file of another task"),
        ([{"gold": 3.2, "prediction": 1}], "V-reg", "gold 3.2 is not a value of V-reg"),
        ([{"gold": 0.5, "prediction": 0.5}], "EI-reg", "which emotion"),
        ([{"gold": 0.5, "prediction": 0.5}], None, "of which task"),
        ([{"task": "V-oc", "gold": 1, "prediction": 1}], "V-reg", "a row of V-oc; this is --task V-reg"),
        ([{"task": "mood", "gold": 1, "prediction": 1}], None, "unknown task 'mood'"),
        ([], "V-reg", "holds no prediction"),
    ],
)
def test_a_wrong_file_is_refused_with_its_lines(
    tmp_path: Path, rows: list[dict[str, Any]], task: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_external(write(tmp_path / "p.jsonl", rows), task=task)


def test_instructions_of_another_task_are_noticed(tmp_path: Path) -> None:
    asked = render(Question(TASKS["V-oc"], "what a day")).text
    with pytest.raises(DataError, match="a row of V-oc; this is --task V-reg"):
        read_external(
            write(tmp_path / "p.jsonl", [{"instruction": asked, "gold": 0.5, "prediction": 0.5}]), task="V-reg"
        )


def test_unreadable_files_and_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown task 'V-rge'; did you mean V-reg\? choose from"):
        read_external(write(tmp_path / "p.jsonl", [{"gold": 1, "prediction": 1}]), task="V-rge")
    (tmp_path / "p.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"predictions .*p.parquet cannot be read"):
        given_systems(EvaluateConfig(predictions=tmp_path / "p.parquet", task="V-reg", out=tmp_path / "o"), None)
    (tmp_path / "p.jsonl").write_text('{"gold": 1}\nnot json\n')
    with pytest.raises(DataError, match=r"p.jsonl:2: 'not json' is not a JSON object"):
        read_external(tmp_path / "p.jsonl", task="V-reg")
    (tmp_path / "p.parquet").write_text("no")
    with pytest.raises(DataError, match="cannot be read"):
        read_external(tmp_path / "p.parquet", task="V-reg")
    with pytest.raises(DataError, match="cannot be read"):
        read_external(tmp_path / "none.jsonl", task="V-reg")


GOLDS = [
    GoldQuestion(id=name, task=TASKS["V-reg"], emotion=None, text="t", gold=gold)
    for name, gold in (("a", 0.1), ("b", 0.5), ("c", 0.9))
]


def values(found: list[Prediction]) -> dict[str, Any]:
    return {p.question.id: p.value for p in found}


def test_rows_in_another_order_are_matched_by_id(tmp_path: Path) -> None:
    rows = [{"id": "c", "prediction": 0.8}, {"id": "a", "prediction": 0.2}, {"id": "b", "prediction": 0.4}]
    found = read_external(write(tmp_path / "p.jsonl", rows), task="V-reg", golds=GOLDS)
    assert values(found) == {"c": 0.8, "a": 0.2, "b": 0.4}
    assert {p.question.id: p.question.gold for p in found} == {"a": 0.1, "b": 0.5, "c": 0.9}


def test_rows_without_ids_are_matched_by_place_and_must_be_all(tmp_path: Path) -> None:
    rows = [{"prediction": value} for value in (0.2, 0.4, 0.8)]
    found = read_external(write(tmp_path / "p.jsonl", rows), task="V-reg", golds=GOLDS)
    assert values(found) == {"a": 0.2, "b": 0.4, "c": 0.8}
    with pytest.raises(DataError, match="2 predictions without ids, the benchmark 3 rows of V-reg"):
        read_external(write(tmp_path / "p.jsonl", rows[:2]), task="V-reg", golds=GOLDS)


def asked(task: str, number: int, emotion: str | None = None, text: str = "") -> GoldQuestion:
    return GoldQuestion(id=f"{task}.{emotion}/{number}", task=TASKS[task], emotion=emotion, text=text, gold=number / 10)


TEXTS = ("What a day", "the train is late", "so so")


@pytest.mark.parametrize(
    ("golds", "rows", "message"),
    [
        (
            [asked("V-reg", i, text=text) for i, text in enumerate(TEXTS)],
            [{"text": text} for text in reversed(TEXTS)],
            r"p.jsonl:1: .*: another text; the benchmark's row 'V-reg.None/0' is 'What a day'",
        ),
        (
            [asked("V-reg", i, text=text) for i, text in enumerate(TEXTS)],
            [{"instruction": render(Question(TASKS["V-reg"], text)).text} for text in (TEXTS[0], TEXTS[2], TEXTS[1])],
            r"2 bad rows:\n.*p.jsonl:2: .*: another text",
        ),
        (
            [asked("EI-reg", i, emotion) for i, emotion in enumerate(("anger", "fear", "joy"))],
            [{"emotion": emotion} for emotion in ("anger", "joy", "fear")],
            r"p.jsonl:2: .*: a row of joy; the benchmark's row 'EI-reg.fear/1' is of fear",
        ),
        (
            [asked("V-reg", 0), asked("SST", 1)],
            [{"task": "SST"}, {"task": "V-reg"}],
            r"p.jsonl:1: .*: a row of SST; the benchmark's row 'V-reg.None/0' is of V-reg",
        ),
    ],
    ids=["text", "instruction", "emotion", "task"],
)
def test_rows_that_are_not_what_they_say_are_refused_with_their_lines(
    tmp_path: Path, golds: list[GoldQuestion], rows: list[dict[str, Any]], message: str
) -> None:
    path = write(tmp_path / "p.jsonl", [{**row, "prediction": 0.5} for row in rows])
    task = None if "task" in rows[0] else golds[0].task.name
    with pytest.raises(DataError, match=message):
        read_external(path, task=task, golds=golds)
    # By id as well: the ids say one thing, the rows another.
    by_id = [{**row, "prediction": 0.5, "id": q.id} for row, q in zip(rows, golds, strict=True)]
    with pytest.raises(DataError, match="the benchmark's row"):
        read_external(write(tmp_path / "p.jsonl", by_id), task=task, golds=golds)


def test_a_text_may_be_spelt_as_another_release_spells_it(tmp_path: Path) -> None:
    rows = [{"text": "``a fine film -lrb- 1999 -rrb-''", "prediction": 0.5}]
    (found,) = read_external(
        write(tmp_path / "p.jsonl", rows), task="SST", golds=[asked("SST", 1, text='"A Fine Film (1999)"')]
    )
    assert found.value == 0.5


def test_a_benchmark_gives_the_rows_of_the_tasks_that_the_file_tells(tmp_path: Path) -> None:
    rows = [{"task": name, "prediction": 0.5} for name in ("V-reg", "SST")]
    golds = [asked("V-reg", 1), asked("SST", 2), asked("EmoBank-V", 30)]
    path = write(tmp_path / "p.jsonl", rows)
    assert list(values(read_external(path, golds=golds))) == ["V-reg.None/1", "SST.None/2"]
    assert list(values(read_external(path, golds=golds, tasks=["SST"]))) == ["SST.None/2"]
    with pytest.raises(DataError, match="holds no prediction of EmoBank-V"):
        read_external(path, golds=golds, tasks=["EmoBank-V"])


def test_golds_in_0_to_1_are_mapped_with_their_predictions(tmp_path: Path) -> None:
    (found,) = read_external(
        write(tmp_path / "p.jsonl", [{"gold": 0.25, "prediction": 0.5}]), task="VADER-NYT", scale="unit"
    )
    assert (found.question.gold, found.value) == (-2.0, 0.0)
    own = write(tmp_path / "p.jsonl", [{"gold": -2.0, "prediction": 0.5}])
    with pytest.raises(DataError, match=r"gold -2\.0 is not a value of VADER-NYT: --scale unit says that golds, too"):
        read_external(own, task="VADER-NYT", scale="unit")


@pytest.mark.parametrize(("task", "own"), [("VADER-NYT", 0.35), ("EmoBank-V", None)])
def test_predictions_all_in_0_to_1_of_another_range_must_be_said_to_be_so(
    tmp_path: Path, task: str, own: float | None
) -> None:
    golds = [asked(task, 10 + i) for i in range(10)]
    path = write(tmp_path / "p.jsonl", [{"prediction": 0.35 + i / 20} for i in range(10)])
    with pytest.raises(DataError, match=rf"all 10 predictions of {task} are in 0..1, its range is .*--scale unit"):
        read_external(path, task=task, golds=golds)
    assert read_external(path, task=task, golds=golds, scale="own")[0].value == own
    assert read_external(path, task=task, golds=golds, scale="unit")[0].value == pytest.approx(
        {"VADER-NYT": -1.2, "EmoBank-V": 2.4}[task]
    )
    read_external(
        write(tmp_path / "q.jsonl", [{"prediction": i / 9} for i in range(10)]),
        task="SST",
        golds=[asked("SST", i) for i in range(10)],
    )


def test_an_emotion_is_ignored_for_a_task_without_emotions(tmp_path: Path) -> None:
    rows = [{"emotion": "joy", "gold": 0.5, "prediction": 0.5}]
    (found,) = read_external(write(tmp_path / "p.jsonl", rows), task="V-reg")
    assert found.question.emotion is None


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b"], "lacks predictions for 1 of 3 rows: c"),
        (["a", "b", "z"], "'z': no row of the benchmark has this id"),
        (["a", "b", "b"], "'b': id seen before, on line 2"),
    ],
)
def test_ids_that_do_not_fit_are_listed(tmp_path: Path, ids: list[str], message: str) -> None:
    rows = [{"id": name, "prediction": 0.5} for name in ids]
    with pytest.raises(DataError, match=message):
        read_external(write(tmp_path / "p.jsonl", rows), task="V-reg", golds=GOLDS)


@pytest.mark.parametrize(
    ("task", "raw", "value"),
    [
        ("EI-reg", "0.48", 0.48),
        ("EI-reg", "Intensity Score: .125, I think", 0.125),
        ("EI-reg", "48: disgust", 1.0),
        ("EI-reg", "- 0.156", 0.0),
        ("EI-reg", "no idea", 0.5),
        ("EI-reg", None, 0.5),
        ("VADER-NYT", "about \N{MINUS SIGN}0.333 or so", -0.333),
        ("VADER-NYT", "none", 0.0),
        ("EmoBank-V", "nothing", 3.0),
        ("EI-oc", "2: moderate amount of joy can be inferred", 2),
        ("EI-oc", "48: disgust", 3),
        ("EI-oc", "joy", 0),
        ("V-oc", "-9", -3),
        ("V-oc", "class-2", 2),  # a hyphen is not a sign
        ("E-c", "anger, disgust, hope.", ("anger", "disgust")),
        ("E-c", "neutral or no emotion.", ()),
        ("E-c", "I cannot say", ()),
    ],
)
def test_the_released_parser_finds_no_answer_invalid(task: str, raw: object, value: object) -> None:
    assert read_released(TASKS[task], raw) == value


def test_the_released_parser_gives_the_published_arithmetic(tmp_path: Path) -> None:
    # Read strictly, three of these five are invalid. Released: 0.2, 0.5 (imputed), 1 (clipped), 0.4, 0.6.
    golds, raws = [0.1, 0.4, 0.9, 0.5, 0.6], ["0.2", "anger", "48: disgust", ".4", "score 0.6"]
    rows = [{"id": i, "gold": g, "prediction": p} for i, (g, p) in enumerate(zip(golds, raws, strict=True))]
    path = write(tmp_path / "p.jsonl", rows)
    found = read_external(path, task="V-reg", parser="released")
    assert [p.value for p in found] == [0.2, 0.5, 1.0, 0.4, 0.6]
    # Deviations from the means .5 and .54: sum of products .33, of squares .34 and .352; .33 / sqrt(.34 * .352).
    assert score_task(found).scores["pearson"] == pytest.approx(0.9539, abs=1e-4)
    assert sum(p.value is None for p in read_external(path, task="V-reg")) == 3
