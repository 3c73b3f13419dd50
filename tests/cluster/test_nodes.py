"""Several nodes: who may join, who is waited for, what the doctor says. The tests follow each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from emollm.data.aaid import SAMPLES
from tests.conftest import ROOT
from tests.ray_cluster import BIN, ENV, RayCluster

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(ray_head: RayCluster) -> RayCluster:
    return ray_head


@pytest.fixture(scope="module")
def storage(cluster: RayCluster) -> Path:
    """The folder that all nodes share."""
    folder = cluster.folder / "storage"
    folder.mkdir()
    return folder


def doctor(cluster: RayCluster, *argv: str, cwd: Path = ROOT, **env: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Its exit status, and what it found, by check."""
    command = [sys.executable, "-m", "emollm.doctor", "--format", "json", "--cluster.ray-address", cluster.address]
    env = cluster.env | {"PYTHONPATH": str(ROOT)} | env
    ran = subprocess.run([*command, *argv], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert ran.stdout, ran.stderr
    told = json.loads(ran.stdout)
    assert told["ok"] == (ran.returncode == 0)
    return ran.returncode, {finding["check"]: finding for finding in told["findings"]}


def test_a_node_with_a_wrong_token_is_refused(cluster: RayCluster) -> None:
    stranger = cluster.start_node(num_cpus=4, RAY_AUTH_TOKEN="f" * 64)
    assert stranger.process.wait(240) != 0
    assert "AuthenticationError" in stranger.log.read_text()
    assert stranger.host not in cluster.alive()


def test_nodes_that_join_later_are_waited_for_and_used(
    cluster: RayCluster, storage: Path, model_directory: Path
) -> None:
    (storage / "models").mkdir()
    (storage / "models" / "tiny").symlink_to(model_directory)
    (storage / "posts.jsonl").write_bytes((SAMPLES / "posts.jsonl").read_bytes())
    profile = storage / "three.yaml"
    # A CPU on each node, and one more for what feeds the workers.
    workers = len(cluster.alive()) + 1
    profile.write_text(f"storage: {storage}\nnum_workers: {workers}\nwait_for_nodes_s: 480\n")
    stamp = storage / "stamp"  # newer than the pins: make installs nothing
    stamp.touch()
    command = [
        "make", "submit-annotate", f"BIN={BIN}", f"STAMP={stamp}", f"ADDRESS={cluster.dashboard}", f"PROFILE={profile}",
        "MODEL=models/tiny", "INPUT=posts.jsonl", "OUT=annotated", "ARGS=--max-posts 12 --tasks V-oc",
    ]  # fmt: skip
    job = subprocess.Popen(
        command, cwd=ROOT, env=cluster.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert job.stdout is not None
    lines = []
    for line in job.stdout:  # the job's own, as they come
        lines.append(line)
        if "waiting up to 480 s for nodes" in line:
            break
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    rest, _ = job.communicate(timeout=480)
    assert job.returncode == 0, "".join(lines) + rest
    assert f"{storage}/annotated" in rest
    assert pq.read_table(storage / "annotated").num_rows == 12


def test_the_doctor_finds_a_sound_cluster_sound(cluster: RayCluster, storage: Path) -> None:
    cluster.wait_for_nodes(3)
    argv = ["--job", "train", "--cluster.storage", str(storage), "--model", str(storage / "models" / "tiny")]
    code, found = doctor(cluster, *argv, "--cluster.num-workers", "3")
    assert {f["check"]: f["message"] for f in found.values() if f["status"] != "ok"} == {}
    assert code == 0
    assert found["Ray"]["message"] == "3 nodes answer"
    assert found["workers"]["message"] == "3 placed, each computes on CPU"
    # Three processes on three nodes summed their tensors.
    assert found["all-reduce"]["message"].startswith("gloo, 3 workers, 64 MB at ")
    assert not list(storage.glob(".doctor*"))


def test_the_doctor_names_each_fault_and_its_remedy(cluster: RayCluster, tmp_path: Path) -> None:
    # One name, and another folder on each node: every process stands in a folder of its own.
    for folder in (tmp_path, *(node.folder for node in cluster.nodes)):
        (folder / "apart").mkdir()
    argv = ["--cluster.storage", "/proc/self/cwd/apart", "--model", "/none/such", "--cluster.num-workers", "1"]
    code, found = doctor(cluster, *argv, "--cluster.cpus-per-worker", "2", cwd=tmp_path)
    failed = {check for check, f in found.items() if f["status"] == "failed"}
    assert failed == {"storage", "model", "workers"}
    assert code == 1
    assert "another folder on 127.0.0." in found["storage"]["message"]
    # Three CPUs in all are enough; on no node are there two.
    assert "a worker cannot be spread over two" in found["workers"]["message"]
    assert all(found[check]["remedy"] for check in failed)


def test_the_doctor_reports_a_refused_connection(cluster: RayCluster) -> None:
    code, found = doctor(cluster, RAY_AUTH_TOKEN="f" * 64)
    assert code == 1
    assert "cannot connect to Ray" in found["Ray"]["message"]
    assert "token" in found["Ray"]["remedy"]


def test_a_ray_without_a_token_fails_the_doctor(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emollm.doctor", "--cluster.num-workers", "1"]
    env = ENV | {"RAY_AUTH_MODE": "disabled"}
    ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 1, ran.stderr
    assert "failed   token" in ran.stdout
    assert "RAY_AUTH_MODE=token" in ran.stdout
