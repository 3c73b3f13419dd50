"""A model directory behind a real vLLM, against the constrained engine: python benchmarks/server.py --model DIR

`served` asks questions through `emollm serve-llm`, `constrained` the same through the constrained engine in float32,
and `compare` tells how far the answers lie apart, by how much of their distribution is known. `kill` annotates posts
through the server, kills it in the middle with SIGKILL, starts it again, and verifies the output. `chat` asks the
untrained base, which is served beside an adapter, by chat: a question per prompt, and a post per prompt. `make vllm`
makes vLLM's environment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from emollm.core.answers import Answer
from emollm.core.card import read_card
from emollm.core.prompts import Question, questions_for
from emollm.core.tasks import Kind, select_tasks
from emollm.data.files.columns import Columns, Notes
from emollm.data.files.inputs import find_files
from emollm.data.files.readers import read_rows
from emollm.scoring.constrained.search import SearchOptions
from emollm.scoring.open import open_scorer
from emollm.scoring.scorer import Scorer
from emollm.scoring.server.cache import AnswerCache
from emollm.scoring.server.engine import ServerScorer
from emollm.scoring.server.options import RequestOptions
from emollm.scoring.server.usage import told

PARTS = ("served", "constrained", "compare", "kill", "chat")
_KEPT_AT_ONCE = 55
_STARTS = 5
"""Times a job is started whose Ray does not come up, as on a machine that is too busy."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--model", required=True, help="model directory that writes answers")
    parser.add_argument("--posts", required=True, help="file of posts, as emollm annotate reads it")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--keep", type=Path, default=Path("server-answers"), help="folder for answers to compare")
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--kill-posts", type=int, default=120, help="posts of the part that kills, one question each")
    parser.add_argument("--chat-posts", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--dtype", default="float32", help="of vLLM")
    parser.add_argument("--threads", type=int, default=1, help="of vLLM, and of the constrained engine")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that vLLM ends, too
    for part in args.parts:
        {"served": served, "constrained": constrained, "compare": compare, "kill": kill, "chat": chat}[part](args)


@contextlib.contextmanager
def vllm(args: argparse.Namespace, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`emollm serve-llm` until it answers; ended with the block."""
    command = [
        sys.executable,
        "-m",
        "emollm",
        "serve-llm",
        args.model,
        "--gpus",
        "0",
        "--port",
        str(port),
        "--",
        "--dtype",
    ]
    threads = {"OMP_NUM_THREADS": str(args.threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    started = time.monotonic()
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        server = subprocess.Popen(
            [*command, args.dtype, "--enforce-eager"], env={**os.environ, **threads}, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            while not _answers(port):
                if server.poll() is not None:
                    raise SystemExit(f"vLLM ended with {server.returncode}:\n{Path(log.name).read_text()[-3000:]}")
                time.sleep(1)
            print(f"vLLM answers after {time.monotonic() - started:.0f} s", flush=True)
            yield server
        finally:
            _end(server, signal.SIGTERM)


def _end(server: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """The server and the processes that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, how)
    try:
        server.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2):
            return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read_posts(path: str, count: int) -> list[str]:
    source, files = find_files(path)
    texts: list[str] = []
    for table in read_rows(source, files[0], Columns(id=None, text="text"), Notes()):
        texts += [text for text in table["text"].to_pylist() if text and text.strip()]
        if len(texts) >= count:
            break
    return texts[:count]


def asked_questions(args: argparse.Namespace) -> list[Question]:
    profile = questions_for("", select_tasks(["EI-reg", "EI-oc", "V-reg", "V-oc", "E-c"]))
    texts = read_posts(args.posts, -(-args.questions // len(profile)))
    return [Question(q.task, text, q.emotion) for text in texts for q in profile][: args.questions]


def served(args: argparse.Namespace) -> None:
    """The answers through vLLM, kept."""
    questions, port = asked_questions(args), _free_port()
    with vllm(args, port):
        options = RequestOptions(reuse=False, in_flight=args.in_flight, timeout_s=600)
        scorer = ServerScorer(args.model, server=[f"http://127.0.0.1:{port}/v1"], requests=options)
        print(scorer.detected.told())
        scorer.score(questions[:11])  # whatever is compiled or cached at first
        before = replace(scorer.usage)
        _answer_and_keep(args, "vLLM", scorer, questions, at_once=len(questions))
        print(told(scorer.usage.since(before)))


def constrained(args: argparse.Namespace) -> None:
    """Those of the constrained engine: whole strings, and only as far as they differ."""
    questions = asked_questions(args)
    for name, exact in (("constrained", True), ("constrained --no-exact", False)):
        scorer = open_scorer(
            args.model, engine="constrained", precision="float32", num_threads=args.threads,
            search=SearchOptions(exact=exact),
        )  # fmt: skip
        _answer_and_keep(args, name, scorer, questions, at_once=_KEPT_AT_ONCE)


def _answer_and_keep(
    args: argparse.Namespace, name: str, scorer: Scorer, questions: Sequence[Question], *, at_once: int
) -> None:
    """A run that is stopped goes on where it was."""
    kept, cpu, started, new = AnswerCache(args.keep), time.process_time(), time.monotonic(), 0
    for start in range(0, len(questions), at_once):
        part = questions[start : start + at_once]
        keys = _keys(name, part)
        if len(kept.get(keys)) < len(keys):
            for key, answer in zip(keys, scorer.score(part), strict=True):
                kept.put(key, [answer])
            new += len(part)
    if new:
        _say_speed(name, new, time.monotonic() - started)
        print(f"{name}: {time.process_time() - cpu:.0f} CPU seconds in this process", flush=True)


def _keys(name: str, questions: Sequence[Question]) -> list[bytes]:
    return [f"{name}\0{q.task.name}\0{q.emotion}\0{q.text}".encode() for q in questions]


def compare(args: argparse.Namespace) -> None:
    questions, kept = asked_questions(args), AnswerCache(args.keep)
    theirs = kept.get(_keys("vLLM", questions))
    for name in ("constrained", "constrained --no-exact"):
        ours = kept.get(_keys(name, questions))
        pairs = [
            (question, ours[mine][0], theirs[other][0])
            for question, mine, other in zip(questions, _keys(name, questions), _keys("vLLM", questions), strict=True)
            if mine in ours and other in theirs
        ]
        print(f"\n{len(pairs)} answers of vLLM against {name}:\n")
        _say_differences(pairs)


def _say_speed(name: str, count: int, seconds: float) -> None:
    print(f"{name}: {count} prompts in {seconds:.0f} s, {count / seconds:.1f} prompts/s", flush=True)


def _say_differences(pairs: Sequence[tuple[Question, Answer, Answer]]) -> None:
    print(
        "| task | distribution | answers | value: mean, largest difference | probabilities: mean, largest "
        "| other answer | other greedy answer |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(q.task.name for q, _, _ in pairs):
        mine = [pair for pair in pairs if pair[0].task.name == name]
        for mark in ("exact", "truncated", "unknown"):
            rows = [(q, a, b) for q, a, b in mine if b.distribution == mark]
            if rows:
                apart = f"{_values(rows)} | {_probabilities(rows)} | {_changed(rows)}"
                greedy = sum(a.mode != b.mode for _, a, b in rows)
                print(f"| {name} | {mark} | {len(rows)} | {apart} | {greedy} |")
    errors = [b.error for _, _, b in pairs if b.error]
    print(f"errors: {len(errors)} {errors[:2]}")


def _values(rows: Sequence[tuple[Question, Answer, Answer]]) -> str:
    if rows[0][0].task.kind is not Kind.REGRESSION:
        return ""
    apart = np.abs([(a.unit or 0.0) - (b.unit or 0.0) for _, a, b in rows])
    return f"{apart.mean():.4f}, {apart.max():.4f}"


def _probabilities(rows: Sequence[tuple[Question, Answer, Answer]]) -> str:
    apart = np.array([abs(p - b.probabilities[name]) for _, a, b in rows for name, p in a.probabilities.items()])
    return f"{apart.mean():.4f}, {apart.max():.4f}"


def _changed(rows: Sequence[tuple[Question, Answer, Answer]]) -> str:
    if rows[0][0].task.kind is Kind.REGRESSION:  # expectations: how far they differ says more
        return ""
    return str(sum(a.value != b.value for _, a, b in rows))


def chat(args: argparse.Namespace) -> None:
    """How many replies of a small untrained model are valid, and what one prompt for all questions spares."""
    profile = questions_for("", select_tasks(["EI-reg", "EI-oc", "V-reg", "V-oc", "E-c"]))
    texts = read_posts(args.posts, args.chat_posts)
    questions = [Question(q.task, text, q.emotion) for text in texts for q in profile]
    name, port = read_card(Path(args.model)).base.name, _free_port()
    with vllm(args, port):
        for one_prompt in (False, True):
            options = RequestOptions(reuse=False, in_flight=args.in_flight, timeout_s=600)
            url = f"http://127.0.0.1:{port}/v1"
            scorer = ServerScorer(name, server=[url], requests=options, one_prompt=one_prompt)
            print(scorer.detected.told())
            started = time.monotonic()
            found = scorer.score(questions)
            _say_speed(
                f"chat, {'a post' if one_prompt else 'a question'} per prompt",
                len(questions),
                time.monotonic() - started,
            )
            marks = Counter(answer.distribution or answer.error for answer in found)
            print(f"{told(asdict(scorer.usage))}; {dict(marks)}", flush=True)


def kill(args: argparse.Namespace) -> None:
    """A job whose server is killed with SIGKILL in the middle and started again half a minute later."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        posts = Path(folder) / "posts.jsonl"
        texts = read_posts(args.posts, args.kill_posts)
        posts.write_text("".join(json.dumps({"id": str(n), "text": t}) + "\n" for n, t in enumerate(texts)))
        out = Path(folder) / "out"
        job = [sys.executable, "-m", "emollm", "annotate", "--input", str(posts), "--out", str(out), "--tasks", "V-oc"]
        job += ["--model", args.model, "--server", f"http://127.0.0.1:{port}/v1", "--block-posts", "16", "--batch-size"]
        job += ["8", "--requests.in-flight", "4", "--requests.cache", str(Path(folder) / "cache")]
        job += ["--requests.patience-s", "900", "--cluster.num-workers", "1"]
        with vllm(args, port) as server:
            commits = out / "_unfinished" / "commits"
            for _ in range(_STARTS):
                running = subprocess.Popen(job, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                while running.poll() is None and len(_committed(commits)) < 2:
                    time.sleep(0.1)
                if running.poll() is None:
                    break
                print(f"the job ended before: {running.communicate()[0][-200:]}", flush=True)
            print(f"killed with {len(_committed(commits))} blocks committed of {-(-len(texts) // 16)}", flush=True)
            _end(server, signal.SIGKILL)
        time.sleep(30)
        with vllm(args, port):
            told, _ = running.communicate()
        print(told[-1200:])
        subprocess.run([sys.executable, "-m", "emollm.annotation", "verify", str(out)], check=True)


def _committed(folder: Path) -> list[Any]:
    return [file for file in folder.glob("*.parquet") if not file.name.endswith(".pending.parquet")]


if __name__ == "__main__":
    main()
