"""Context and target from a corpus into its data folder, and from there to what is trained and evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from emollm.core.errors import DataError
from emollm.core.heads_card import FeatureSpec, Prompt
from emollm.core.prompts import Post
from emollm.data.aaid import OwnConfig, build_own
from emollm.data.corpora.emobank import read_perspectives
from emollm.data.corpora.example import BadRow
from emollm.data.corpora.tdt import read_tdt
from emollm.data.instructions import pieces_of
from emollm.data.perspectives import PerspectivesConfig, build_perspectives
from emollm.metrics.questions import load_questions
from emollm.models.load import load_base, prompt_encoder
from emollm.scoring.heads.extract import ReadPosts
from emollm.scoring.heads.labels import read_labels, subset
from emollm.training.row_tokens import encode_rows
from tests.tiny import tiny_model

TOML = """
file = "turns.jsonl"
text = "line"
context = "before"
target = "who"
validation = 0.3
[[task]]
name = "mood"
kind = "single-label"
labels = ["calm", "cross"]
column = "mood"
"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    turns = [
        {"line": f"Fine, number {n % 20}.", "before": ["Is it done?", f"Answer {n}"] if n % 2 else None,
         "who": "Ada" if n < 30 else "", "mood": "calm" if n % 3 else "cross"}
        for n in range(40)
    ]  # fmt: skip
    (tmp_path / "turns.jsonl").write_text("\n".join(map(json.dumps, turns)))
    (tmp_path / "turns.toml").write_text(TOML)
    build_own(OwnConfig(data=tmp_path / "turns.toml", out=tmp_path / "data", templates_per_example=1))
    return tmp_path / "data"


def test_two_more_columns_of_own_data_become_pieces_of_the_prompt(built: Path) -> None:
    tables = {name: pa.parquet.read_table(built / f"{name}.parquet") for name in ("train", "validation")}
    rows = [row for table in tables.values() for row in table.to_pylist()]
    assert len(rows) == 40
    both = next(row for row in rows if row["context"] and row["target"])
    assert both["context"].startswith("Is it done? | Answer ") and both["target"] == "Ada"
    text = pieces_of(both).text
    assert f" Context: {both['context']} Text: {both['text']}" in text and " Target: Ada." in text
    plain = next(row for row in rows if not row["context"] and not row["target"])
    assert "Context" not in pieces_of(plain).text and "Target" not in pieces_of(plain).text
    # The same text with another context is another post, for training and for evaluation.
    labelled = read_labels(tables["train"], _tasks(built))
    assert len(labelled.texts) == len(set(labelled.posts)) > len(set(labelled.texts))
    assert labelled.pieces == ("context", "target")
    assert subset(labelled, np.array([0])).posts == labelled.posts[:1]
    questions = load_questions(built, _tasks(built))
    assert {q.target for q in questions} == {"Ada", ""} and any(q.context for q in questions)


def test_training_reads_what_scoring_asks(built: Path, tmp_path: Path) -> None:
    table = pa.parquet.read_table(built / "train.parquet")
    encoder = prompt_encoder(load_base(str(tiny_model("llama", tmp_path / "llama"))))
    for row, encoded in zip(table.to_pylist(), encode_rows(table, encoder), strict=True):
        assert encoded.prompt.tolist() == encoder.prompt(pieces_of(row)).ids
    base, spec = tiny_model("bert", tmp_path / "bert"), FeatureSpec(layer=2, pooling="mean")
    posts = [
        Post("It is fine."),
        Post("It is fine.", "Well?"),
        Post("It is fine.", "", "Ada"),
        Post("It is fine.", "Well?", "Ada"),
    ]
    rows = pa.table({"index": [0, 1, 2, 3], **{name: [getattr(p, name) for p in posts] for name in Post._fields}})

    def read(prompt: Prompt) -> np.ndarray:
        reader = ReadPosts(
            base=str(base), prompt=prompt, feature_specs=[spec], max_post_tokens=64, device="cpu", num_threads=1
        )
        return np.array(reader(rows)["mean_2"].to_pylist())

    alone, both = read(Prompt()), read(Prompt(beside=("context", "target")))
    assert np.allclose(alone, alone[0]) and np.allclose(both[0], alone[0], atol=1e-6)
    assert len({tuple(np.round(row, 4)) for row in both}) == 4


def test_the_target_of_tdt_is_said_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "train.raw").write_text("$T$ was kind today\nthe baker\n1\n")
    [plain], [said] = read_tdt(tmp_path, "train"), read_tdt(tmp_path, "train", with_target=True)
    assert plain.text == said.text == "the baker was kind today"
    assert (plain.target, said.target) == ("", "the baker")


def test_writer_and_reader_are_tasks_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "emobank.csv").write_text('id,split,V,A,D,text\na,train,3,3,3,"Rain, again."\nb,dev,4,3,3,Sun!\n')
    (tmp_path / "writer.csv").write_text("id,V,A,D,N\na,2,3,3,5\nb,4.5,3,3,5\n")
    (tmp_path / "reader.csv").write_text("id,V,A,D,N\na,2.5,3,9,5\nc,3,3,3,5\n")
    bad: list[BadRow] = []
    found = read_perspectives(tmp_path, "train", bad=bad)
    assert [(e.task, e.value) for e in found if e.task.startswith("EmoBank-V")] == [
        ("EmoBank-V-writer", 2.0), ("EmoBank-V-reader", 2.5),
    ]  # fmt: skip
    assert {e.text for e in found} == {"Rain, again."}
    assert [row.reason for row in bad][1] == "no text in emobank.csv has this id" and "9.0" in bad[0].reason
    with pytest.raises(DataError, match="--skip-bad"):
        build_perspectives(PerspectivesConfig(emobank=tmp_path, out=tmp_path / "out"))
    tables = build_perspectives(PerspectivesConfig(emobank=tmp_path, out=tmp_path / "out", skip_bad=True))
    assert {n: t.num_rows for n, t in tables.items()} == {"train": 5, "validation": 3}
    tasks = {task["name"]: task for task in json.loads((tmp_path / "out" / "run.json").read_text())["tasks"]}
    assert tasks["EmoBank-A-reader"]["about"] == "reader" and "a reader" in tasks["EmoBank-A-reader"]["templates"][0]


def _tasks(built: Path) -> list:  # type: ignore[type-arg]
    from emollm.core.tasks import Task

    return [Task.model_validate(task) for task in json.loads((built / "run.json").read_text())["tasks"]]
