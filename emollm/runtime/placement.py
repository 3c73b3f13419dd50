"""Whether the workers of a job have room on the nodes of Ray, and which GPUs they get. Ray must be up."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from emollm.core.errors import ResourceError
from emollm.core.options import ClusterConfig, with_values

LIGHT_TASK_CPUS = 1
"""CPUs left for the tasks that read, split and write: actors on every CPU would wait for them for ever."""

Node = Mapping[str, float]
"""What Ray may place on a node: CPU, GPU and others."""


def room(nodes: Sequence[Node], *, cpus: float, gpus: float, light_cpus: float = 0) -> int:
    """How many workers of `cpus` and `gpus` the nodes hold; a worker cannot be spread over two.

    `light_cpus` are kept free beside them on the node where that costs fewest workers.
    """
    whole = [_holds(node, cpus, gpus) for node in nodes]
    if not light_cpus:
        return sum(whole)
    beside = [
        sum(whole) - held + _holds({**node, "CPU": node["CPU"] - light_cpus}, cpus, gpus)
        for node, held in zip(nodes, whole, strict=True)
        if node.get("CPU", 0) >= light_cpus
    ]
    return max(beside, default=0)


def _holds(node: Node, cpus: float, gpus: float) -> int:
    by_cpus = _times(node.get("CPU", 0), cpus)
    if not gpus:
        return by_cpus
    have = node.get("GPU", 0)
    # Parts of several GPUs do not make one: 0.4 is two on each.
    by_gpus = _times(have, gpus) if gpus >= 1 else int(have) * _times(1, gpus)
    return min(by_cpus, by_gpus)


def _times(have: float, each: float) -> int:
    """How often `each` goes into `have`; three tenths hold a tenth three times, whatever floats say."""
    return max(0, int(have / each + 1e-9))


def alive_nodes() -> list[Node]:
    """What each living node offers."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_resources(cluster: ClusterConfig, *, what: str, reads_data: bool = False) -> None:
    """Raise ResourceError if the workers asked for can never be placed; Ray itself would wait without a word.

    With `reads_data` the tasks that feed the workers need `LIGHT_TASK_CPUS` beside them. Nodes that an autoscaler
    has yet to bring are asked for, and waited for up to `cluster.wait_for_nodes_s`.
    """
    light_cpus = LIGHT_TASK_CPUS if reads_data else 0
    lacking = lacks(alive_nodes(), cluster, what, light_cpus=light_cpus)
    if lacking and cluster.wait_for_nodes_s:
        lacking = _wait_for_nodes(cluster, what, light_cpus=light_cpus)
    if lacking:
        raise ResourceError(lacking)


def lacks(nodes: Sequence[Node], cluster: ClusterConfig, what: str, *, light_cpus: float = 0) -> str | None:
    """What the nodes have too little of for the cluster's workers, in a sentence with numbers."""
    workers, cpus, gpus = cluster.num_workers, cluster.cpus_per_worker, cluster.gpus
    fit = room(nodes, cpus=cpus, gpus=gpus, light_cpus=light_cpus)
    if fit >= workers:
        return None
    and_feeders = " and what feeds them" if light_cpus else ""
    totals = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
    for name, need, option in (("CPU", workers * cpus + light_cpus, "cpus"), ("GPU", workers * gpus, "gpus")):
        if need > totals[name]:
            return (
                f"{workers} {what}{and_feeders if name == 'CPU' else ''} need {need:g} {name}s; Ray has "
                f"{totals[name]:g}; lower --cluster.num-workers (now {workers}) or --cluster.{option}-per-worker, or "
                "use a larger cluster"
            )
    each = f"{cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
    have = ", ".join(f"{node.get('CPU', 0):g}" + (f"+{node.get('GPU', 0):g}" if gpus else "") for node in nodes[:8])
    units = "CPUs+GPUs" if gpus else "CPUs"
    return (
        f"{workers} {what} of {each}{and_feeders} do not fit: the nodes have {have} {units}, which is room for {fit}, "
        f"and a worker cannot be spread over two; lower --cluster.num-workers (now {workers}) or "
        "--cluster.cpus-per-worker, or use larger nodes"
    )


def _wait_for_nodes(cluster: ClusterConfig, what: str, *, light_cpus: float) -> str | None:
    """Ask the autoscaler for the workers' resources and wait; what is still lacking at the end, if anything."""
    from ray.autoscaler.sdk import request_resources

    worker = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus}
    bundles = [{name: amount for name, amount in worker.items() if amount}] * cluster.num_workers
    request_resources(bundles=bundles + ([{"CPU": light_cpus}] if light_cpus else []))
    print(f"waiting up to {cluster.wait_for_nodes_s:g} s for nodes", file=sys.stderr, flush=True)
    give_up = time.monotonic() + cluster.wait_for_nodes_s
    try:
        while lacking := lacks(alive_nodes(), cluster, what, light_cpus=light_cpus):
            if time.monotonic() > give_up:
                return f"{lacking}; no more nodes came in {cluster.wait_for_nodes_s:g} s"
            time.sleep(1)
        return None
    finally:
        # A request stands until the next one: left, it would keep idle nodes, and their bill, for ever.
        request_resources(bundles=[])


def with_gpus(cluster: ClusterConfig, *, device: str = "auto") -> ClusterConfig:
    """The same with `gpus_per_worker` decided: 1 where Ray has a GPU for each worker, else 0. Ray must be up.

    `device` is what the job asks for: "cpu" takes no GPU, "cuda" takes one per worker, there or not.

    Where there are GPUs, one line on stderr says what is used of them.
    """
    import ray

    have = ray.cluster_resources().get("GPU", 0.0)
    if device == "cpu":
        return with_values(cluster, gpus_per_worker=0.0)
    if cluster.gpus_per_worker is None:
        enough = have >= cluster.num_workers or device == "cuda"
        if have:
            used = "one for each worker" if enough else f"none: there are {cluster.num_workers} workers"
            print(f"Ray has {have:g} GPUs, used: {used} (--cluster.gpus-per-worker)", file=sys.stderr, flush=True)
        return with_values(cluster, gpus_per_worker=1.0 if enough else 0.0)
    if have and not cluster.gpus:
        print(f"Ray has {have:g} GPUs, used: none (--cluster.gpus-per-worker 0)", file=sys.stderr, flush=True)
    return cluster
