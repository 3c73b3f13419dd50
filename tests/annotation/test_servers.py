"""A corpus through inference servers: exactly once, whatever the servers do."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emollm import annotate
from emollm.annotation.ledger import Ledger, Portion
from emollm.annotation.options import AnnotateConfig
from emollm.annotation.pipeline import annotate_corpus
from emollm.annotation.verify import verify
from emollm.commands.cli import main
from emollm.commands.in_process import annotate_table
from emollm.core.errors import ConfigError, DataError
from emollm.core.options import with_values
from emollm.core.tasks import select_tasks
from emollm.scoring.server.options import RequestOptions
from tests.annotation.threads import on_threads
from tests.inference_server import Response, reply, serving

POSTS = 60


@pytest.fixture
def threads() -> Iterator[None]:
    with on_threads():
        yield


def config(tmp_path: Path, url: str, **requests: Any) -> AnnotateConfig:
    rows = [json.dumps({"id": f"p{n}", "text": f"post {n}"}) for n in range(POSTS)]
    (tmp_path / "posts.jsonl").write_text("\n".join(rows))
    return AnnotateConfig(
        model="m",
        server=(url,),
        input=str(tmp_path / "posts.jsonl"),
        out=str(tmp_path / "out"),
        tasks=("V-reg", "SST5"),
        block_posts=10,
        requests=RequestOptions(**{"cache": tmp_path / "cache", "retries": 1, "patience_s": 0.0, **requests}),
    )


def number(body: dict[str, Any]) -> int:
    found = re.search(r"post (\d+)", body["messages"][-1]["content"])
    assert found
    return int(found[1])


def answer(_n: int, body: dict[str, Any]) -> Response:
    n = number(body)
    return reply(f"{n % 5}" if "Class" in body["messages"][-1]["content"] else f"0.{n:03}")


def rows(job: AnnotateConfig) -> list[dict[str, Any]]:
    return sorted(pq.read_table(job.out).to_pylist(), key=lambda row: int(row["id"][1:]))


@pytest.mark.usefixtures("threads")
def test_a_corpus_is_annotated_once_and_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(answer) as server:
        job = config(tmp_path, server.url, price_in=10.0)
        summary = annotate_corpus(job)
        told = capsys.readouterr().err
        found = rows(job)
        assert [row["v_reg"] for row in found] == [pytest.approx(n / 1000) for n in range(POSTS)]
        assert [row["sst5"] for row in found] == [n % 5 for n in range(POSTS)]
        assert {row["v_reg_distribution"] for row in found} == {"unknown"}
        assert verify(job.out).problems == []
        assert summary["server"]["requests"] == len(server.requests) == 2 * POSTS
        assert summary["server"]["cost"] == pytest.approx(2 * POSTS * 100 * 10 / 1e6)
    assert "server: m: chat, no structured output: strict parsing, no log-probabilities" in told
    assert re.search(r"estimated: 120 requests, [\d,]+ prompt tokens, [\d,]+ reply tokens, cost 0\.\d\d", told)
    # A finished job needs no server.
    assert annotate_corpus(job)["already_done"]


@pytest.mark.usefixtures("threads")
def test_a_server_that_dies_ends_nothing_and_its_rows_are_done_later(tmp_path: Path) -> None:
    def respond(n: int, body: dict[str, Any]) -> Response:
        return Response(502, text="bad gateway") if n >= 30 else answer(n, body)

    with serving(respond) as dying:
        job = config(tmp_path, dying.url)
        summary = annotate_corpus(job)  # though far more than half of the rows have errors
    assert summary["failed"] > POSTS / 2
    assert set(summary["error_codes"]) == {"server_failed"}
    assert verify(job.out).problems == []
    paid = 30
    with serving(answer) as back:
        again = with_values(job, server=(back.url,), retry_errors=True)
        assert annotate_corpus(again)["failed"] == 0
        assert len(back.requests) <= 2 * POSTS - paid  # what was answered is not asked again
    assert [row["v_reg"] for row in rows(job)] == [pytest.approx(n / 1000) for n in range(POSTS)]
    assert verify(job.out).problems == []


@pytest.mark.usefixtures("threads")
def test_rows_wait_for_a_server_that_is_started_again(tmp_path: Path) -> None:
    def respond(n: int, body: dict[str, Any]) -> Response:
        return Response(503, text="loading") if 20 <= n < 26 else answer(n, body)

    with serving(respond) as server:
        job = config(tmp_path, server.url, patience_s=60.0)
        summary = annotate_corpus(job)
    assert (summary["failed"], summary["server"]["failed"]) == (0, 0)
    assert summary["server"]["retried"] > 0


@pytest.mark.usefixtures("threads")
def test_a_dry_run_tells_what_all_of_it_costs(tmp_path: Path) -> None:
    with serving(answer) as server:
        summary = annotate_corpus(with_values(config(tmp_path, server.url, price_in=100.0), dry_run=6))
    assert len(server.requests) == 12
    assert summary["estimated_cost"] == pytest.approx(2 * POSTS * 100 * 100 / 1e6)


@pytest.mark.usefixtures("threads")
def test_a_cost_above_the_cap_is_refused_before_the_first_question(tmp_path: Path) -> None:
    with serving(answer) as server:
        job = config(tmp_path, server.url, price_in=1000.0, max_cost=0.5)
        with pytest.raises(ConfigError, match=r"cost of 60 posts is estimated at .* above --requests.max-cost 0.5"):
            annotate_corpus(job)
        assert server.requests == []


@pytest.mark.parametrize("door", ["ray", "in_process", "api"])
def test_the_estimate_counts_what_stands_beside_a_post(tmp_path: Path, door: str) -> None:
    before = "It went on and on. " * 60
    posts = [{"id": f"p{n}", "text": f"post {n}", "before": before} for n in range(10)]

    def ask(url: str, column: str | None) -> None:
        # Twenty prompts cost 2; those with a context are estimated above the cap.
        job = config(tmp_path, url, price_in=1000.0, max_cost=4.0, reuse=False)
        (tmp_path / "posts.jsonl").write_text("\n".join(map(json.dumps, posts)))
        job = with_values(job, context_column=column, overwrite=True)
        match door:
            case "ray":
                annotate_corpus(job)
            case "in_process":
                table = pa.Table.from_pylist(posts).append_column("problem", pa.nulls(len(posts), pa.string()))
                annotate_table(table, job, select_tasks(job.tasks))
            case _:
                annotate(
                    [row["text"] for row in posts],
                    tasks=job.tasks,
                    model="m",
                    server=url,
                    requests=job.requests,
                    context=[row["before"] for row in posts] if column else None,
                )

    with on_threads() if door == "ray" else contextlib.nullcontext(), serving(answer) as server:
        ask(server.url, None)
        asked = len(server.requests)
        assert asked == 20
        with pytest.raises(ConfigError, match=r"above (--requests\.)?max-cost 4"):
            ask(server.url, "before")
        assert len(server.requests) == asked


def test_a_run_stops_when_its_cost_has_reached_the_cap() -> None:
    book = Ledger(max_error_rate=1.0, num_workers=1, max_cost=2.0)
    book.start_block("b")
    book.start_portion("b", 0, 10)
    assert book.finish_portion("b", Portion(posts=10, server={"cost": 1.5, "requests": 10})) is None
    book.start_portion("b", 10, 20)
    stop = book.finish_portion("b", Portion(posts=10, server={"cost": 1.0, "requests": 10}))
    assert stop is not None and "has reached 2.50, and --requests.max-cost is 2" in stop
    assert book.totals().server == {"cost": 2.5, "requests": 20}


@pytest.mark.usefixtures("threads")
def test_a_job_with_other_scoring_options_does_not_continue_an_output(tmp_path: Path) -> None:
    with serving(answer) as server:
        job = config(tmp_path, server.url)
        annotate_corpus(job)
        with pytest.raises(DataError, match="one prompt"):
            annotate_corpus(with_values(job, one_prompt=True))


def test_a_file_is_annotated_in_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "posts.csv").write_text("text\npost 1\npost 2\n")
    with serving(answer) as server:
        options = ["--server", server.url, "--model", "m", "--requests.cache", str(tmp_path / "cache")]
        main(["annotate", str(tmp_path / "posts.csv"), "--tasks", "V-reg", *options])
    found = pq.read_table(tmp_path / "posts.affect.parquet")
    assert found["v_reg"].to_pylist() == pytest.approx([0.001, 0.002])
    assert "servers: 2 requests" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "server"], "needs --server URL"),
        (["--engine", "heads", "--server", "http://h/v1"], "--server is for --engine server"),
        (["--one-prompt"], "--one-prompt is for --engine server"),
        (["--server", "http://h/v1"], "needs --model"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    (tmp_path / "posts.csv").write_text("text\nhello\n")
    with pytest.raises(ConfigError, match=re.escape(message)):
        main(["annotate", str(tmp_path / "posts.csv"), *options])


def test_the_endpoint_serves_a_model_of_its_own() -> None:
    with pytest.raises(ConfigError, match="the endpoint loads its model itself"):
        main(["serve", "--model", "m", "--server", "http://h/v1"])


@pytest.mark.ray
def test_actors_of_ray_ask_servers(local_ray: None, tmp_path: Path) -> None:
    def as_json(_n: int, body: dict[str, Any]) -> Response:
        said = "2: neutral" if "Class" in body["messages"][-1]["content"] else f"0.{number(body):02}"
        return reply(json.dumps({"answer": said}))

    with serving(as_json, structure="json_schema") as server:
        job = with_values(config(tmp_path, server.url), max_posts=20)
        summary = annotate_corpus(job)
    assert (summary["posts"], summary["failed"], summary["server"]["requests"]) == (20, 0, 40)
    assert [row["v_reg"] for row in rows(job)] == [pytest.approx(n / 100) for n in range(20)]
    assert verify(job.out).problems == []
