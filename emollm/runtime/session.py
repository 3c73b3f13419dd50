"""Connect a job to Ray: the cluster it was submitted to, one that is named, or a private one of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from emollm.core import errors
from emollm.core.errors import EmollmError, ResourceError
from emollm.core.options import ClusterConfig

LIGHT_TASK_CPUS = 1
"""CPUs left for the tasks that read, split and write: actors on every CPU would wait for them for ever."""
_STARTS = 3
"""Of a private Ray, before it is given up."""


@contextlib.contextmanager
def ray_session(cluster: ClusterConfig) -> Iterator[None]:
    """Ray is up inside the block. A private Ray is stopped at its end; a cluster is only left.

    Without an address and outside a submitted job a new local Ray is started even if another is running on this
    machine: that one may be somebody else's. Raises ResourceError if the address does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():  # the caller holds the session, as quickstart does around its steps
        yield
        return
    address = cluster.ray_address or os.environ.get("RAY_ADDRESS") or "local"
    settings: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        settings |= {"include_dashboard": False, "num_cpus": (os.cpu_count() or 1) + LIGHT_TASK_CPUS}
    # One clear report of our own instead of each worker's log lines; those stay in Ray's session folder.
    start_ray(settings)
    try:
        with _native_stderr_aside():
            yield
    finally:
        ray.shutdown()


def start_ray(settings: dict[str, Any]) -> None:
    """`ray.init` with these; a private Ray that is not up after Ray's 30 s, which no option changes, is started again.

    Raises ResourceError if it does not come up, or the address does not answer.
    """
    import ray

    for _ in range(_STARTS):
        try:
            ray.init(**settings)
            return
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
        if "timed out during startup" not in reason:
            raise ResourceError(
                f"cannot connect to Ray at {settings['address']}: {reason}; is it up (`ray status`), "
                "and is RAY_AUTH_MODE=token set here if it asks for a token?"
            )
    raise ResourceError(
        f"Ray did not start in 30 s, {_STARTS} times: this machine is too busy; run the same command again"
    )


@contextlib.contextmanager
def _native_stderr_aside() -> Iterator[None]:
    """What Ray's C++ core writes to stderr goes to a log file; Python's own stderr stays where it is.

    The core warns about each actor pool in words that sound like a failure and are none. The file is removed at
    the end, unless the block fails. Trap: a rich bar that is open at the start must still be open at the end, for it
    puts the stderr of its own start back.
    """
    try:
        redirectable = sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):  # a notebook, or pytest's capture
        redirectable = False
    if not redirectable:
        yield
        return
    log = tempfile.NamedTemporaryFile(prefix="emollm-ray-", suffix=".log", delete=False)  # noqa: SIM115
    terminal, before = os.dup(2), sys.stderr
    sys.stderr = ours = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(log.fileno(), 2)
    try:
        yield
        Path(log.name).unlink(missing_ok=True)
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        if sys.stderr is ours:
            sys.stderr = before
        ours.close()
        log.close()


def check_resources(cluster: ClusterConfig, *, what: str, reads_data: bool = False) -> None:
    """Raise ResourceError if the workers asked for can never be placed; Ray itself would wait without a word.

    With `reads_data` the tasks that feed the workers need `LIGHT_TASK_CPUS` beside them. Nodes that an autoscaler
    has yet to bring are asked for, and waited for up to `cluster.wait_for_nodes_s`.
    """
    lacking = _lacking(cluster, what, reads_data=reads_data)
    if lacking and cluster.wait_for_nodes_s:
        lacking = _wait_for_nodes(cluster, what, reads_data=reads_data)
    if lacking:
        raise ResourceError(lacking)


def _lacking(cluster: ClusterConfig, what: str, *, reads_data: bool) -> str | None:
    """What Ray has too little of, in a sentence with numbers."""
    import ray

    have = ray.cluster_resources()
    need_cpus = cluster.num_workers * cluster.cpus_per_worker + (LIGHT_TASK_CPUS if reads_data else 0)
    need_gpus = cluster.num_workers * cluster.gpus_per_worker
    for name, need, option in (("CPU", need_cpus, "cpus"), ("GPU", need_gpus, "gpus")):
        and_feeders = " and what feeds them" if reads_data and name == "CPU" else ""
        if need > have.get(name, 0):
            return (
                f"{cluster.num_workers} {what}{and_feeders} need {need:g} {name}s; Ray has {have.get(name, 0):g}; "
                f"lower --cluster.num-workers (now {cluster.num_workers}) or --cluster.{option}-per-worker, or use a "
                "larger cluster"
            )
    return None


def _wait_for_nodes(cluster: ClusterConfig, what: str, *, reads_data: bool) -> str | None:
    """Ask the autoscaler for the workers' resources and wait; what is still lacking at the end, if anything."""
    from ray.autoscaler.sdk import request_resources

    worker = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker}
    bundles = [{name: amount for name, amount in worker.items() if amount}] * cluster.num_workers
    request_resources(bundles=bundles + ([{"CPU": LIGHT_TASK_CPUS}] if reads_data else []))
    print(f"waiting up to {cluster.wait_for_nodes_s:g} s for nodes", file=sys.stderr, flush=True)
    give_up = time.monotonic() + cluster.wait_for_nodes_s
    try:
        while lacking := _lacking(cluster, what, reads_data=reads_data):
            if time.monotonic() > give_up:
                return f"{lacking}; no more nodes came in {cluster.wait_for_nodes_s:g} s"
            time.sleep(1)
        return None
    finally:
        # A request stands until the next one: left, it would keep idle nodes, and their bill, for ever.
        request_resources(bundles=[])


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

    The class is also told the `device` and `num_threads` that the cluster gives each actor. `batch_size` None gives it
    whole blocks. With `max_workers` the pool grows while more than it can do is waiting and there is room.
    """
    from ray.data import ActorPoolStrategy

    return dataset.map_batches(
        callable_class,
        fn_constructor_kwargs={
            **options,
            "device": "cuda" if cluster.gpus_per_worker else "cpu",
            "num_threads": max(1, int(cluster.cpus_per_worker)),
        },
        compute=ActorPoolStrategy(
            min_size=cluster.num_workers,
            max_size=max_workers or cluster.num_workers,
            # One in work and one at hand: what waits at an actor that dies is sent elsewhere.
            max_tasks_in_flight_per_actor=2,
        ),
        num_cpus=cluster.cpus_per_worker,
        num_gpus=cluster.gpus_per_worker,
        batch_size=batch_size,
        batch_format="pyarrow",
    )


def quiet_ray_data() -> None:
    """No bars and log lines of Ray Data's own: the jobs show theirs. Its log files stay."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    logger = logging.getLogger("ray.data")
    logger.propagate = False
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL + 1)


def worker_error(error: BaseException, *, doing: str) -> EmollmError:
    """What a worker's own code raised, out of the exception that Ray raises in its place.

    Ray Data carries the cause as text only. An error of ours comes back as itself; any other as ResourceError
    with its last line.
    """
    text = str(error)
    if ours := _OWN_ERROR.findall(text):
        name, message = ours[-1]
        cls: type[EmollmError] = getattr(errors, name)
        return cls(message)
    # The worker's traceback ends in the line before Ray's own begins.
    lines = [line for line in text.split("The above exception")[0].strip().splitlines() if line.strip()]
    return ResourceError(f"{doing} failed: {lines[-1] if lines else type(error).__name__}")


_OWN_ERROR = re.compile(r"^emollm\.core\.errors\.(\w+): (.*)$", re.MULTILINE)
