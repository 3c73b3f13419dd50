"""Start the endpoint on this machine: emollm serve --model DIR"""

from __future__ import annotations

import re
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from emollm.core.card import card_tasks
from emollm.core.errors import ResourceError
from emollm.core.options import ClusterConfig, need, read_config, run_job, with_values
from emollm.serve.auth import check_access
from emollm.serve.config import ServeConfig


def check_port(host: str, port: int) -> None:
    """Raise ResourceError if something listens there already."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As the server itself does: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ResourceError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None


def metrics_address(node: Mapping[str, Any]) -> str:
    """Where Ray's exporter listens on a node of `ray.nodes()`."""
    return f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"


def check_room(cluster: ClusterConfig) -> None:
    """Raise ResourceError, in words of this command's options, if the replicas do not fit into the Ray that is up."""
    from emollm.runtime.placement import check_resources

    try:
        check_resources(cluster, what="replicas")
    except ResourceError as error:
        said = str(error).replace("--cluster.num-workers", "--replicas")
        raise ResourceError(re.sub(r"--cluster\.(\w+)-per-worker", r"--\1-per-replica", said)) from None


def main(argv: Sequence[str]) -> None:
    config = read_config(ServeConfig, argv, prog="serve")
    check_access(config)
    card_tasks(config.model)
    check_port(config.host, config.port)
    need("fastapi")

    import ray
    from ray import serve

    from emollm.runtime.placement import with_gpus
    from emollm.runtime.session import ray_session
    from emollm.serve.start import deploy

    cluster = ClusterConfig(
        ray_address="local",
        num_workers=config.replicas,
        cpus_per_worker=config.cpus_per_replica,
        gpus_per_worker=config.gpus_per_replica,
    )
    print(f"loading {config.model} ...", flush=True)
    with ray_session(cluster):
        cluster = with_gpus(cluster, device=config.device)
        config = with_values(config, gpus_per_replica=cluster.gpus)
        check_room(cluster)
        serve.start(http_options={"host": config.host, "port": config.port})
        deploy(config)
        print(f"the page, the API and its /docs: http://{config.host}:{config.port}", flush=True)
        print(f"metrics for Prometheus:          {metrics_address(ray.nodes()[0])}", flush=True)
        print("Ctrl-C stops", flush=True)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        stop.wait()
        print("stopping", flush=True)


if __name__ == "__main__":
    run_job(main)
