"""How fast the endpoint answers, beside a naive server: python benchmarks/serving.py --model DIR

The naive server is what people write first: FastAPI, the same model and engine, one request after the other on one
thread. The endpoint has a replica a core; --replicas 1 shows what batching alone gives. Both are up during the whole
run and are asked in turns, every request one post of its own, by so many clients that each send the next request when
they have the answer. Where other work shares the cores, trust requests a CPU second (of all processes of a server, HTTP
included) more than the clock.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from emollm.core.bases import DEFAULT_MODEL

ROOT = Path(__file__).resolve().parents[1]
_SERVE = ("ray::ServeReplica", "ray::ProxyActor")
SAMPLE_POSTS = ROOT / "emollm" / "data" / "corpora" / "samples" / "posts.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--model", default=DEFAULT_MODEL, help="model directory, or a base by name")
    parser.add_argument("--engine", default="auto", help="of both servers")
    parser.add_argument("--precision", default="float32", choices=("float32", "bf16", "auto"))
    parser.add_argument("--tasks", nargs="+", default=["profile"])
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--requests", type=int, default=256, help="requests at each concurrency, at least two a client")
    parser.add_argument("--batch-tokens", type=int)
    parser.add_argument("--batch-wait-ms", type=float, default=5.0)
    parser.add_argument("--replicas", type=int, default=os.cpu_count(), help="of the endpoint; default: one a core")
    parser.add_argument("--naive", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.naive:
        serve_naively(args)
        return
    posts = [json.loads(line)["text"] for line in SAMPLE_POSTS.read_text(encoding="utf-8").splitlines()]
    with naive_server() as naive, endpoint(args) as ours:
        print(f"{'clients':>7} {'server':8}{'requests/s':>11} {'p50 s':>7} {'p95 s':>7} {'p99 s':>7}  requests/CPU s")
        for clients in args.concurrency:
            speeds: list[tuple[float, float]] = []
            for name, (url, processes) in (("naive", naive), ("emollm", ours)):
                count = max(args.requests if clients > 1 else args.requests // 4, 2 * clients)
                before = cpu_seconds(processes)
                seconds, times = asyncio.run(load(url, posts, args.tasks, clients=clients, count=count))
                speeds.append((count / seconds, count / (cpu_seconds(processes) - before)))
                p50, p95, p99 = percentiles(times)
                clock, cpu = (mine / first for mine, first in zip(speeds[-1], speeds[0], strict=True))
                ratio = f"  {clock:.1f}x by the clock, {cpu:.1f}x by CPU" if name == "emollm" else ""
                said = f"{speeds[-1][0]:11.2f} {p50:7.2f} {p95:7.2f} {p99:7.2f} {speeds[-1][1]:15.2f}{ratio}"
                print(f"{clients:7} {name:8}{said}", flush=True)


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


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """What they have used so far."""
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


def percentiles(times: list[float]) -> tuple[float, float, float]:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[94], cuts[98]


@contextlib.contextmanager
def endpoint(args: argparse.Namespace) -> Iterator[tuple[str, list[psutil.Process]]]:
    """This project's, on a private Ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import logging

    import ray
    from ray import serve

    sys.path.insert(0, str(ROOT))  # this tree, not an installed one
    from emollm.serve.app import build

    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)
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
    processes = [p for p in psutil.Process().children(recursive=True) if "".join(p.cmdline()[:1]).startswith(_SERVE)]
    try:
        yield f"http://127.0.0.1:{port}", processes
    finally:
        serve.shutdown()
        ray.shutdown()


@contextlib.contextmanager
def naive_server() -> Iterator[tuple[str, list[psutil.Process]]]:
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
        yield url, [psutil.Process(process.pid)]
    finally:
        process.terminate()
        process.wait()


def serve_naively(args: argparse.Namespace) -> None:
    import threading

    import uvicorn
    from fastapi import FastAPI

    from emollm.core.prompts import questions_for
    from emollm.core.tasks import select_tasks
    from emollm.scoring.open import open_scorer

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
