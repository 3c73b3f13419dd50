"""Long texts through the job on Ray and through a file: windows, and a row per sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from emollm.annotation.options import AnnotateConfig
from emollm.annotation.pipeline import annotate_corpus
from emollm.annotation.verify import verify
from emollm.commands.annotate import main as annotate
from emollm.core.errors import DataError
from emollm.core.options import ClusterConfig
from emollm.data.files.columns import Columns
from emollm.data.files.inputs import find_files
from emollm.data.files.readers import count_rows, read_rows
from tests.annotation.cheap import cheap_scorer
from tests.commands import refused

POSTS = [
    {"id": "a", "text": "One is here. Two is there! Three?", "lang": "en"},
    {"id": "b", "text": "", "lang": None},
    {"id": "c", "text": "alone", "lang": "pt"},
]


@pytest.fixture
def posts(tmp_path: Path) -> Path:
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in POSTS), encoding="utf-8")
    return path


@pytest.mark.parametrize("id_column", ["id", None])
def test_a_file_is_read_as_sentences_with_ids_that_lead_back(posts: Path, id_column: str | None) -> None:
    source, [file] = find_files(str(posts))
    columns = Columns(id=id_column, text="text", carry=("sentence", "sentence_start"), by_sentence=True)
    [table] = read_rows(source, file, columns)
    assert table["text"].to_pylist() == ["One is here.", "Two is there!", "Three?", "", "alone"]
    assert table["id"].to_pylist() == (["a#1", "a#2", "a#3", "b#1", "c#1"] if id_column else [None] * 5)
    assert table["place"].to_pylist() == [1, 1, 1, 2, 3]
    starts = table["carried.sentence_start"].to_pylist()
    assert [POSTS[0]["text"][a : a + 3] for a in starts[:3]] == ["One", "Two", "Thr"]  # type: ignore[index]
    assert count_rows(source, file, columns) == 5


@pytest.mark.ray
def test_the_job_writes_sentences_and_windows_and_verify_agrees(local_ray: None, posts: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.jsonl"
    whole = " ".join(f"Sentence number {i} of a long text." for i in range(400))
    long.write_text(posts.read_text(encoding="utf-8") + json.dumps({"id": "d", "text": whole}) + "\n", encoding="utf-8")
    for name, path, rows in (("sentences", posts, 5), ("windows", long, 4)):
        config = AnnotateConfig(
            model="smollm2-135m-instruct", input=str(path), out=str(tmp_path / name), tasks=("V-reg", "E-c"),
            carry=("lang",), long=name, cluster=ClusterConfig(num_workers=1),  # type: ignore[arg-type]
        )  # fmt: skip
        annotate_corpus(config, opener=cheap_scorer)
        table = pq.read_table(tmp_path / name)
        assert table.num_rows == rows and verify(str(tmp_path / name)).problems == []
        if name == "sentences":
            assert table["id"].to_pylist()[:3] == ["a#1", "a#2", "a#3"] and table["sentence"].to_pylist()[2] == 3
            assert table["lang"].to_pylist() == ["en", "en", "en", None, "pt"]
        else:
            assert table["windows"].to_pylist()[:3] == [1, 1, 1] and table["windows"].to_pylist()[3] > 1
            assert len(table["v_reg_trajectory"][3].as_py()) == table["windows"][3].as_py()
    with pytest.raises(DataError, match=r"which differs in .*long"):
        annotate_corpus(config.model_copy(update={"max_windows": 2}), opener=cheap_scorer)


def test_a_file_beside_the_input_and_what_does_not_fit(posts: Path, tmp_path: Path, model_directory: Path) -> None:
    common = ["--model", str(model_directory), "--tasks", "V-oc", "--no-ray", "--processes", "1"]
    annotate([str(posts), str(tmp_path / "s.parquet"), "--long", "sentences", *common])
    table = pq.read_table(tmp_path / "s.parquet")
    assert table["id"].to_pylist() == ["a#1", "a#2", "a#3", "b#1", "c#1"] and table["sentence"].to_pylist()[1] == 2
    annotate([str(posts), str(tmp_path / "w.parquet"), "--long", "windows", *common])
    assert pq.read_table(tmp_path / "w.parquet")["windows"].to_pylist() == [1, 1, 1]
    assert "--max-windows 3 needs --long windows" in refused(annotate, str(posts), "--max-windows", "3")
    posts.write_text('{"text": "a", "sentence": 4}\n', encoding="utf-8")
    told = refused(annotate, str(posts), "--carry", "sentence", "--long", "sentences", *common)
    assert "column 'sentence' cannot be carried" in told
