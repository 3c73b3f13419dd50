"""The whole job on s3://, input and output."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from emollm.annotation.options import AnnotateConfig
from emollm.annotation.pipeline import annotate_corpus
from emollm.annotation.verify import verify
from emollm.core.errors import DataError
from emollm.core.options import ClusterConfig, with_values
from tests.annotation.cheap import CheapOpener, cheap_scorer
from tests.annotation.object_store import object_store
from tests.annotation.threads import on_threads
from tests.waiting import released_after


@pytest.mark.ray
def test_a_job_on_an_object_store_stops_is_continued_and_verifies(local_ray: None, tmp_path: Path) -> None:
    with object_store() as options:
        lake = "s3://key:secret@lake"
        store, _ = pafs.FileSystem.from_uri(f"{lake}?{options}&allow_bucket_creation=true")
        store.create_dir("lake")
        for day in range(3):
            posts = [{"id": f"{day}-{i}", "text": f"post {day}-{i}" if i % 4 else ""} for i in range(100)]
            with store.open_output_stream(f"lake/posts/2024/day {day}.jsonl") as stream:
                stream.write("".join(json.dumps(post) + "\n" for post in posts).encode())
        job = AnnotateConfig(
            model="smollm2-135m-instruct", input=f"{lake}/posts/**/day ?.jsonl?{options}", out=f"{lake}/out?{options}",
            tasks=("V-reg",), block_posts=20, max_error_rate=0.2,
            # The actor of a run that failed may keep the one GPU that Ray was told of for longer than this test waits.
            cluster=ClusterConfig(num_workers=1, gpus_per_worker=0),
        )  # fmt: skip
        with on_threads():
            assert annotate_corpus(with_values(job, dry_run=20), opener=cheap_scorer)["total"] == 300

        def committed() -> bool:
            found = store.get_file_info(pafs.FileSelector("lake/out/_unfinished/commits", allow_not_found=True))
            return any(not info.base_name.endswith(".pending.parquet") for info in found)

        hold = tmp_path / "hold"
        hold.write_text("40")
        opener = CheapOpener(tmp_path / "scored", hold=hold)
        with released_after(hold, committed), pytest.raises(DataError, match=r"more than --max-error-rate 0\.2"):
            annotate_corpus(job, opener=opener)
        left = [info.base_name for info in store.get_file_info(pafs.FileSelector("lake")) if info.base_name != "posts"]
        assert left == ["out"] and "is not finished" in verify(job.out).problems[0]
        summary = annotate_corpus(with_values(job, max_error_rate=0.5), opener=cheap_scorer)
        assert (summary["posts"], summary["failed"]) == (300, 75) and summary["continued_from"] > 0
        assert summary["scored"] == 300 - summary["continued_from"]
        assert verify(job.out).problems == []
        ids = pq.read_table("lake/out", filesystem=store)["id"].to_pylist()
        assert ids == [f"{day}-{i}" for day in range(3) for i in range(100)]
        assert annotate_corpus(job, opener=cheap_scorer)["already_done"]
