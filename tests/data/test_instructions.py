"""Examples times templates: which rows come of them, in which order, with which golds."""

from pathlib import Path

import pyarrow as pa
import pytest

from emollm.core.errors import ConfigError, DataError
from emollm.core.tasks import TASKS, Value
from emollm.data.corpora.example import Example
from emollm.data.instructions import SCHEMA, build_rows, gold_value, read_rows, write_json_lines, write_rows


def example(task: str, value: Value, text: str = "a lamp", emotion: str | None = None, row: str = "1") -> Example:
    return Example(
        id=row,
        text=text,
        task=task,
        emotion=emotion,
        value=value,
        source="made-up",
        split="train",
        path="x/y.txt",
        line=7,
    )


GOLDS: list[tuple[str, Value, str | None]] = [
    ("EI-reg", 0.731, "joy"),
    ("EmoBank-A", 1.4, None),
    ("EI-oc", 2, "fear"),
    ("V-oc", -3, None),
    ("E-c", ("joy", "anger"), None),
    ("E-c", (), None),
]


def test_one_row_per_example_and_template() -> None:
    table = build_rows([example("EI-reg", 0.5, emotion="joy"), example("V-reg", 0.25)], seed=1)
    assert table.schema == SCHEMA
    rows = table.to_pylist()
    assert len(rows) == 20
    assert {row["id"] for row in rows} == {
        f"made-up/{question}/1/{template}" for question in ("EI-reg.joy", "V-reg") for template in range(10)
    }
    row = next(row for row in rows if row["id"] == "made-up/EI-reg.joy/1/1")
    instruction = row["prefix"] + row["post"] + row["suffix"]
    assert instruction == f"Task: {TASKS['EI-reg'].templates[1]} Tweet: a lamp. Emotion E: joy. Intensity Score: "
    kept = {
        name: row[name] for name in ("answer", "text", "source", "split", "file", "line", "value", "unit", "labels")
    }
    assert kept == {
        "answer": "0.5", "text": "a lamp", "source": "made-up", "split": "train", "file": "y.txt", "line": 7,
        "value": 0.5, "unit": 0.5, "labels": None,
    }  # fmt: skip


@pytest.mark.parametrize(("task", "value", "emotion"), GOLDS)
def test_gold_values_survive_a_round_trip(task: str, value: Value, emotion: str | None) -> None:
    (row,) = build_rows([example(task, value, emotion=emotion)], seed=1, templates_per_example=1).to_pylist()
    assert gold_value(TASKS[task], row) == value
    assert type(gold_value(TASKS[task], row)) is type(value)


def test_own_range_and_unit_form_stand_side_by_side() -> None:
    (row,) = build_rows([example("EmoBank-A", 1.4)], seed=1, templates_per_example=1).to_pylist()
    assert (row["value"], row["answer"]) == (1.4, "0.1")
    assert row["unit"] == pytest.approx(0.1)


def test_seed_fixes_order_and_draw() -> None:
    examples = [example("V-reg", i / 40, f"lamp {i}", row=str(i)) for i in range(41)]
    one, again, other = (build_rows(examples, seed=seed, templates_per_example=2) for seed in (1, 1, 2))
    assert one == again
    assert one["id"].to_pylist() != other["id"].to_pylist()
    drawn = {}
    for row in one.to_pylist():
        drawn.setdefault(row["text"], set()).add(row["template"])
    assert all(len(templates) == 2 for templates in drawn.values())
    assert len({frozenset(templates) for templates in drawn.values()}) > 10  # each example draws its own


def test_without_shuffle_examples_keep_their_order() -> None:
    examples = [example("V-reg", 0.5, f"lamp {i}", row=str(i)) for i in range(30)]
    table = build_rows(examples, seed=1, templates_per_example=1, shuffle=False)
    assert table["text"].to_pylist() == [e.text for e in examples]


def test_more_templates_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--templates-per-example 11: task V-reg has 10 templates"):
        build_rows([example("V-reg", 0.5)], seed=1, templates_per_example=11)
    assert build_rows([example("SST", 0.5)], seed=1, templates_per_example=None).num_rows == 3


def test_no_examples_make_an_empty_table() -> None:
    assert build_rows([], seed=1).schema == SCHEMA


def test_data_folder_is_read_back(tmp_path: Path) -> None:
    examples = [example(task, value, emotion=emotion, row=str(i)) for i, (task, value, emotion) in enumerate(GOLDS)]
    table = build_rows(examples, seed=1, templates_per_example=1)
    write_rows(table, tmp_path / "train.parquet")
    assert read_rows(tmp_path, "train").to_pylist() == table.to_pylist()


def test_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no .*train\.parquet; build it: emollm build-data"):
        read_rows(tmp_path, "train")
    write_rows(pa.table({"id": ["x"]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"lacks the columns answer, bridge, context, emotion.*build-data"):
        read_rows(tmp_path, "train")
    with pytest.raises(DataError, match=r"train\.parquet is a file and not a data folder; .* emollm build-data own"):
        read_rows(tmp_path / "train.parquet", "train")
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_rows(tmp_path, "train")


def test_json_lines_have_the_published_forms(tmp_path: Path) -> None:
    table = build_rows([example("EmoBank-A", 1.4, 'a "lamp"')], seed=1, templates_per_example=1)
    write_json_lines(table, tmp_path / "x.jsonl", conversations=False)
    line = (tmp_path / "x.jsonl").read_text()
    assert '"input": "", "output": 1.4}' in line
    assert '\\"lamp\\" Intensity Score: "' in line
    write_json_lines(table, tmp_path / "y.jsonl", conversations=True)
    assert '{"from": "assistant", "value": "0.1"}' in (tmp_path / "y.jsonl").read_text()
