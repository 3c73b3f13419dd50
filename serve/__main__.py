"""Start the endpoint on this machine: python -m serve --model DIR"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Sequence

from emollm.affect_card import card_tasks
from emollm.config import ClusterConfig, read_config, run_job
from emollm.errors import ResourceError
from serve.config import ServeConfig


def check_port(host: str, port: int) -> None:
    """Raise ResourceError if something listens there already."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As the server itself does: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ResourceError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None


def main(argv: Sequence[str]) -> None:
    config = read_config(ServeConfig, argv, prog="serve")
    card_tasks(config.model)
    check_port(config.host, config.port)

    from ray import serve

    from emollm.ray_session import ray_session
    from serve.app import build

    print(f"loading {config.model} ...", flush=True)
    with ray_session(ClusterConfig(ray_address="local")):
        serve.start(http_options={"host": config.host, "port": config.port})
        serve.run(build(config.model_dump()), name="emollm", route_prefix="/")
        print(f"serving on http://{config.host}:{config.port}  (try /docs; Ctrl-C stops)", flush=True)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        stop.wait()
        print("stopping", flush=True)


if __name__ == "__main__":
    run_job(main)
