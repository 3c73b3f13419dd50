"""The output folder: cleanup after a crash, one run at a time, and detection of damage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emollm.annotation.blocks import block_size, pending_blocks
from emollm.annotation.estimate import beside
from emollm.annotation.finish import finish, reopen
from emollm.annotation.identity import differences
from emollm.annotation.lock import STALE_S, locked
from emollm.annotation.output import ROW, Committed, OutputFolder
from emollm.annotation.stage import Corpus, Staged
from emollm.annotation.verify import verify
from emollm.core.digest import model_digest
from emollm.core.errors import DataError
from emollm.core.tasks import select_tasks
from emollm.data.files.carry import common_type, json_kinds, to_type, type_from_text, type_to_text
from emollm.scoring.extras import NO_EXTRAS
from emollm.scoring.rows import AnnotatePosts
from tests.annotation.cheap import cheap_scorer
from tests.conftest import ROOT

TASKS = select_tasks(("V-reg", "V-oc", "E-c"))
IDENTITY: dict[str, Any] = {
    "model": "m", "tasks": [t.name for t in TASKS], "wording": "w", "engine": "e", "code": "0", "input": "i",
    "columns": ["id", "text"], "max_posts": None,
}  # fmt: skip


def scored(first: int, stop: int, *, bad: int | None = None) -> pa.Table:
    texts = ["" if i == bad else f"<b>post</b> {i}" for i in range(first, stop)]
    table = pa.table({ROW: range(first, stop), "id": [f"p{i}" for i in range(first, stop)], "text": texts})
    rows = AnnotatePosts(tasks=tuple(t.name for t in TASKS), model="m", engine="e", opener=cheap_scorer)(table)
    return rows.drop_columns(["id", "text"])


def staged(output: OutputFolder, posts: int) -> Corpus:
    texts = ["" if i == 7 else f"<b>post</b> {i}" for i in range(posts)]
    table = pa.table({"id": [f"p{i}" for i in range(posts)], "text": texts, "problem": pa.nulls(posts, pa.string())})
    pq.write_table(table, f"{output.posts}/posts-000000.parquet", row_group_size=4)
    return Corpus(files=(Staged("posts-000000.parquet", 0, posts),), carried={})


def finished(tmp_path: Path, posts: int = 30) -> OutputFolder:
    output = OutputFolder(str(tmp_path / "out"))
    output.open_job(IDENTITY, overwrite=False)
    for first in range(0, posts, 10):
        output.commit_rows(f"a_{first:06}", scored(first, first + 10, bad=7))
    corpus = staged(output, posts)
    committed = output.committed(np.zeros(posts, bool))
    finish(
        output, corpus, committed, identity=IDENTITY, tasks=TASKS, file_posts=12, check=lambda: None,
        summary={"seconds": 1.0}, config={"input": "nowhere", "max_posts": None}, extras=NO_EXTRAS,
    )  # fmt: skip
    return output


def test_a_commit_interrupted_by_a_crash_is_cleaned_up(tmp_path: Path) -> None:
    output = OutputFolder(str(tmp_path / "out"))
    output.open_job(IDENTITY, overwrite=False)
    for number in range(6):
        output.commit_rows(f"a_{number:06}", scored(number * 10, number * 10 + 10, bad=55))
    blocks, commits = Path(output.blocks), Path(output.commits)
    (commits / "a_000001.parquet").rename(commits / "a_000001.pending.parquet")  # died before the commit
    (blocks / "a_000002-0.parquet").unlink()  # committed, done again by Ray, died over it: the file is gone
    (commits / "a_000003.pending.parquet").write_bytes((commits / "a_000003.parquet").read_bytes())
    (blocks / "a_000004-0.parquet").write_bytes(b"PAR1 half")
    (blocks / "a_000099-0.parquet").write_bytes(b"nobody's")
    done = np.zeros(60, bool)
    assert output.committed(done) == [
        Committed(str(blocks / "a_000000-0.parquet"), low=0, high=9, good=10),
        Committed(str(blocks / "a_000005-0.parquet"), low=50, high=59, good=9),
    ]
    assert np.flatnonzero(done).tolist() == [*range(10), *range(50, 60)]
    assert sorted(p.name for p in blocks.iterdir()) == ["a_000000-0.parquet", "a_000005-0.parquet"]
    assert sorted(p.name for p in commits.iterdir()) == ["a_000000.parquet", "a_000005.parquet"]


def test_a_commit_is_told_from_one_whose_name_it_begins(tmp_path: Path) -> None:
    output = OutputFolder(str(tmp_path / "out"))
    output.open_job(IDENTITY, overwrite=False)
    for number, name in enumerate(("a", "a-b", "a-b-0")):
        output.commit_rows(name, scored(number * 10, number * 10 + 10))
    assert [block.low for block in output.committed(np.zeros(30, bool))] == [20, 10, 0]


def test_a_dry_run_writes_beside_the_output_or_into_a_bucket() -> None:
    for out, start, end in (
        ("out", ".out.dry-run-", ""),
        ("/data/out/", "/data/.out.dry-run-", ""),
        ("file:///out", "file:///.out.dry-run-", ""),
        ("s3://bucket/out", "s3://bucket/.out.dry-run-", ""),
        ("s3://bucket", "s3://bucket/.dry-run-", ""),
        ("s3://bucket?region=eu-west-1", "s3://bucket/.dry-run-", "?region=eu-west-1"),
    ):
        assert beside(out).startswith(start) and beside(out).endswith(end) and beside(out).count("?") == len(end) // 16


def test_only_the_same_job_continues_and_the_refusal_says_what_differs(tmp_path: Path) -> None:
    OutputFolder(str(tmp_path)).open_job(IDENTITY, overwrite=False)
    OutputFolder(str(tmp_path)).open_job(IDENTITY, overwrite=False)
    for part in IDENTITY:
        other = IDENTITY | {part: ["changed"]}
        with pytest.raises(DataError, match=f"which differs in {part}.*--overwrite"):
            OutputFolder(str(tmp_path)).open_job(other, overwrite=False)
    assert differences(IDENTITY, IDENTITY | {"code": "1", "model": "n"}) == "model, code (0 then, 1 now)"
    OutputFolder(str(tmp_path)).keep_scored(7)
    OutputFolder(str(tmp_path)).open_job(IDENTITY, overwrite=True)  # unfinished: the same command continues
    assert OutputFolder(str(tmp_path)).scored_before() == 7
    OutputFolder(str(tmp_path)).open_job(IDENTITY | {"code": "1"}, overwrite=True)
    assert OutputFolder(str(tmp_path)).scored_before() == 0


def test_the_model_digest_depends_on_files_and_not_on_their_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.safetensors").write_bytes(b"0123456789" * 400_000)
        (tmp_path / name / "affect.json").write_text("{}")
        (tmp_path / name / "run.json").write_text(name)
    first, second = (model_digest(str(tmp_path / name)) for name in ("a", "b"))
    assert first == second != model_digest("a-name-of-the-registry")
    (tmp_path / "b" / "affect.json").write_text("{ }")
    assert model_digest(str(tmp_path / "b")) != first


def test_blocks_cover_the_rows_that_are_not_done() -> None:
    corpus = Corpus((Staged("a", 0, 10), Staged("b", 10, 5)), carried={})
    done = np.zeros(15, bool)
    done[[0, 4, 5, 12]] = True
    assert [(b.file.name, b.spans) for b in pending_blocks(corpus, done, 4)] == [
        ("a", ((1, 4), (6, 7))),
        ("a", ((7, 10),)),
        ("b", ((0, 2), (3, 5))),
    ]
    assert block_size(100, asked=None, workers=5, on_gpu=False, engine="heads") == 5
    assert block_size(100_000, asked=None, workers=2, on_gpu=False, engine="heads") == 256
    assert block_size(100_000, asked=None, workers=2, on_gpu=True, engine="constrained") == 2048
    assert block_size(1_000_000, asked=None, workers=2, on_gpu=True, engine="heads") == 16_384
    assert block_size(50_000_000, asked=None, workers=8, on_gpu=True, engine="constrained") == 2500
    assert block_size(100, asked=64, workers=5, on_gpu=True, engine="heads") == 64


def test_carried_columns_have_one_type_in_all_files() -> None:
    def of_json(*texts: str | None) -> pa.DataType:
        return common_type("x", {}, frozenset(json_kinds(texts)))

    def of_files(*types: pa.DataType) -> pa.DataType:
        return common_type("x", {type_: f"file {i}" for i, type_ in enumerate(types)}, frozenset())

    assert of_json("1", "-2", None, "123456789012345678") == pa.int64()
    assert of_json("1", "2.5") == pa.float64()
    assert of_json("true") == pa.bool_()
    assert of_json("true", "1", '"a"', "123456789012345678901") == pa.string()
    assert of_json("1.5", "1234567890123456") == pa.string()
    assert of_files(pa.int32(), pa.null()) == pa.int32()
    assert of_files(pa.int32(), pa.int64()) == pa.string()
    for no_text in (pa.list_(pa.int32()), pa.binary()):
        with pytest.raises(DataError, match=r"column 'x' is int32 in file 0 and .* in file 1"):
            of_files(pa.int32(), no_text)
    mixed = to_type(pa.array(['"a"', "1", '{"b": 2}', None, '"\\ud83d"']), pa.string(), is_json=True)
    assert mixed.to_pylist() == ["a", "1", '{"b": 2}', None, "?"]
    assert to_type(pa.array(["1", None]), pa.int64(), is_json=True).to_pylist() == [1, None]
    nested = pa.struct([("a", pa.list_(pa.timestamp("us", "UTC")))])
    assert type_from_text(type_to_text(nested)) == nested


def test_a_finished_output_verifies_and_shows_its_posts_escaped(tmp_path: Path) -> None:
    output = finished(tmp_path)
    found = verify(output.location, with_input=False)
    assert (found.problems, found.posts, found.files) == ([], 30, 3)
    assert pq.read_table(output.location)["id"].to_pylist() == [f"p{i}" for i in range(30)]
    report = (tmp_path / "out" / "_report.html").read_text()
    assert "&lt;b&gt;post&lt;/b&gt;" in report and "<b>post" not in report
    assert "30 annotated posts" in report and "empty_text" in report and "<script" not in report
    assert any("no input at" in problem for problem in verify(output.location).problems)


def test_a_finished_output_is_opened_again_without_its_failed_rows(tmp_path: Path) -> None:
    output = finished(tmp_path)
    output.open_job(IDENTITY, overwrite=False)
    assert not output.is_retried()
    corpus = staged(output, 30)
    assert reopen(output, corpus) == 1 and output.is_retried()
    done = np.zeros(30, bool)
    assert sum(block.good for block in output.committed(done)) == output.scored_before() == 29
    assert np.flatnonzero(~done).tolist() == [7]
    assert verify(output.location, with_input=False).problems == []  # as it was, until the retry has ended


def edit(name: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def spoil(out: Path) -> None:
        path = out / name
        table = change(pq.read_table(path))
        pq.write_table(table, path, compression="zstd")
        manifest = json.loads((out / "_manifest.json").read_text())
        for entry in manifest["files"]:
            if entry["file"] == name:
                entry.update(bytes=path.stat().st_size, posts=table.num_rows)
        (out / "_manifest.json").write_text(json.dumps(manifest))

    return spoil


def put(column: str, row: int, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[row] = value
        place = table.schema.get_field_index(column)
        return table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda out: (out / "_run.json").unlink(), "is not finished"),
        (lambda out: (out / "part-000001.parquet").unlink(), "part-000001.parquet is missing"),
        (lambda out: (out / "part-000009.parquet").write_bytes(b"x"), "does not name: part-000009.parquet"),
        (edit("part-000002.parquet", lambda t: t.slice(1)), "29 rows, but the manifest says 30"),
        (edit("part-000000.parquet", lambda t: t.drop_columns(["v_reg"])), "different schemas"),
        (edit("part-000000.parquet", put("id", 3, "p4")), "1 ids occur more than once"),
        (edit("part-000000.parquet", put("v_reg", 2, 1.5)), "v_reg: a value outside the task's values .*'p2'"),
        (edit("part-000000.parquet", put("v_oc", 2, 9)), "v_oc: a value outside the task's values"),
        (edit("part-000000.parquet", put("e_c", 2, ["joy", "bliss"])), "e_c: a value outside the task's values"),
        (edit("part-000000.parquet", put("v_reg", 2, None)), "v_reg: both value and error, or neither"),
        (edit("part-000000.parquet", put("v_oc_confidence", 2, 1.2)), "v_oc_confidence: outside 0..1"),
        (
            edit("part-000000.parquet", put("v_oc_probabilities", 2, dict.fromkeys(map(str, range(-3, 4)), 0.2))),
            "v_oc_probabilities: not summing to one",
        ),
        (edit("part-000000.parquet", put("error", 2, "odd")), "error: not the first of the row's errors"),
    ],
)
def test_a_damaged_output_is_detected(tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    import re

    output = finished(tmp_path)
    spoil(tmp_path / "out")
    problems = verify(output.location, with_input=False).problems
    assert any(re.search(message, problem) for problem in problems), problems
    command = [sys.executable, "-m", "emollm.annotation", "verify", output.location, "--no-input"]
    if "more than once" in message:  # one of them as a command, for its exit status
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert ran.returncode == 1 and "wrong: 1 ids occur more than once" in ran.stderr


def test_one_run_at_a_time(tmp_path: Path) -> None:
    output = OutputFolder(str(tmp_path / "out"))
    with locked(output) as lock:
        with pytest.raises(DataError, match=f"another run is writing .* \\(process {os.getpid()} on"), locked(output):
            pass
        lock.check()
    assert not (tmp_path / "out").exists()  # an output that nothing was written to is not left behind


def test_a_lock_dies_with_its_process_and_elsewhere_with_its_heartbeat(tmp_path: Path) -> None:
    output = OutputFolder(str(tmp_path))
    (tmp_path / "kept").touch()
    code = (
        "import os, sys; from emollm.annotation.lock import Lock; from emollm.annotation.output import OutputFolder\n"
        f"Lock(OutputFolder({str(tmp_path)!r})).take(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    assert Path(output.lock).exists()
    with locked(output):
        pass
    holder = {"host": "another-machine", "pid": 1, "token": "t", "beat": time.time() - STALE_S / 2}
    output.write_json(output.lock, holder)
    with pytest.raises(DataError, match=r"process 1 on another-machine, last seen \d+ s ago"), locked(output):
        pass
    output.write_json(output.lock, holder | {"beat": time.time() - STALE_S - 1})
    with locked(output) as lock:
        output.write_json(output.lock, holder)  # another run took over while this one stood still
        with pytest.raises(DataError, match="another run"):
            lock.check()
