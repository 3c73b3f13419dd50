"""What the annotation job costs beside its scorer, and whether memory stays flat.

    python benchmarks/annotation.py --posts posts.jsonl.gz --times 10              # a scorer without a model
    python benchmarks/annotation.py --posts posts.jsonl.gz --model DIR --tasks profile

The scorer without a model waits `--wait-us` a post, as one on a GPU does. Seconds a post are its waiting and the CPU
time of its whole process: that holds on machines that others use too, where the wall clock does not.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from emollm.annotation.options import AnnotateConfig
from emollm.annotation.pipeline import annotate_corpus
from emollm.annotation.verify import verify
from emollm.core.answers import EMPTY_TEXT, Answer
from emollm.core.bases import DEFAULT_BASE
from emollm.core.card import AffectCard, BaseModelInfo
from emollm.core.options import ClusterConfig
from emollm.core.prompts import Question
from emollm.scoring.open import open_scorer
from emollm.scoring.rows import AnnotatePosts
from emollm.scoring.scorer import Scorer

_BARE_POSTS, _BLOCK = 40_960, 2048


@dataclass(frozen=True)
class Watched:
    """A scorer that notes when it was called, and the CPU time and memory of its process."""

    scorer: Scorer | None
    """None: the one without a model."""
    log: Path
    wait_s: float

    @property
    def card(self) -> AffectCard:
        return self.scorer.card if self.scorer else _CARD

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        posts = len({q.text for q in questions})
        answers = self.scorer.score(questions) if self.scorer else self._pretend(questions, posts)
        note = {
            "posts": posts,
            "wall": time.time(),
            "cpu": time.process_time(),
            "mib": resident_mib(),
            "pid": os.getpid(),
        }
        with self.log.open("a") as file:
            file.write(json.dumps(note) + "\n")
        return answers

    def _pretend(self, questions: Sequence[Question], posts: int) -> list[Answer]:
        time.sleep(self.wait_s * posts)
        return [
            Answer(value=zlib.crc32(q.text.encode()) / 2**32, std=0.1, confidence=0.5)
            if q.text.strip()
            else Answer(value=None, error=EMPTY_TEXT)
            for q in questions
        ]


@dataclass(frozen=True)
class Opener:
    log: Path
    wait_s: float
    real: bool

    def __call__(self, model: str, **options: Any) -> Watched:
        return Watched(open_scorer(model, **options) if self.real else None, self.log, self.wait_s)


_CARD = AffectCard(name="none", base=BaseModelInfo(name="none", architecture="decoder", licence="", fingerprint=""))


def resident_mib() -> float:
    """This process's own resident memory: pages of Ray's object store, shared by all, are no part of it."""
    status = Path("/proc/self/status").read_text()
    own = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(own.split()[1]) / 1024


def repeat(posts: Path, times: int, folder: Path, most: int | None) -> int:
    """The corpus `times` times, ids made different, a gzipped file each; returns the number of posts."""
    folder.mkdir()
    count = 0
    for number in range(times):
        with (
            gzip.open(posts, "rt", encoding="utf-8") as source,
            gzip.open(folder / f"posts-{number:03}.jsonl.gz", "wt", compresslevel=1, encoding="utf-8") as target,
        ):
            for i, line in enumerate(source):
                if i == most:
                    break
                row = json.loads(line)
                target.write(json.dumps({"id": f"{row['id']}-{number}", "text": row["text"]}) + "\n")
                count += 1
    return count


def tables(folder: Path, posts: int) -> Iterator[pa.Table]:
    with gzip.open(sorted(folder.iterdir())[0], "rt", encoding="utf-8") as source:
        rows = [json.loads(line) for _, line in zip(range(posts), source, strict=False)]
    for i in range(0, len(rows), _BLOCK):
        yield pa.Table.from_pylist(rows[i : i + _BLOCK])


def bare_seconds(opener: Opener, folder: Path, model: str, tasks: tuple[str, ...], posts: int) -> float:
    """Waiting and CPU seconds a post of the callable that actors hold, in this process, without Ray."""
    annotate = AnnotatePosts(tasks=tasks, model=model, engine="auto", opener=opener)
    _ = annotate.scorer
    blocks = list(tables(folder, posts))
    started = time.process_time()
    for block in blocks:
        annotate(block)
    return opener.wait_s + (time.process_time() - started) / sum(block.num_rows for block in blocks)


class Memory(threading.Thread):
    """This process's resident memory, ten times a second; so of the driver."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.points: list[tuple[float, float]] = []

    def run(self) -> None:
        while True:
            self.points.append((time.time(), resident_mib()))
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=Path, required=True, help="gzipped JSON lines with id and text")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--max-posts", type=int, help="of each repetition")
    parser.add_argument("--model", help="score for real; without, a scorer that waits")
    parser.add_argument("--tasks", nargs="+", default=["V-reg"])
    parser.add_argument("--wait-us", type=float, default=300.0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--bare-posts", type=int, default=_BARE_POSTS)
    chosen = parser.parse_args()
    tasks = tuple(chosen.tasks)

    with tempfile.TemporaryDirectory(prefix="emollm-annotation-") as name:
        home = Path(name)
        count = repeat(chosen.posts, chosen.times, home / "posts", chosen.max_posts)
        model = chosen.model or DEFAULT_BASE
        wait_s = 0.0 if chosen.model else chosen.wait_us / 1e6
        opener = Opener(home / "calls", wait_s, real=bool(chosen.model))
        bare = bare_seconds(opener, home / "posts", model, tasks, chosen.bare_posts)
        opener.log.unlink()
        memory = Memory()
        memory.start()
        job = AnnotateConfig(
            model=model,
            input=str(home / "posts"),
            out=str(home / "out"),
            tasks=tasks,
            block_posts=_BLOCK if not chosen.model else None,
            cluster=ClusterConfig(num_workers=chosen.workers),
        )
        started = time.time()
        summary = annotate_corpus(job, opener=opener)
        ended = time.time()
        found = verify(job.out)
        report(count, summary, opener, bare, memory.points, started, ended)
        print(f"verify: {found.posts:,} posts, {'clean' if not found.problems else found.problems}")


def report(
    count: int,
    summary: dict[str, Any],
    opener: Opener,
    bare: float,
    driver: Sequence[tuple[float, float]],
    started: float,
    ended: float,
) -> None:
    calls = [json.loads(line) for line in opener.log.read_text().splitlines()]
    by_actor = {pid: [call for call in calls if call["pid"] == pid] for pid in {call["pid"] for call in calls}}
    posts = cpu = 0.0
    for mine in by_actor.values():
        # From the end of its first call: loading is no part of it.
        posts += sum(call["posts"] for call in mine[1:])
        cpu += mine[-1]["cpu"] - mine[0]["cpu"]
    first, last = min(call["wall"] for call in calls), max(call["wall"] for call in calls)
    # A text that was answered by an equal one's answers was not scored.
    in_job = opener.wait_s + cpu / posts
    print(f"{count:,} posts, {summary['repeated']:,} of them answered by an equal text in their block")
    print(f"bare callable {bare * 1e6:,.0f} us a post; in the job {in_job * 1e6:,.0f} us: {bare / in_job:.1%} as fast")
    print(
        f"wall: {first - started:.0f} s to the first answer (Ray, staging), {last - first:.0f} s of scoring "
        f"({count / (last - first):,.0f} posts/s), {ended - last:.0f} s to finish"
    )
    for name, points in (
        ("driver", driver),
        *((f"actor {pid}", [(c["wall"], c["mib"]) for c in by_actor[pid]]) for pid in by_actor),
    ):
        quarters = [
            next(mib for wall, mib in points if wall >= first + q * (last - first)) for q in (0, 0.25, 0.5, 0.75)
        ]
        shown = ", ".join(f"{mib:,.0f}" for mib in [*quarters, [mib for wall, mib in points if wall <= last][-1]])
        print(f"{name}: {shown} MiB at the quarters of scoring; at most {max(mib for _, mib in points):,.0f}")


if __name__ == "__main__":
    main()
