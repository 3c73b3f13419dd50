"""Annotation without Ray: its actors, tasks and data set are threads of this process, for tests of what is around them.

What Ray does beside running things is not here: nothing is pickled, nothing dies, and no node is far away.
"""

from __future__ import annotations

import contextlib
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import ray.data

from emollm.annotation import actor, monitor
from emollm.runtime import pools

CPUS = 3


class OnThreads:
    """What `ray.remote` gives: a function or a class whose calls run on one thread and return futures."""

    def __init__(self, target: Callable[..., Any]) -> None:
        self._target = target
        self._thread = ThreadPoolExecutor(1)

    def options(self, **_: Any) -> OnThreads:
        return self

    def remote(self, *args: Any, **options: Any) -> Any:
        if isinstance(self._target, type):
            return _Actor(self._target(*args, **options), self._thread)
        return self._thread.submit(self._target, *args, **options)


@dataclass(frozen=True)
class _Actor:
    instance: Any
    thread: ThreadPoolExecutor

    def __getattr__(self, name: str) -> OnThreads:
        method = OnThreads(getattr(self.instance, name))
        method._thread = self.thread
        return method


@dataclass(frozen=True)
class Mapped:
    """A data set that a pool of actors maps, each block on its own."""

    source: ray.data.Datasource
    workers: list[Callable[[pa.Table], pa.Table]]

    def write_parquet(self, path: str, *, filesystem: Any, **_: Any) -> None:
        """Score and commit: a file per block, and the list of its rows beside, as Ray Data's checkpoint has them."""
        commits = ray.data.DataContext.get_current().checkpoint_config.checkpoint_path

        def one(task: ray.data.ReadTask, worker: Callable[[pa.Table], pa.Table]) -> None:
            scored = worker(pa.concat_tables(task()))
            name = uuid.uuid4().hex
            pq.write_table(scored, f"{path}/{name}-0.parquet", filesystem=filesystem)
            pq.write_table(scored.select(["row"]), f"{commits}/{name}.parquet", filesystem=filesystem)

        threads = {id(worker): ThreadPoolExecutor(1) for worker in self.workers}
        running = [
            threads[id(worker)].submit(one, task, worker)
            for task, worker in zip(self.source.get_read_tasks(1), cycle(self.workers), strict=False)
        ]
        try:
            for block in running:
                block.result()
        except Exception as error:  # as Ray Data tells it: in words
            raise ray.exceptions.RayError("".join(traceback.format_exception(error))) from None
        finally:
            for thread in threads.values():
                thread.shutdown(cancel_futures=True)


def _map_on_actors(dataset: Any, callable_class: Any, options: dict[str, Any], cluster: Any, **_: Any) -> Mapped:
    options = {**options, "device": "cpu", "num_threads": 1}
    return Mapped(dataset, [callable_class(**options) for _ in range(cluster.num_workers)])


def _remote(*args: Any, **_: Any) -> Any:
    return OnThreads(args[0]) if args else OnThreads


def _wait(futures: list[Future[Any]], **_: Any) -> tuple[list[Future[Any]], list[Future[Any]]]:
    done, _ = wait(futures, return_when=FIRST_COMPLETED)
    first = next(future for future in futures if future in done)
    return [first], [future for future in futures if future is not first]


def _get(future: Future[Any], timeout: float | None = None) -> Any:
    try:
        return future.result(timeout)
    except Exception as error:
        raise ray.exceptions.RayError("".join(traceback.format_exception(error))) from None


class _NoMetrics:
    def count(self, portion: object) -> None:
        pass


@contextlib.contextmanager
def on_threads() -> Iterator[None]:
    """`annotate_corpus` runs on threads inside the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "is_initialized", lambda: True)
        patch.setattr(ray, "cluster_resources", lambda: {"CPU": float(CPUS)})
        patch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": float(CPUS)}}])
        patch.setattr(ray, "remote", _remote)
        patch.setattr(ray, "get", _get)
        patch.setattr(ray, "wait", _wait)
        patch.setattr(ray, "kill", lambda _: None)
        patch.setattr(ray.data, "read_datasource", lambda source, **_: source)
        patch.setattr(pools, "map_on_actors", _map_on_actors)
        patch.setattr(pools, "on_this_node", lambda: None)
        patch.setattr(monitor, "Metrics", _NoMetrics)
        # A post that hangs is ended by the end of its process, and this one is pytest's.
        patch.setattr(actor, "ending_if_it_hangs", lambda _: contextlib.nullcontext())
        yield
