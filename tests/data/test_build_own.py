"""`build_data own`: own labels to a data folder whose tasks the other jobs understand."""

import json
from pathlib import Path

import pytest

from emollm.core.answers import answer_string, parse_answer
from emollm.core.errors import ConfigError, DataError
from emollm.core.folders import read_run
from emollm.core.prompts import questions_for, render
from emollm.core.tasks import Task
from emollm.data.aaid import OwnConfig, build_own
from emollm.data.instructions import gold_value, pieces_of

ELEVEN = (
    "anger",
    "anticipation",
    "disgust",
    "fear",
    "joy",
    "love",
    "optimism",
    "pessimism",
    "sadness",
    "surprise",
    "trust",
)
TOML = f"""
file = "notes.csv"
text = "note"
source = "diary"

[[task]]
name = "Intensity11"
kind = "regression"
low = 0
high = 3
columns = {{ {", ".join(f'{e} = "{e}"' for e in ELEVEN)} }}

[[task]]
name = "Stress"
kind = "ordinal"
column = "stress"
classes = ["calm", "tense", "overwhelmed"]
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    head = ",".join(["note", *ELEVEN, "stress"])
    rows = [f"lamp number {i}," + ",".join(str((i + k) % 4) for k in range(11)) + f",{i % 3}" for i in range(60)]
    (tmp_path / "notes.csv").write_text("\n".join([head, *rows]) + "\n")
    (tmp_path / "own.toml").write_text(TOML)
    return tmp_path / "own.toml"


def test_eleven_intensities_and_a_stress_scale(toml: Path, tmp_path: Path) -> None:
    tables = build_own(OwnConfig(data=toml, out=tmp_path / "data"))
    counts = json.loads((tmp_path / "data" / "manifest.json").read_text())["tables"]
    rows = sum(table["rows"] for table in counts.values())
    assert rows == 60 * (11 + 1) * 3  # three default wordings
    assert set(counts) == {"train", "validation"}
    assert set(counts["train"]["questions"]) == {*(f"Intensity11.{e}" for e in ELEVEN), "Stress"}
    assert {row["source"] for row in tables["train"].to_pylist()} == {"diary"}


def test_tasks_of_run_json_ask_and_parse_what_the_rows_say(toml: Path, tmp_path: Path) -> None:
    tables = build_own(OwnConfig(data=toml, out=tmp_path / "data"))
    run = read_run(tmp_path / "data")
    assert run is not None
    tasks = {task["name"]: Task.model_validate(task) for task in run["tasks"]}
    asked = {question.column: question for question in questions_for("lamp number 3", tuple(tasks.values()))}
    assert len(asked) == 12
    rows = [row for table in tables.values() for row in table.to_pylist() if row["text"] == "lamp number 3"]
    assert len(rows) == 36
    for row in rows:
        task = tasks[row["task"]]
        column = f"{row['task']}.{row['emotion']}" if row["emotion"] else row["task"]
        pieces = render(asked[column], task.templates[row["template"]])
        assert pieces == pieces_of(row)
        gold = gold_value(task, row)
        assert row["answer"] == answer_string(task, gold, row["emotion"])
        assert parse_answer(task, row["answer"]) == pytest.approx(gold, abs=0.002)


def test_one_text_stands_in_one_split(toml: Path, tmp_path: Path) -> None:
    tables = build_own(OwnConfig(data=toml, out=tmp_path / "data"))
    train, validation = (set(tables[name]["text"].to_pylist()) for name in ("train", "validation"))
    assert len(train) + len(validation) == 60
    assert not train & validation


def test_same_inputs_same_bytes(toml: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        build_own(OwnConfig(data=toml, out=tmp_path / name))
    for path in (tmp_path / "one").iterdir():
        if path.name != "run.json":
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_bad_labels_refuse_and_skip(toml: Path, tmp_path: Path) -> None:
    with (tmp_path / "notes.csv").open("a") as file:
        file.write("one more lamp," + ",".join(["7"] + ["1"] * 10) + ",frantic\n")
    with pytest.raises(DataError, match=r"2 bad rows:\n.*notes\.csv:62: '7': 7\.0 is not a number in \[0, 3\]"):
        build_own(OwnConfig(data=toml, out=tmp_path / "data"))
    assert not (tmp_path / "data").exists()
    tables = build_own(OwnConfig(data=toml, out=tmp_path / "data", skip_bad=True))
    assert sum(table.num_rows for table in tables.values()) == 60 * 12 * 3 + 10 * 3


def test_a_test_split_gets_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("note,part,v\na lamp,train,0.5\na chair,test,0.1\n")
    (tmp_path / "own.toml").write_text(
        'file = "notes.csv"\ntext = "note"\nsplit = "part"\n[[task]]\nname = "V-reg"\ncolumn = "v"\n'
    )
    tables = build_own(OwnConfig(data=tmp_path / "own.toml", out=tmp_path / "data", templates_per_example=1))
    assert {name: table.num_rows for name, table in tables.items()} == {"train": 1, "validation": 0, "test": 1}
    assert (tmp_path / "data" / "test.parquet").is_file()


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*own\.toml: No such file"):
        build_own(OwnConfig(data=tmp_path / "own.toml", out=tmp_path / "data"))
    (tmp_path / "own.toml").write_text(TOML)
    with pytest.raises(DataError, match=r"no input at .*notes\.csv"):
        build_own(OwnConfig(data=tmp_path / "own.toml", out=tmp_path / "data"))


def test_too_many_templates_per_example(toml: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="task Intensity11 has 3 templates"):
        build_own(OwnConfig(data=toml, out=tmp_path / "data", templates_per_example=5))


def test_the_example_of_the_docs_builds(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    (tmp_path / "stress.toml").write_text(docs.split("```toml\n")[1].split("```")[0])
    header = ["note_id", "note", *(f"{emotion}_0_10" for emotion in ELEVEN), "stress"]
    (tmp_path / "notes.csv").write_text(",".join(header) + "\nn1,a lamp" + ",7" * 12 + "\n")
    with pytest.raises(DataError, match="no column thread, who"):
        build_own(OwnConfig(data=tmp_path / "stress.toml", out=tmp_path / "data"))
    header += ["thread", "who"]
    rows = [["n1", "a lamp", *["7"] * 10, "", "tense", "", ""], ["n2", "a chair", *["0"] * 11, "2", "in a room", ""]]
    (tmp_path / "notes.csv").write_text("\n".join(map(",".join, [header, *rows])) + "\n")
    build_own(OwnConfig(data=tmp_path / "stress.toml", out=tmp_path / "data"))
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert manifest["unlabelled"] == 1  # n1's trust
    assert sum(table["rows"] for table in manifest["tables"].values()) == (2 * 12 - 1) * 3
    templates = manifest["wording"]["templates"]
    assert set(templates) == {"Intensity11", "Stress"}
    assert "the writer's stress" in templates["Stress"][0]
