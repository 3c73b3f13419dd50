"""Work on other processes of a Ray that is up: pools of actors, single tasks, and the reports they send back."""

from __future__ import annotations

import contextlib
import gc
import logging
import pickle
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from emollm.core.options import ClusterConfig

T = TypeVar("T")


def on_a_worker(cluster: ClusterConfig, ask: Callable[..., T], *args: Any) -> T:
    """What `ask(*args)` returns in a process with the CPUs and GPUs of a worker. Ray must be up."""
    import ray

    task = ray.remote(num_cpus=cluster.cpus_per_worker, num_gpus=cluster.gpus)(ask)
    found: T = ray.get(task.remote(*args))
    return found


def on_this_node() -> Any:
    """Where an actor belongs that a job cannot lose: it goes when the driver goes, and no other node takes it along."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class Reports:
    """Where remote workers put reports; a handle that may be sent to them."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def put(self, report: Any) -> None:
        """Hand a report over; returns when it has arrived."""
        # As bytes: the actor that holds the queue would load a report's module, and torch with it, to pass it on.
        self._queue.put(pickle.dumps(report))


@contextlib.contextmanager
def reports_to(receive: Callable[[Any], None]) -> Iterator[Reports]:
    """What remote workers put reports in; `receive` gets each one, on a thread of this process."""
    from ray.util.queue import Empty, Queue

    reports = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": on_this_node()})
    finished = threading.Event()

    def drain() -> None:
        while True:
            try:
                report = reports.get(timeout=0.5)
            except (Empty, queue.Empty):
                if finished.is_set():
                    return
                continue
            receive(pickle.loads(report))

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        yield Reports(reports)
    finally:
        finished.set()
        thread.join(timeout=10)
        reports.shutdown(force=True)


def map_on_actors(
    dataset: Any,
    callable_class: type,
    options: dict[str, Any],
    cluster: ClusterConfig,
    *,
    batch_size: int | None,
    max_workers: int | None = None,
) -> Any:
    """The dataset mapped by a pool of `cluster.num_workers` actors, each holding one `callable_class(**options)`.

    The class is also told the `device` and `num_threads` that the cluster gives each actor; "auto" is the GPU that
    PyTorch sees, so that a GPU that Ray was only told of works as a CPU. `batch_size` None gives it whole blocks. With
    `max_workers` the pool grows while more than it can do is waiting and there is room.
    """
    from ray.data import ActorPoolStrategy

    # Not `map_batches`: for GPUs it demands a `batch_size`, and with one it joins and cuts blocks.
    return dataset.map_batches_internal(
        callable_class,
        fn_constructor_kwargs={
            **options,
            # Told "cpu" where none is reserved: such an actor may see a GPU that is another's.
            "device": options.get("device", "auto") if cluster.gpus else "cpu",
            "num_threads": max(1, int(cluster.cpus_per_worker)),
        },
        compute=ActorPoolStrategy(
            min_size=cluster.num_workers,
            max_size=max_workers or cluster.num_workers,
            # One in work and one at hand: what waits at an actor that dies is sent elsewhere.
            max_tasks_in_flight_per_actor=2,
        ),
        num_cpus=cluster.cpus_per_worker,
        num_gpus=cluster.gpus,
        batch_size=batch_size,
        batch_format="pyarrow",
    )


def release_actors() -> None:
    """Free the actors of data sets that are no longer named: Ray ends an actor when its last handle is collected.

    Handles sit in cycles of Ray's executor, and in the traceback of an error that it raised. Until Python happens to
    collect those, the actors keep their CPUs and GPUs, and the next pool of the same process waits for them.
    """
    gc.collect()


def quiet_ray_data() -> None:
    """No bars and log lines of Ray Data's own: the jobs show theirs. Its log files stay."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logger = logging.getLogger("ray.data")
    logger.propagate = False
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL + 1)
