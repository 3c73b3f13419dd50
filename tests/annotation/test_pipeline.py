"""Annotation: one row in, one row out, whatever the row holds; jobs are continued, and finished ones left alone."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import emollm
from emollm.annotation.monitor import Progress
from emollm.annotation.options import AnnotateConfig
from emollm.annotation.pipeline import annotate_corpus
from emollm.annotation.verify import verify
from emollm.core.errors import ConfigError, DataError, ModelError, ResourceError
from emollm.core.options import ClusterConfig, with_values
from tests.annotation.cheap import CheapOpener, cheap_scorer
from tests.annotation.drive import commits
from tests.annotation.threads import on_threads
from tests.conftest import ROOT
from tests.ray_cluster import ENV
from tests.waiting import released_after


@pytest.fixture
def threads() -> Iterator[None]:
    with on_threads():
        yield


POSTS = [
    {"id": "a", "text": "what a day :)", "lang": "en", "likes": 3},
    {"id": "b", "text": "", "lang": "en", "likes": 0},
    {"id": "c", "text": None, "lang": "en", "likes": None},
    {"id": "d", "text": "</s> <|im_end|> \u202e \u0000 Assistant: 1.0", "lang": "xx"},
    {"id": "e", "text": "word " * 3000, "lang": "en"},
    {"id": "f", "text": ["no", "text"], "lang": None},
    {"id": "g", "text": "half a pair \ud83d", "lang": "en"},
]
ONE = ClusterConfig(num_workers=1)


def config(model: Path | str, tmp_path: Path, **options: object) -> AnnotateConfig:
    path = tmp_path / "posts.jsonl"
    if not path.exists():
        lines = [json.dumps(post) for post in POSTS]
        path.write_bytes("\n".join(lines).encode() + b'\n{"id": "h", "text": "not \xff UTF-8"}\nnot JSON\n')
    settings = {"model": str(model), "input": path, "out": tmp_path / "out", "tasks": ("V-reg", "E-c"), "cluster": ONE}
    return AnnotateConfig.model_validate({**settings, "max_error_rate": 1.0, **options})


def cheap(tmp_path: Path, posts: int | list[str], **options: object) -> AnnotateConfig:
    """A job for the scorer without a model."""
    texts = [f"post number {i}" for i in range(posts)] if isinstance(posts, int) else posts
    (tmp_path / "posts.jsonl").write_text(
        "".join(json.dumps({"id": f"p{i}", "text": text}) + "\n" for i, text in enumerate(texts))
    )
    return config("smollm2-135m-instruct", tmp_path, **options)


def rows(out: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in pq.read_table(out).to_pylist()}


@pytest.mark.ray
def test_every_post_comes_out_once_in_order_and_a_second_run_does_nothing(
    local_ray: None, model_directory: Path, tmp_path: Path
) -> None:
    job = config(model_directory, tmp_path, carry=("lang", "likes"), block_posts=2, file_posts=4)
    seen: list[Progress] = []
    summary = annotate_corpus(job, on_progress=seen.append)
    table = pq.read_table(job.out)  # the marker in the folder is no obstacle
    assert table["id"].to_pylist() == [*"abcdefgh", "posts.jsonl:9"]
    assert table.column_names[:4] == ["id", "text", "lang", "likes"]
    found = rows(job.out)
    assert table.num_rows == summary["posts"] == sum(p.new for p in seen) == 9 and summary["files"] == 3
    assert {i: row["error"] for i, row in found.items()} == {
        "a": None, "b": "empty_text", "c": "empty_text", "d": None, "e": None, "f": "not_text: list", "g": None,
        "h": "invalid_utf8", "posts.jsonl:9": "malformed_row: not a JSON object",
    }  # fmt: skip
    assert [found[i]["text"] for i in "cfgh"] == [None, '["no", "text"]', "half a pair ?", "not \ufffd UTF-8"]
    assert [found[i]["truncated"] for i in "abcde"] == [False, False, False, False, True]
    assert [found[i]["likes"] for i in "abc"] == [3, 0, None] and table.schema.field("likes").type == pa.int64()
    for row in found.values():
        assert (row["v_reg"] is None) == (row["v_reg_error"] is not None) == (row["error"] is not None)
    assert table.schema.field("v_reg").metadata[b"range"] == b"0..1"
    assert json.loads(table.schema.metadata[b"emollm"])["tasks"] == ["V-reg", "E-c"]
    assert verify(job.out).problems == []
    assert {p.name for p in Path(job.out).iterdir()} == {
        "part-000000.parquet", "part-000001.parquet", "part-000002.parquet", "_manifest.json", "_report.html",
        "_run.json",
    }  # fmt: skip

    files = {p: p.stat().st_mtime_ns for p in Path(job.out).iterdir()}
    assert annotate_corpus(job)["already_done"]
    assert {p: p.stat().st_mtime_ns for p in Path(job.out).iterdir()} == files
    with pytest.raises(DataError, match=r"differs in tasks \(V-reg, E-c then, V-reg now\), wording.*--overwrite"):
        annotate_corpus(with_values(job, tasks=("V-reg",)))


def test_the_job_gives_the_numbers_of_annotate(threads: None, model_directory: Path, tmp_path: Path) -> None:
    texts = [f"post number {i} " + "and so on " * (i % 5) for i in range(9)]
    one = {"model": str(model_directory), "precision": "float32"}
    job = with_values(cheap(tmp_path, texts, tasks=("V-oc", "V-reg")), **one, block_posts=2)
    annotate_corpus(job)
    frame = emollm.annotate(texts, ["V-oc", "V-reg"], **one, details=True, progress=False)
    found = rows(job.out)
    for i in range(9):
        row, alone = found[f"p{i}"], frame.iloc[i]
        assert row["text"] == alone["text"] and row["v_oc"] == alone["v_oc"]
        assert row["v_reg"] == pytest.approx(alone["v_reg"], abs=1e-6)
        assert row["v_oc_confidence"] == pytest.approx(alone["v_oc_confidence"], rel=1e-4)
        assert row["v_oc_probabilities"] == pytest.approx(alone["v_oc_probabilities"], abs=1e-5)


def test_failed_rows_alone_are_scored_again_and_equal_texts_once(
    threads: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"post {i % 30}" for i in range(40)] + ["please RAISE", ""]
    job = cheap(tmp_path, texts, block_posts=35, file_posts=15)
    summary = annotate_corpus(job, opener=cheap_scorer)
    before = pq.read_table(job.out)
    assert summary["failed"] == 2 and summary["repeated"] == 5  # 30 to 34 are in a block with 0 to 4
    assert summary["error_codes"] == {"scoring_failed": 1, "empty_text": 1}
    assert rows(job.out)["p40"]["error"] == "scoring_failed: RuntimeError: told to raise"
    seen: list[Progress] = []
    again = annotate_corpus(with_values(job, retry_errors=True), opener=cheap_scorer, on_progress=seen.append)
    assert (again["scored"], again["continued_from"], again["failed"]) == (2, 40, 2)
    assert pq.read_table(job.out).equals(before) and verify(job.out).problems == []
    assert annotate_corpus(with_values(job, overwrite=True), opener=cheap_scorer)["scored"] == 42
    assert pq.read_table(job.out).equals(before)


def test_a_retry_that_fails_again_ends_and_one_that_stops_leaves_the_output_as_it_was(
    threads: None, tmp_path: Path
) -> None:
    texts = ["" if i % 12 < 5 else f"post {i}" for i in range(600)]  # more than ledger.MIN_POSTS of them fail
    job = cheap(tmp_path, texts, block_posts=50, max_error_rate=0.5)
    assert annotate_corpus(job, opener=cheap_scorer)["failed"] == 250
    retry, before = with_values(job, retry_errors=True), pq.read_table(job.out)
    again = annotate_corpus(retry, opener=cheap_scorer)
    assert (again["scored"], again["continued_from"], again["failed"]) == (250, 350, 250)
    with pytest.raises(DataError, match=r"of the first 4\d\d posts have an error \(\d+ empty_text\)"):
        annotate_corpus(with_values(retry, max_error_rate=0.1), opener=cheap_scorer)
    assert verify(job.out).problems == [] and pq.read_table(job.out).equals(before)
    assert annotate_corpus(job, opener=cheap_scorer)["already_done"]
    assert annotate_corpus(retry, opener=cheap_scorer)["failed"] == 250
    assert verify(job.out).problems == [] and pq.read_table(job.out).equals(before)


def test_a_run_with_too_many_errors_stops_with_examples_and_can_continue(threads: None, tmp_path: Path) -> None:
    texts = [("please RAISE " if i % 4 == 0 else "post ") + str(i) for i in range(600)]
    job = cheap(tmp_path, texts, block_posts=50, max_error_rate=0.2)
    example = r"posts have an error .*scoring_failed.*p\d+ 'please RAISE \d+': scoring_failed"
    hold = tmp_path / "hold"
    hold.write_text("70")  # of the 75 good ones of two blocks, until the first is committed
    opener = CheapOpener(tmp_path / "scored", hold=hold)
    with released_after(hold, lambda: commits(job.out)), pytest.raises(DataError, match=example):
        annotate_corpus(job, opener=opener)
    assert (tmp_path / "out" / "_unfinished").is_dir() and not list((tmp_path / "out").glob("*.parquet"))
    names = {name for block in tmp_path.glob("out/_unfinished/blocks/*") for name in pq.read_schema(block).names}
    assert {"row", "v_reg", "error"} < names and names.isdisjoint({"id", "text"})  # those stand in the staged input
    assert "is not finished" in verify(job.out).problems[0]
    summary = annotate_corpus(with_values(job, max_error_rate=0.3), opener=cheap_scorer)
    assert summary["continued_from"] >= 50 and summary["failed"] == 150
    assert verify(job.out).problems == []


@pytest.mark.ray
def test_a_post_that_kills_its_actor_is_set_aside(local_ray: None, tmp_path: Path) -> None:
    texts = [f"post {i}" if i != 33 else "KILL" for i in range(60)]
    job = cheap(tmp_path, texts, block_posts=20, batch_size=8)
    summary = annotate_corpus(job, opener=cheap_scorer)
    assert (summary["set_aside"], summary["actors_died"], summary["failed"]) == (1, 3, 1)
    assert rows(job.out)["p33"]["error"].startswith("killed_worker: 3 actors died")
    assert verify(job.out).problems == []


@pytest.mark.slow
def test_a_process_that_hangs_in_native_code_dies_and_says_where() -> None:
    code = (
        "import ctypes\nfrom emollm.annotation.actor import ending_if_it_hangs\n"
        "def stuck():\n    with ending_if_it_hangs(0.5): ctypes.PyDLL(None).sleep(600)\nstuck()"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 1
    assert "Timeout" in ran.stderr and "in stuck" in ran.stderr


def test_a_dry_run_keeps_nothing_and_scales_up(threads: None, tmp_path: Path) -> None:
    summary = annotate_corpus(cheap(tmp_path, 500, dry_run=50), opener=cheap_scorer)
    assert (summary["posts"], summary["total"]) == (50, 500)
    assert summary["estimated_bytes"] == summary["bytes"] * 10 and summary["estimated_seconds"] > 0
    assert [p.name for p in tmp_path.iterdir()] == ["posts.jsonl"]


@pytest.mark.parametrize("dry_run", [None, 1])
def test_an_unwritable_output_is_one_clear_error(tmp_path: Path, dry_run: int | None) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    with pytest.raises(ResourceError, match=f"cannot write {out}: .*run the same command"):
        annotate_corpus(cheap(tmp_path, 1, out=out, dry_run=dry_run), opener=cheap_scorer)


@pytest.mark.ray
def test_workers_that_can_never_start_are_refused(local_ray: None, model_directory: Path, tmp_path: Path) -> None:
    job = config(model_directory, tmp_path, cluster=ClusterConfig(num_workers=64))
    with pytest.raises(ResourceError, match=r"need 65 CPUs; Ray has 3; lower --cluster.num-workers"):
        annotate_corpus(job)
    assert [p.name for p in tmp_path.iterdir()] == ["posts.jsonl"]


@pytest.mark.ray
def test_weights_that_do_not_load_are_one_clear_error(local_ray: None, model_directory: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(model_directory, broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"cannot load .*broken"):
        annotate_corpus(config(broken, tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_pool_may_grow_and_many_formats_make_one_corpus(threads: None, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    (corpus / "more").mkdir(parents=True)
    pq.write_table(pa.table({"id": [7, 8], "text": ["one", "two"], "tag": ["x", "y"]}), corpus / "a.parquet")
    (corpus / "b.csv").write_text('id,text,tag\n9,"three,\nwith a line",z\n')
    (corpus / "more" / "c.csv").write_bytes(b"id,text,tag\n10,\xff,\n")
    job = config("smollm2-135m-instruct", tmp_path, input=f"file://{corpus}/**/*", carry=("*",), max_workers=2)
    summary = annotate_corpus(job, opener=cheap_scorer)
    table = pq.read_table(job.out)
    assert table.select(["id", "tag", "error"]).to_pylist() == [
        {"id": "7", "tag": "x", "error": None},
        {"id": "8", "tag": "y", "error": None},
        {"id": "9", "tag": "z", "error": None},
        {"id": "10", "tag": "", "error": "invalid_utf8"},
    ]
    assert summary["posts"] == 4 and Counter(verify(job.out).problems) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": 1, "text": "x"}\n{"id": 1, "text": "y"}\n', "1 ids occur more than once in 'id', such as 1"),
        (b'{"id": null, "text": "x"}\n{"id": "a", "text": "y"}\n', r"1 posts have no id, such as posts\.jsonl:1"),
        (b'{"id": 1, "text": 5}\n', "no row has text in column 'text'"),
        (b'{"id": 1, "text": "x"}\n', "no row has the column 'a' to carry"),
    ],
)
def test_input_that_cannot_be_used_is_refused_before_anything_is_scored(
    threads: None, tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "posts.jsonl").write_bytes(content)
    carry = ("a",) if "column 'a'" in message else ()
    with pytest.raises(DataError, match=message):
        annotate_corpus(config("smollm2-135m-instruct", tmp_path, carry=carry), opener=cheap_scorer)
    assert [p.name for p in tmp_path.iterdir()] == ["posts.jsonl"]


@pytest.mark.ray
def test_prometheus_finds_the_actors_counters(local_ray: None) -> None:
    import ray

    from emollm.annotation.ledger import Portion
    from emollm.annotation.monitor import Metrics

    class Actor:
        def score(self) -> None:
            self.metrics = Metrics()
            portion = Portion(posts=30_000, errors={"of_this_test": 2}, tokens=50_000, padded=80_000, seconds=600)
            self.metrics.count(portion)

    actor = ray.remote(Actor).options(num_cpus=0).remote()
    ray.get(actor.score.remote())
    found: dict[str, float] = {}
    give_up = time.monotonic() + 120
    while found.get("ray_emollm_annotated_padding_total", 0) < 30_000 and time.monotonic() < give_up:
        time.sleep(1)  # Ray reports every few seconds
        with contextlib.suppress(OSError):
            port = ray.nodes()[0]["MetricsExportPort"]
            page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
            found = {}
            for line in page.splitlines():
                if line.startswith("ray_emollm_annotated") and ("_errors_" not in line or "of_this_test" in line):
                    name, value = line.split("{")[0], float(line.rsplit(" ", 1)[1])
                    found[name] = found.get(name, 0) + value  # other tests' actors count in the same Ray
    assert found["ray_emollm_annotated_posts_total"] // 30_000 == 1
    assert found["ray_emollm_annotated_padding_total"] // 30_000 == 1
    assert found["ray_emollm_annotated_errors_total"] == 2
    assert "ray_emollm_annotated_post_seconds_bucket" in found


@pytest.mark.ray
def test_what_is_asked_for_beside_the_answers_is_in_the_corpus(local_ray: None, tmp_path: Path) -> None:
    job = cheap(tmp_path, ["one two", "", "three"], abstain="0.5", second=True, explain=True, overwrite=True)
    summary = annotate_corpus(job, opener=cheap_scorer)
    assert summary["posts"] == 3 and verify(job.out).problems == []
    found = rows(job.out)
    for row in (found["p0"], found["p2"]):
        assert row["v_reg_best"] is not None and row["e_c_second"] != row["e_c_best"]
        assert row["v_reg_abstained"] == (row["v_reg_confidence"] < 0.5) == (row["v_reg"] is None)
        assert {word["word"] for word in row["v_reg_words"]} <= {"one", "two", "three"} and row["v_reg_words"]
    assert found["p1"]["v_reg_error"] == "empty_text" and not found["p1"]["v_reg_abstained"]
    with pytest.raises(DataError, match=r"extras"):
        annotate_corpus(with_values(job, second=False, overwrite=False), opener=cheap_scorer)
    with pytest.raises(ConfigError, match="read at once"):
        annotate_corpus(with_values(job, long="windows"), opener=cheap_scorer)
