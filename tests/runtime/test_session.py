"""What actors are told, and where a job finds its Ray."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pyarrow as pa
import pytest

from emollm.core.bases import anywhere
from emollm.core.errors import ResourceError
from emollm.core.options import ClusterConfig


class Told:
    """Answers each batch with what its actor was told."""

    def __init__(self, *, model: str, device: str, num_threads: int) -> None:
        self._told = {"model": model, "device": device, "num_threads": num_threads}

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._told] * table.num_rows)


@pytest.mark.ray
@pytest.mark.parametrize(("cpus", "num_threads"), [(1.0, 1), (0.5, 1), (2.0, 2)])
def test_actors_are_told_the_device_and_threads_they_have(local_ray: None, cpus: float, num_threads: int) -> None:
    import ray.data

    from emollm.runtime.session import map_on_actors

    rows = ray.data.from_arrow(pa.table({"x": [1, 2]}))
    cluster = ClusterConfig(num_workers=1, cpus_per_worker=cpus)
    told = map_on_actors(rows, Told, {"model": "m"}, cluster, batch_size=2).take_all()
    assert told == [{"model": "m", "device": "cpu", "num_threads": num_threads}] * 2


def test_actors_with_a_gpu_are_told_cuda() -> None:
    from emollm.runtime.session import map_on_actors

    class Recorder:
        def map_batches(self, _cls: type, **options: object) -> dict[str, object]:
            return options

    options = map_on_actors(Recorder(), Told, {"model": "m"}, ClusterConfig(gpus_per_worker=0.5), batch_size=2)
    assert options["fn_constructor_kwargs"] == {"model": "m", "device": "cuda", "num_threads": 1}
    assert options["num_gpus"] == 0.5


@pytest.mark.parametrize("failures", [2, 3])
def test_a_ray_that_is_slow_to_start_is_started_again(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from emollm.runtime.session import ray_session

    starts = []

    def busy(**settings: object) -> None:
        starts.append(settings)
        if len(starts) <= failures:
            raise RuntimeError("The current node timed out during startup. This could happen because ...")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", busy)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    refused = pytest.raises(ResourceError, match="in 30 s, 3 times") if failures == 3 else contextlib.nullcontext()
    with refused, ray_session(ClusterConfig()):
        pass
    assert len(starts) == 3


@pytest.mark.ray
def test_what_can_never_be_placed_is_refused_with_numbers(local_ray: None) -> None:
    from emollm.runtime.session import check_resources

    with pytest.raises(ResourceError, match=r"2 training workers need 2 GPUs; Ray has 0; lower"):
        check_resources(ClusterConfig(num_workers=2, gpus_per_worker=1), what="training workers")


@pytest.mark.ray
def test_nodes_that_do_not_come_in_time_are_told(local_ray: None, capfd: pytest.CaptureFixture[str]) -> None:
    from emollm.runtime.session import check_resources

    cluster = ClusterConfig(num_workers=2, gpus_per_worker=1, wait_for_nodes_s=1)
    with pytest.raises(ResourceError, match=r"2 scoring actors need 2 GPUs; Ray has 0.*no more nodes came in 1 s"):
        check_resources(cluster, what="scoring actors", reads_data=True)
    assert "waiting up to 1 s for nodes" in capfd.readouterr().err


def test_a_folder_is_named_the_same_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert anywhere("mine") == str(tmp_path / "mine")
    assert anywhere("base:mine") == f"base:{tmp_path / 'mine'}"
    assert anywhere("smollm2-135m-instruct") == "smollm2-135m-instruct"
    assert anywhere("base:owner/model") == "base:owner/model"
