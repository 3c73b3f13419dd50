"""What tests share: tiny models, a data folder, one private Ray and one cluster of several nodes for each process."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.ray_cluster import RayCluster

RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's workers run at nice 15: beside any other busy process a two-minute test takes ten.
    "RAY_worker_niceness": "0",
    # An actor beside each training that asks whether a cloud takes the node back: two seconds of CPU, and none does.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # The head asks a node whether it lives twice a second, not every three: a killed one is noticed after 3 s, not 16.
    # A node that is slow to answer still has ten seconds for each of the five questions.
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_initial_delay_ms": "500",
}
# Before anything imports Ray or torch: no hub, one thread per process.
os.environ |= RAY | {"HF_HUB_OFFLINE": "1"}
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]

CLUSTERS = ("cluster/test_nodes.py", "test_jobs.py", "cluster/test_deaths.py")
"""The tests that share a cluster of several nodes, in this order."""
SERVE = tuple(f"serve/test_{name}.py" for name in ("app", "client", "page", "life", "load"))
"""Those that share a Ray Serve; the first three ask one deployment, the others replace it."""


_RUNNING: list[contextlib.ExitStack] = []
"""The shared cluster, while it runs."""


def pytest_configure() -> None:
    """No Ray but the tests' own."""
    for name in [name for name in os.environ if name.startswith("RAY_") and name not in RAY]:
        del os.environ[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the groups that take longest, then the other files that need a Ray."""
    order = (*CLUSTERS, *SERVE)
    on_ray = {item.path for item in items if item.get_closest_marker("ray")}

    def place(item: pytest.Item) -> int:
        file = str(item.path.relative_to(ROOT / "tests"))
        return order.index(file) if file in order else len(order) + (item.path not in on_ray)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep tests that share something in one process: those of a file, and of the files above."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0].removeprefix("tests/")
            return "clusters" if file in CLUSTERS else "serve" if file in SERVE else file

    return ByGroup(config, log)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random LLaMA as a base folder."""
    from tests.tiny import tiny_model

    return tiny_model("llama", tmp_path_factory.mktemp("bases") / "llama")


@pytest.fixture(scope="session")
def model_directory(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained tiny model directory: its answers are noise, its plumbing is real."""
    from emollm.models.load import load_base
    from emollm.models.save import save_model

    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    save_model(folder, load_base(str(tiny_base)))
    return folder


@pytest.fixture(scope="session")
def sample_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder built from the sample corpora, in all ten wordings."""
    from emollm.data.aaid import AaidConfig, build_aaid

    folder = tmp_path_factory.mktemp("data") / "aaid"
    build_aaid(AaidConfig(out=folder))
    return folder


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A private Ray: free ports, no dashboard, three logical CPUs and one logical GPU on any machine.

    So a job of one worker takes the road of GPUs, its device resolved by PyTorch, and one of two workers that of CPUs.
    """
    import ray

    from emollm.runtime.session import start_ray

    start_ray({"address": "local", "num_cpus": 3, "num_gpus": 1, "include_dashboard": False, "log_to_driver": False})
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A cluster that asks for a token: a head of one CPU, and the nodes that tests have added so far."""
    from tests.ray_cluster import ray_cluster

    with contextlib.ExitStack() as running:
        cluster = running.enter_context(ray_cluster(tmp_path_factory.mktemp("cluster"), num_cpus=1))
        _RUNNING.append(running)
        yield cluster


@pytest.fixture(scope="session")
def alone() -> Iterator[None]:
    """A process group of one. One for all tests: DeepSpeed keeps the first it meets, whoever destroys it."""
    import torch.distributed as dist

    os.environ["LOCAL_RANK"] = "0"
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    yield
    dist.destroy_process_group()
    del os.environ["LOCAL_RANK"]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The shared cluster and the shared endpoint end with their tests: they hold CPUs that others would wait for."""
    if _RUNNING and str(item.path.relative_to(ROOT / "tests")) not in CLUSTERS:
        _RUNNING.pop().close()
    if "serve" in item.path.parts or "ray.serve" not in sys.modules:
        return
    import ray
    from ray import serve

    if ray.is_initialized() and "emollm" in serve.status().applications:
        serve.delete("emollm")
