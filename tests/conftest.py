"""What tests share: tiny models, a data folder, and one private Ray for the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports them: no hub, no usage report, one thread a process.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Ray's workers run at nice 15: beside any other busy process a two-minute test takes ten.
os.environ |= {"RAY_worker_niceness": "0"}
# An actor beside each training that asks whether a cloud takes the node back: two seconds of CPU, and none does here.
os.environ |= {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("RAY_ADDRESS", None)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random LLaMA as a base folder."""
    from tests.tiny import tiny_model

    return tiny_model("llama", tmp_path_factory.mktemp("bases") / "llama")


@pytest.fixture(scope="session")
def model_directory(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained tiny model directory: its answers are noise, its plumbing is real."""
    from emollm.models.load import load_base, save_model

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
