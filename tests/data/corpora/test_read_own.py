"""Own labels: a TOML over CSV, JSON lines or Parquet."""

import json
from pathlib import Path
from textwrap import dedent

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emollm.core.errors import ConfigError, DataError
from emollm.core.tasks import TASKS, Kind, load_tasks
from emollm.data.corpora.example import BadRow
from emollm.data.corpora.own import read_own

STRESS = """
    file = "notes.csv"
    text = "note"
    id = "id"
    split = "part"

    [[task]]
    name = "Stress"
    kind = "ordinal"
    column = "stress"
    classes = ["calm", "tense", "overwhelmed"]
"""
NOTES = """\
id,part,note,stress
n1,train,"the lamp, again",calm
n2,train,three lamps,2
n3,validation,no lamps,1.0
n4,test,one lamp,tense
"""


def write(folder: Path, toml: str, **files: str) -> Path:
    (folder / "own.toml").write_text(dedent(toml), encoding="utf-8")
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return folder / "own.toml"


def test_ordinal_by_phrase_or_number(tmp_path: Path) -> None:
    found = read_own(write(tmp_path, STRESS, notes_csv=NOTES))
    assert [(e.id, e.split, e.value, e.line) for e in found.examples] == [
        ("n1", "train", 0, 2),
        ("n2", "train", 2, 3),
        ("n3", "dev", 1, 4),
        ("n4", "test", 1, 5),
    ]
    (task,) = found.tasks
    assert (task.name, task.kind, task.metric, task.title) == ("Stress", Kind.ORDINAL, "pearson", "stress")
    assert all("stress" in template for template in task.templates)
    assert found.files == [tmp_path / "notes.csv"]


def test_one_column_per_emotion(tmp_path: Path) -> None:
    toml = """
        file = "notes.csv"
        text = "note"
        [[task]]
        name = "Strength"
        kind = "regression"
        low = 0
        high = 10
        columns = { joy = "joy_0_10", trust = "trust_0_10" }
        blank = "skip"
    """
    notes = "note,joy_0_10,trust_0_10\na lamp,7.5,\na chair,0,10\n"
    found = read_own(write(tmp_path, toml, notes_csv=notes))
    assert [(e.id, e.emotion, e.value) for e in found.examples] == [
        ("2", "joy", 7.5),
        ("3", "joy", 0.0),
        ("3", "trust", 10.0),
    ]
    assert found.unlabelled == 1
    assert found.tasks[0].emotions == ("joy", "trust")


def test_one_row_per_text_and_emotion(tmp_path: Path) -> None:
    toml = """
        file = "notes.csv"
        text = "note"
        id = "id"
        [[task]]
        name = "Strength"
        kind = "regression"
        low = 0
        high = 1
        emotions = ["joy", "fear"]
        column = "score"
        emotion_column = "emotion"
    """
    notes = "id,note,emotion,score\n1,a lamp,joy,0.5\n1,a lamp,fear,0.1\n1,a lamp,joy,0.6\n1,a lamp,envy,0.6\n"
    bad: list[BadRow] = []
    found = read_own(write(tmp_path, toml, notes_csv=notes), bad=bad)
    assert [(e.id, e.emotion) for e in found.examples] == [("1.joy", "joy"), ("1.fear", "fear")]
    assert [row.line for row in bad] == [4, 5]
    assert "duplicate id" in bad[0].reason
    assert "unknown emotion 'envy'" in bad[1].reason


@pytest.mark.parametrize("form", ["csv", "marks", "jsonl", "parquet"])
def test_label_sets_in_every_form(tmp_path: Path, form: str) -> None:
    label = (
        'columns = { joy = "joy", fear = "fear" }' if form == "marks" else 'column = "felt"\nlabels = ["joy", "fear"]'
    )
    name = {"marks": "notes.csv"}.get(form, f"notes.{form}")
    toml = f'file = "{name}"\ntext = "note"\n[[task]]\nname = "Felt"\nkind = "label-set"\n{label}\n'
    records = [{"note": "a lamp", "felt": ["fear", "joy"]}, {"note": "a chair", "felt": []}]
    path = tmp_path / name
    match form:
        case "csv":
            path.write_text('note,felt\na lamp,"fear, joy"\na chair,\n')
        case "marks":
            path.write_text("note,joy,fear\na lamp,1,1\na chair,0,0.0\n")
        case "jsonl":
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(records), path)
    found = read_own(write(tmp_path, toml))
    assert [(e.text, set(e.value)) for e in found.examples] == [("a lamp", {"joy", "fear"}), ("a chair", set())]  # type: ignore[arg-type]
    assert found.tasks[0].labels == ("joy", "fear")


def test_equal_texts_are_drawn_into_the_same_split(tmp_path: Path) -> None:
    toml = """
        file = "notes.csv"
        text = "note"
        validation = 0.3
        [[task]]
        name = "Topic"
        kind = "single-label"
        labels = ["lamp", "chair"]
        column = "topic"
    """
    notes = "note,topic\n" + "".join(f"note {i % 500},lamp\n" for i in range(1000))
    path = write(tmp_path, toml, notes_csv=notes)
    examples = read_own(path).examples
    split_of = {e.text: e.split for e in examples}
    assert all(split_of[e.text] == e.split for e in examples)
    # 500 draws at 0.3: 150 expected, standard deviation 10.
    assert 110 < sum(split == "dev" for split in split_of.values()) < 190
    assert {e.text: e.split for e in read_own(path, seed=1).examples} != split_of


def test_one_file_per_split(tmp_path: Path) -> None:
    toml = STRESS.replace('"notes.csv"', '{ train = "a.csv", validation = "b.csv" }').replace('split = "part"', "")
    path = write(tmp_path, toml, a_csv=NOTES, b_csv=NOTES)
    assert [e.split for e in read_own(path).examples] == ["train"] * 4 + ["dev"] * 4


def test_labels_for_a_task_of_ours_need_only_its_name(tmp_path: Path) -> None:
    toml = 'file = "notes.csv"\ntext = "note"\n[[task]]\nname = "V-reg"\ncolumn = "v"\n'
    found = read_own(write(tmp_path, toml, notes_csv="note,v\na lamp,0.5\n"))
    assert found.tasks == (TASKS["V-reg"],)


def test_tasks_survive_the_way_through_run_json(tmp_path: Path) -> None:
    (task,) = read_own(write(tmp_path, STRESS, notes_csv=NOTES)).tasks
    assert type(task).model_validate(json.loads(task.model_dump_json())) == task
    assert load_tasks(Path(__file__).parents[3] / "emollm" / "core" / "tasks.toml")  # and ours have the same form


def test_bad_rows_are_reported_together(tmp_path: Path) -> None:
    notes = NOTES + "n1,train,twice,0\nn5,exam,a lamp,0\nn6,train,a lamp,frantic\nn7,train,,0\nn8,train,a lamp,\n"
    with pytest.raises(DataError) as error:
        read_own(write(tmp_path, STRESS, notes_csv=notes))
    path = tmp_path / "notes.csv"
    assert str(error.value).splitlines() == [
        "5 bad rows:",
        f"{path}:6: 'n1': duplicate id, first on line 2",
        f"{path}:7: 'exam': unknown split; choose from: train, dev, validation, valid, val, test",
        f"{path}:8: 'frantic': not a whole number",
        f"{path}:9: '': empty text",
        f"{path}:10: '': empty label; if that means not labelled, set blank = \"skip\"",
    ]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_missing_column_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"notes.{suffix}"
    records = [{"id": "n1", "part": "train", "text": "a lamp", "stress": 1}]
    match suffix:
        case "csv":
            path.write_text("id,part,text,stress\nn1,train,a lamp,1\n")
        case "jsonl":
            path.write_text(json.dumps(records[0]) + "\n")
        case "parquet":
            pq.write_table(pa.Table.from_pylist(records), path)
    with pytest.raises(DataError, match=r"no (column|field) note"):
        read_own(write(tmp_path, STRESS.replace("notes.csv", path.name)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('kind = "ordinal"', 'kind = "ordnal"', "kind 'ordnal'; choose from: regression, ordinal"),
        ('column = "stress"', "", "give one of `column`, `columns`, `raters` and `counts`"),
        ('name = "Stress"', 'name = "a/b"', "name 'a/b': use letters"),
        ('name = "Stress"', 'name = "V-oc"', "'V-oc' is a task of emollm"),
        ('text = "note"', "", "text: is required"),
        ('text = "note"', 'txt = "note"', "txt: is not the name"),
        ('classes = ["calm", "tense", "overwhelmed"]', "", "needs two or more classes"),
        ('file = "notes.csv"', 'file = "notes.xlsx"', r"ends in \.csv, \.jsonl or \.parquet, not '\.xlsx'"),
        ('file = "notes.csv"', 'file = "notes.csv', "not a readable TOML file"),
        ("[[task]]", "[tusk]", r"has no \[\[task\]\]"),
    ],
)
def test_a_wrong_toml_is_one_clear_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in STRESS
    with pytest.raises(ConfigError, match=message) as error:
        read_own(write(tmp_path, STRESS.replace(old, new), notes_csv=NOTES, notes_xlsx=""))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", ["label-set", "single-label", "ordinal"])
def test_true_and_false_are_labels(tmp_path: Path, form: str, kind: str) -> None:
    where = {
        "label-set": 'columns = { joy = "joy" }',
        "single-label": 'column = "joy"\nlabels = ["true", "false"]',
        "ordinal": 'column = "joy"\nclasses = ["no", "yes"]',
    }
    toml = f'file = "notes.{form}"\ntext = "note"\n[[task]]\nname = "Felt"\nkind = "{kind}"\n{where[kind]}\n'
    records = [{"note": "a lamp", "joy": True}, {"note": "a chair", "joy": False}]
    match form:
        case "csv":
            (tmp_path / "notes.csv").write_text("note,joy\na lamp,True\na chair,False\n")
        case "jsonl":
            (tmp_path / "notes.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(records), tmp_path / "notes.parquet")
    values = {"label-set": [("joy",), ()], "single-label": ["true", "false"], "ordinal": [1, 0]}
    assert [e.value for e in read_own(write(tmp_path, toml)).examples] == values[kind]


def test_any_file_of_posts_may_hold_labels(tmp_path: Path) -> None:
    toml = STRESS.replace("notes.csv", "NOTES.TSV").replace("[[task]]", 'encoding = "windows-1252"\n    [[task]]', 1)
    text = "id\tpart\tnote\tstress\nn1\ttrain\tcaf\xe9\tcalm\n"
    (tmp_path / "NOTES.TSV").write_bytes(text.encode("windows-1252"))
    assert [e.text for e in read_own(write(tmp_path, toml)).examples] == ["caf\xe9"]


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        (NOTES.splitlines()[0] + "\n", "no row has a label for Stress; see notes.csv"),
        (NOTES.replace("part,note", "part,note,note"), "has two columns 'note'; rename one"),
        (NOTES + NOTES, "repeated header"),
        ("", "no column id, note, part, stress|no column note, id, part, stress"),
    ],
)
def test_a_file_without_use_is_one_clear_line(tmp_path: Path, notes: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_own(write(tmp_path, STRESS, notes_csv=notes))


@pytest.mark.parametrize(("first", "second"), [("my-task", "my_task"), ("v_reg", "Stress")])
def test_tasks_with_one_column_are_refused(tmp_path: Path, first: str, second: str) -> None:
    task = STRESS[STRESS.index("    [[task]]") :]
    toml = STRESS.replace('"Stress"', f'"{first}"') + task.replace('"Stress"', f'"{second}"')
    with pytest.raises(ConfigError, match="column"):
        read_own(write(tmp_path, toml, notes_csv=NOTES))
