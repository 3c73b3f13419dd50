"""The checks of a running cluster: each looks at what the nodes said and returns what it found, and a remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from emollm.doctor.finding import Finding, Status
from emollm.doctor.probe import NodeFacts

GIB = 1 << 30
MIB = 1 << 20


def check_versions(nodes: Sequence[NodeFacts]) -> list[Finding]:
    """Python and Ray equal everywhere: others cannot talk to each other. The libraries too: results would differ."""
    findings = []
    pythons = _by_value({node.node: node.python for node in nodes})
    findings.append(_equal("Python", pythons, status="failed"))
    for package in nodes[0].versions:
        values = _by_value({node.node: node.versions[package] for node in nodes})
        if len(values) > 1 or package == "ray":
            findings.append(_equal(package, values, status="failed" if package == "ray" else "warning"))
    return findings


def check_token(nodes: Sequence[NodeFacts]) -> Finding:
    """Token authentication on, its file private."""
    without = [node.node for node in nodes if not node.token_auth]
    if without:
        return Finding(
            check="token",
            status="failed",
            says=f"{_some(without)} ask for no token: whoever reaches a port of Ray can run code",
            remedy="restart Ray with RAY_AUTH_MODE=token and the same token on every node: docs/cluster.md#the-token",
        )
    readable = [node.node for node in nodes if node.token_file_mode is not None and node.token_file_mode & 0o077]
    if readable:
        return Finding(
            check="token",
            status="failed",
            says=f"other users of {_some(readable)} can read the token",
            remedy="chmod 600 ~/.ray/auth_token there",
        )
    return Finding(check="token", status="ok", says=f"asked for on {_count(nodes)}")


def check_ports(nodes: Sequence[NodeFacts], *, dashboard_port: int | None, kubernetes: bool) -> Finding:
    """The dashboard on loopback only; the other ports of Ray behind the token."""
    if dashboard_port and any(dashboard_port in node.wildcard_ports for node in nodes):
        return Finding(
            check="ports",
            # There KubeRay's operator asks it for the state of jobs, from another pod.
            status="warning" if kubernetes else "failed",
            says=f"the dashboard's port {dashboard_port} listens on every address: its Jobs API runs code",
            remedy="apply the NetworkPolicy of cluster/kubernetes/storage-and-network.yaml"
            if kubernetes
            else "--dashboard-host=127.0.0.1",
        )
    open_ports = sorted({port for node in nodes for port in node.wildcard_ports})
    guarded = all(node.token_auth for node in nodes)
    if open_ports and not guarded:
        return Finding(
            check="ports",
            status="failed",
            says=f"{len(open_ports)} ports listen on every address, without a token: {_some(map(str, open_ports))}",
            remedy="turn the token on, and let only the cluster's own nodes reach each other",
        )
    if open_ports:
        dashboard = "dashboard on loopback" if dashboard_port else "no dashboard"
        says = f"{dashboard}; {len(open_ports)} ports behind the token listen on every address"
        return Finding(check="ports", status="ok", says=says)
    return Finding(check="ports", status="ok", says="none of Ray's ports listens on every address")


def check_gpus(nodes: Sequence[NodeFacts], *, wanted: float) -> Finding:
    """As many GPUs as Ray believes in, with one driver."""
    believed = {node.node: node.resources.get("GPU", 0) for node in nodes}
    lost = [node.node for node in nodes if len(node.gpus) < believed[node.node]]
    if lost:
        return Finding(
            check="GPUs",
            status="failed",
            says=f"{_some(lost)}: Ray has more GPUs than nvidia-smi shows",
            remedy="check the driver there (nvidia-smi), and restart Ray without --num-gpus",
        )
    drivers = {gpu.split(", ")[1] for node in nodes for gpu in node.gpus}
    if len(drivers) > 1:
        return Finding(
            check="GPUs",
            status="warning",
            says=f"drivers differ: {', '.join(sorted(drivers))}",
            remedy="start all nodes from one machine image",
        )
    total = sum(believed.values())
    if not total:
        return Finding(check="GPUs", status="skipped" if not wanted else "warning", says="no node has a GPU")
    names = {gpu.split(", ")[0] for node in nodes for gpu in node.gpus}
    return Finding(check="GPUs", status="ok", says=f"{total:g}: {', '.join(sorted(names))}")


def check_placement(
    nodes: Sequence[NodeFacts], *, cpus: float, gpus: float, workers: int, spare_cpus: float, waits: bool
) -> Finding:
    """Room for each worker on one node, and for what feeds them."""
    # A worker cannot be spread over nodes, so what counts is how many whole ones each node can take.
    fits = sum(
        min(_times(node.resources.get("CPU", 0), cpus), _times(node.resources.get("GPU", 0), gpus) if gpus else workers)
        for node in nodes
    )
    total = sum(node.resources.get("CPU", 0) for node in nodes)
    asked = f"{workers} workers of {cpus:g} CPUs" + (f" and {gpus:g} GPUs" if gpus else "")
    if fits >= workers and total >= workers * cpus + spare_cpus:
        return Finding(check="room", status="ok", says=f"{asked}: there is room on {_count(nodes)}")
    says = f"{asked}"
    says += f" and {spare_cpus:g} CPU for what feeds them" if spare_cpus else ""
    says += f": there is room for {min(fits, workers)}, of {total:g} CPUs in all"
    if waits:
        return Finding(
            check="room", status="warning", says=says, remedy="the job will ask the autoscaler for nodes and wait"
        )
    return Finding(
        check="room",
        status="failed",
        says=says,
        remedy="lower --cluster.num-workers or --cluster.cpus-per-worker; or bring nodes: --cluster.wait-for-nodes-s",
    )


def check_disk(nodes: Sequence[NodeFacts], *, min_free_gib: float) -> Finding:
    """Room for logs and spilled objects; an object store that memory holds."""
    full = [f"{node.node} ({node.free_bytes / GIB:.1f} GiB)" for node in nodes if node.free_bytes < min_free_gib * GIB]
    if full:
        return Finding(
            check="disk",
            status="failed",
            says=f"less than {min_free_gib:g} GiB free where Ray keeps its files: {_some(full)}",
            remedy="larger disks, or ray start --temp-dir on another; --min-free-gib sets the limit",
        )
    slow = [n.node for n in nodes if n.resources.get("object_store_memory", 0) > n.shared_memory_bytes]
    if slow:
        return Finding(
            check="disk",
            status="warning",
            says=f"{_some(slow)}: the object store is larger than /dev/shm and lies on disk",
            remedy="docker run --shm-size, or ray start --object-store-memory",
        )
    least = min(node.free_bytes for node in nodes) / GIB
    return Finding(check="disk", status="ok", says=f"at least {least:.0f} GiB free; object stores in memory")


def check_clocks(offsets: dict[str, float], *, max_skew_s: float) -> Finding:
    """The nodes' clocks against this one's, in seconds."""
    wrong = [f"{node} ({offset:+.1f} s)" for node, offset in offsets.items() if abs(offset) > max_skew_s]
    if wrong:
        return Finding(
            check="clocks",
            status="failed",
            says=f"off by more than {max_skew_s:g} s: {_some(wrong)}",
            remedy="start chrony or ntpd there: cloud signatures and file times go wrong otherwise",
        )
    most = max((abs(offset) for offset in offsets.values()), default=0.0)
    return Finding(check="clocks", status="ok", says=f"within {most:.2f} s")


def check_model(nodes: Sequence[NodeFacts], *, model: str) -> Finding:
    """The model's folder on every node, and the same one."""
    missing = [node.node for node in nodes if node.model == ""]
    if missing:
        return Finding(
            check="model",
            status="failed",
            says=f"{_some(missing)}: no model directory at {model}",
            remedy="put it on the storage that all nodes share",
        )
    if len({node.model for node in nodes}) > 1:
        return Finding(
            check="model",
            status="failed",
            says=f"{model} is not the same model on every node",
            remedy="put it on the storage that all nodes share",
        )
    return Finding(check="model", status="ok", says=f"{model} on {_count(nodes)}")


def check_storage(nodes: Sequence[NodeFacts], *, storage: str | None, min_mb_s: float) -> Finding:
    """One folder, seen and written by all, fast enough."""
    if storage is None:
        return Finding(
            check="storage",
            status="skipped" if len(nodes) == 1 else "warning",
            says="no --cluster.storage"
            + ("" if len(nodes) == 1 else ": give jobs absolute paths that all nodes share"),
        )
    errors = [f"{node.node} ({node.storage.error})" for node in nodes if node.storage and node.storage.error]
    if errors:
        return Finding(
            check="storage",
            status="failed",
            says=f"{storage} cannot be written from {_some(errors)}",
            remedy="mount it there, for the user that Ray runs as",
        )
    apart = [node.node for node in nodes if node.storage and not node.storage.sees_driver]
    if apart:
        return Finding(
            check="storage",
            status="failed",
            says=f"{storage} is another folder on {_some(apart)}",
            remedy="mount the same file system on every node: NFS, EFS, FSx for Lustre, Filestore",
        )
    write = min(node.storage.write_mb_s for node in nodes if node.storage)
    read = min(node.storage.read_mb_s for node in nodes if node.storage)
    if write < min_mb_s:
        return Finding(
            check="storage",
            status="warning",
            says=f"{storage} takes {write:.0f} MB/s from the slowest node; a 7B model is 13 GB",
            remedy="more throughput (docs/cluster.md#storage); --min-storage-mb-s sets the limit",
        )
    return Finding(check="storage", status="ok", says=f"{storage}: {write:.0f} MB/s in, {read:.0f} MB/s out")


def check_working_dir(num_bytes: int, *, limit_mib: float) -> Finding:
    """What `ray job submit --working-dir .` would send, before it is zipped."""
    if num_bytes > limit_mib * MIB:
        return Finding(
            check="folder",
            status="failed",
            says=f"--working-dir would send {num_bytes / MIB:.0f} MiB; Ray's own limit is 512",
            remedy="name what the code does not need in .rayignore",
        )
    return Finding(check="folder", status="ok", says=f"{num_bytes / MIB:.1f} MiB to send with --working-dir")


def _equal(what: str, nodes_by_value: dict[str | None, list[str]], *, status: Status) -> Finding:
    if len(nodes_by_value) == 1:
        return Finding(check="versions", status="ok", says=f"{what} {next(iter(nodes_by_value))} on every node")
    parts = "; ".join(f"{value} on {_some(nodes)}" for value, nodes in nodes_by_value.items())
    return Finding(
        check="versions",
        status=status,
        says=f"{what} differs: {parts}",
        remedy="start all nodes from one image (cluster/Dockerfile), or pip install -c constraints.txt on each",
    )


def _by_value(values: Mapping[str, str | None]) -> dict[str | None, list[str]]:
    nodes: dict[str | None, list[str]] = {}
    for node, value in values.items():
        nodes.setdefault(value, []).append(node)
    return nodes


def _times(have: float, each: float) -> int:
    """How often `each` goes into `have`; three tenths hold a tenth three times, whatever floats say."""
    return int(have / each + 1e-9)


def _count(nodes: Sequence[NodeFacts]) -> str:
    return f"{len(nodes)} nodes" if len(nodes) != 1 else "1 node"


def _some(names: Iterable[str], most: int = 4) -> str:
    """A few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
