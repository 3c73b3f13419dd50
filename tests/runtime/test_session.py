"""What actors are told, and where a job finds its Ray."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pyarrow as pa
import pytest

from emollm.core.bases import anywhere, model_key
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

    from emollm.runtime.pools import map_on_actors

    rows = ray.data.from_arrow(pa.table({"x": [1, 2]}))
    cluster = ClusterConfig(num_workers=1, cpus_per_worker=cpus)
    told = map_on_actors(rows, Told, {"model": "m"}, cluster, batch_size=2).take_all()
    assert told == [{"model": "m", "device": "cpu", "num_threads": num_threads}] * 2


@pytest.mark.ray
@pytest.mark.parametrize(("asked", "told"), [({}, "auto"), ({"device": "cuda"}, "cuda")])
def test_actors_with_a_gpu_get_whole_blocks_and_the_device_that_was_asked_for(
    local_ray: None, asked: dict[str, str], told: str
) -> None:
    import ray.data

    from emollm.runtime.pools import map_on_actors

    class Sizes(Told):
        def __call__(self, table: pa.Table) -> pa.Table:
            return pa.table({"rows": [table.num_rows], "device": [self._told["device"]]})

    blocks = ray.data.from_arrow([pa.table({"x": [0] * size}) for size in (1, 3, 2)])
    cluster = ClusterConfig(num_workers=1, gpus_per_worker=0.5)
    found = map_on_actors(blocks, Sizes, {"model": "m", **asked}, cluster, batch_size=None).take_all()
    assert sorted(row["rows"] for row in found) == [1, 2, 3] and {row["device"] for row in found} == {told}


@pytest.mark.ray
@pytest.mark.parametrize(
    ("asked", "device", "gpus", "said"),
    [
        ({"num_workers": 1}, "auto", 1.0, "used: one for each worker"),
        ({"num_workers": 2}, "auto", 0.0, "used: none: there are 2 workers"),
        ({"num_workers": 1, "gpus_per_worker": 0}, "auto", 0.0, "used: none (--cluster.gpus-per-worker 0)"),
        ({"num_workers": 2, "gpus_per_worker": 0.5}, "auto", 0.5, ""),
        ({"num_workers": 1}, "cpu", 0.0, ""),
        ({"num_workers": 2}, "cuda", 1.0, "used: one for each worker"),
    ],
)
def test_a_gpu_for_each_worker_is_used_and_said(
    local_ray: None, asked: dict[str, float], device: str, gpus: float, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from emollm.runtime.placement import with_gpus

    assert with_gpus(ClusterConfig.model_validate(asked), device=device).gpus_per_worker == gpus
    assert said in capfd.readouterr().err


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
def test_nodes_that_do_not_come_in_time_are_told(local_ray: None, capfd: pytest.CaptureFixture[str]) -> None:
    from emollm.runtime.placement import check_resources

    cluster = ClusterConfig(num_workers=2, gpus_per_worker=1, wait_for_nodes_s=1)
    with pytest.raises(ResourceError, match=r"2 scoring actors need 2 GPUs; Ray has 1.*no more nodes came in 1 s"):
        check_resources(cluster, what="scoring actors", reads_data=True)
    assert "waiting up to 1 s for nodes" in capfd.readouterr().err


def test_a_private_ray_has_the_cpus_that_the_process_may_use() -> None:
    from emollm.runtime.session import usable_cpus

    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert 1 <= usable_cpus() <= len(allowed)


def test_rays_own_messages_are_not_printed_in_a_session(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray
    from ray._private import worker

    from emollm.runtime.session import ray_session

    def told() -> None:
        """As Ray does when a worker or a node dies."""
        worker.print_to_stdstream({"lines": ["A worker died"], "pid": "raylet", "is_err": False}, ignore_prefix=False)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_settings: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with ray_session(ClusterConfig()):
        told()
    assert capsys.readouterr().out == ""
    told()
    assert "A worker died" in capsys.readouterr().out  # what would be printed without


def test_a_folder_is_named_the_same_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert anywhere("mine") == str(tmp_path / "mine")
    assert anywhere("base:mine") == f"base:{tmp_path / 'mine'}"
    assert anywhere("smollm2-135m-instruct") == "smollm2-135m-instruct"
    assert anywhere("base:owner/model") == "base:owner/model"
    (tmp_path / "opt-13b").mkdir()
    assert anywhere("opt-13b") == "opt-13b"  # the base, as everywhere else


def test_all_names_of_a_model_have_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to("mine")
    names = ("mine", "./mine/", "../" + tmp_path.name + "/mine", "link", str(tmp_path / "mine"))
    assert {model_key(name) for name in names} == {str((tmp_path / "mine").resolve())}
    assert model_key("base:link") == f"base:{model_key('mine')}"
    assert model_key("fast") == model_key("minilm-affect") != model_key("llm")
