"""How fast the endpoint answers, beside a naive server: python benchmarks/serving.py --model DIR

The naive server is what people write first: FastAPI, the same model and engine, one request after the other. Both are
up during the whole run and are asked in turns, every request one post of its own, by so many clients that each send
the next request when they have the answer. Throughput is a ratio to trust where other work shares the cores; the
seconds are not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAMPLE_POSTS = Path(__file__).resolve().parents[1] / "emollm" / "corpora" / "samples" / "posts.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--model", required=True, help="model directory, or a base by name")
    parser.add_argument("--engine", default="auto", help="of both servers")
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16", "auto"))
    parser.add_argument("--tasks", nargs="+", default=["profile"])
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--requests", type=int, default=256, help="requests at each concurrency, at least two a client")
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--batch-wait-ms", type=float, default=5.0)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--naive", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.naive:
        serve_naively(args)
        return
    posts = [json.loads(line)["text"] for line in SAMPLE_POSTS.read_text(encoding="utf-8").splitlines()]
    with naive_server() as naive, endpoint(args) as ours:
        print(f"{'clients':>7} {'server':8}{'requests/s':>11} {'p50 s':>7} {'p95 s':>7} {'p99 s':>7}", flush=True)
        for clients in args.concurrency:
            speeds = []
            for name, url in (("naive", naive), ("emollm", ours)):
                count = max(args.requests if clients > 1 else args.requests // 4, 2 * clients)
                seconds, times = asyncio.run(load(url, posts, args.tasks, clients=clients, count=count))
                speeds.append(count / seconds)
                p50, p95, p99 = percentiles(times)
                ratio = f"  {speeds[1] / speeds[0]:.1f}x" if len(speeds) == 2 else ""
                print(f"{clients:7} {name:8}{speeds[-1]:11.2f} {p50:7.2f} {p95:7.2f} {p99:7.2f}{ratio}", flush=True)


async def load(url: str, posts: list[str], tasks: list[str], *, clients: int, count: int) -> tuple[float, list[float]]:
    """Seconds for `count` requests by so many clients at a time, and the seconds of each."""
    import httpx

    remaining = iter(range(count))
    times: list[float] = []
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(timeout=None, limits=limits, trust_env=False) as http:

        async def go() -> None:
            for n in remaining:
                # A number makes each post one of its own: nothing can be answered from memory.
                body = {"texts": [f"{posts[n % len(posts)]} {n}"], "tasks": tasks}
                started = time.perf_counter()
                response = await http.post(f"{url}/v1/annotate", json=body)
                times.append(time.perf_counter() - started)
                response.raise_for_status()

        started = time.perf_counter()
        await asyncio.gather(*(go() for _ in range(clients)))
        return time.perf_counter() - started, times


def percentiles(times: list[float]) -> tuple[float, float, float]:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[94], cuts[98]


@contextlib.contextmanager
def endpoint(args: argparse.Namespace) -> Iterator[str]:
    """This project's, on a private Ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import logging

    import ray
    from ray import serve

    from serve.app import build

    logging.getLogger("ray").setLevel(logging.ERROR)
    port = free_port()
    cpus = args.replicas + 2
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    options = {
        "model": args.model,
        "engine": args.engine,
        "precision": args.precision,
        "batch_tokens": args.batch_tokens,
        "batch_wait_ms": args.batch_wait_ms,
        "replicas": args.replicas,
        "deadline_s": 3600,
    }
    serve.run(build(options), name="emollm", route_prefix="/")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


@contextlib.contextmanager
def naive_server() -> Iterator[str]:
    """The other one, in a process of its own."""
    import httpx

    port = free_port()
    process = subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--naive", str(port)])
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in itertools.count():
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{url}/healthz", trust_env=False)
                break
            if process.poll() is not None:
                raise SystemExit("the naive server did not start")
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait()


def serve_naively(args: argparse.Namespace) -> None:
    import threading

    import uvicorn
    from fastapi import FastAPI

    from emollm.prompts import questions_for
    from emollm.scoring.scorer import open_scorer
    from emollm.tasks import select_tasks

    scorer = open_scorer(args.model, engine=args.engine, precision=args.precision)
    scorer.score(questions_for("A quiet start.", select_tasks(args.tasks, scorer.card.tasks)))
    one_at_a_time = threading.Lock()
    app = FastAPI()

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/annotate")
    def annotate(body: dict[str, list[str]]) -> list[list[dict[str, Any]]]:
        tasks = select_tasks(body["tasks"], scorer.card.tasks)
        results = []
        for text in body["texts"]:
            questions = questions_for(text, tasks)
            with one_at_a_time:
                answers = scorer.score(questions)
            results.append(
                [
                    {"task": q.column, "value": a.value, "confidence": a.confidence, "probabilities": a.probabilities}
                    for q, a in zip(questions, answers, strict=True)
                ]
            )
        return results

    uvicorn.run(app, host="127.0.0.1", port=args.naive, log_level="error")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
