"""A driver to be killed: python -m tests.annotation.drive JOB.json LOG [NODES]

Annotates with the scorer without a model, which is held by LOG.hold. With NODES, on a cluster of so many nodes in this
process, the last of which is killed (SIGKILL to its raylet and all it started) once two blocks are committed, and then
LOG.hold is removed; which rows were committed is left in LOG.killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from emollm.annotation.options import AnnotateConfig
from emollm.annotation.pipeline import annotate_corpus
from emollm.core.options import run_job
from tests.annotation.cheap import CheapOpener
from tests.waiting import wait_for


def commits(out: str | Path) -> list[Path]:
    """The blocks that count, of an unfinished output."""
    found = (Path(out) / "_unfinished" / "commits").glob("*.parquet")
    return [path for path in found if not path.name.endswith(".pending.parquet")]


def committed_posts(out: str | Path) -> set[str]:
    """Their texts."""
    return {f"post {row}" for path in commits(out) for row in pq.read_table(path)["row"].to_pylist()}


def main(argv: Any) -> None:
    config = AnnotateConfig.model_validate_json(Path(argv[0]).read_text())
    hold = Path(f"{argv[1]}.hold")
    with _nodes(int(argv[2]), config.out, Path(f"{argv[1]}.killed"), hold) if len(argv) > 2 else nullcontext():
        summary = annotate_corpus(config, opener=CheapOpener(Path(argv[1]), 0.02, hold))
    print(json.dumps(summary))


@contextmanager
def _nodes(count: int, out: str, note: Path, hold: Path) -> Any:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(count - 1)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

    def kill_last() -> None:
        wait_for(lambda: len(commits(out)) >= 2)
        note.write_text(json.dumps(sorted(committed_posts(out))))
        time.sleep(5)  # a task that has committed has yet to tell so: killed in between, Ray has its block done again
        for process in nodes[-1].live_processes():
            os.kill(process[1].pid, signal.SIGKILL)
        print("node killed", file=sys.stderr, flush=True)
        hold.unlink()

    threading.Thread(target=kill_last, daemon=True).start()
    try:
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in a shell's background is born deaf to it
    run_job(main)
