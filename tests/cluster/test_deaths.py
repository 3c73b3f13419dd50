"""A node dies: what is lost is work, never an answer."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emollm.build import SAMPLES
from tests.conftest import ROOT
from tests.ray_cluster import HEAD, Node, RayCluster, ray_cluster

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A head and two nodes of one CPU each."""
    with ray_cluster(tmp_path_factory.mktemp("cluster"), num_cpus=1) as running:
        for _ in range(2):
            running.add_node(num_cpus=1)
        yield running


def node_with(cluster: RayCluster, name: str) -> Node:
    """A node, not the head, on which an actor lives whose class is named so; waited for."""
    for _ in range(600):
        actors = cluster.get("/api/v0/actors?limit=1000&detail=true")["data"]["result"]["result"]
        alive = {actor["node_id"] for actor in actors if name in actor["class_name"] and actor["state"] == "ALIVE"}
        nodes = cluster.get("/api/v0/nodes")["data"]["result"]["result"]
        hosts = {node["node_ip"] for node in nodes if node["node_id"] in alive} - {HEAD}
        if hosts:
            return next(node for node in cluster.nodes if node.host in hosts)
        time.sleep(0.5)
    raise AssertionError(f"no {name} outside the head")


def test_an_annotation_whose_node_dies_ends_whole_and_verifies(
    cluster: RayCluster, model_directory: Path, tmp_path: Path
) -> None:
    out = tmp_path / "annotated"
    command = [
        sys.executable, "jobs/annotate.py", "--model", str(model_directory), "--input", str(SAMPLES / "posts.jsonl"),
        "--out", str(out), "--cluster.ray-address", cluster.address, "--cluster.num-workers", "2", "--block-posts", "4",
    ]  # fmt: skip
    job = subprocess.Popen(
        command, cwd=ROOT, env=cluster.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    victim = node_with(cluster, "ScoreBlock")
    while not list((out / "_unfinished" / "blocks").glob("*.parquet")):  # killed at work, not before
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.1)
    victim.kill()
    # One CPU for an actor and one for what feeds it are left: too little for two actors. A node takes its place.
    cluster.add_node(num_cpus=1)
    said, _ = job.communicate(timeout=480)
    assert job.returncode == 0, said
    check = [sys.executable, "-m", "emollm.annotation", "verify", str(out)]
    ran = subprocess.run(check, cwd=ROOT, env=cluster.env, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "220 posts" in ran.stdout
    assert "hold against manifest, tasks and input" in ran.stdout
