"""A node dies: what is lost is work, never an answer."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from emollm.data.aaid import SAMPLES
from emollm.training.run_folder import read_lines
from tests.conftest import ROOT
from tests.ray_cluster import BIN, HEAD, Node, RayCluster, free_ports
from tests.training.ranks import options, run_training
from tests.waiting import wait_for

pytestmark = pytest.mark.ray


@pytest.fixture
def cluster(ray_head: RayCluster) -> RayCluster:
    """A head and two nodes of one CPU each, also after a test that killed some."""
    while len(ray_head.alive()) < 3:
        ray_head.add_node(num_cpus=1)
    return ray_head


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


def start_job(cluster: RayCluster, *command: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, env=cluster.env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_an_annotation_survives_a_lost_node_and_verifies(
    cluster: RayCluster, model_directory: Path, tmp_path: Path
) -> None:
    out = tmp_path / "annotated"
    job = start_job(
        cluster, "jobs/annotate.py", "--model", model_directory, "--input", SAMPLES / "posts.jsonl", "--out", out,
        "--cluster.ray-address", cluster.address, "--cluster.num-workers", 2, "--block-posts", 4,
    )  # fmt: skip
    victim = node_with(cluster, "ScoreBlock")
    while not list((out / "_unfinished" / "blocks").glob("*.parquet")):  # killed at work, not before
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.1)
    victim.kill()
    # One CPU for an actor and one for what feeds it are left: too little for two actors. A node takes its place.
    cluster.add_node(num_cpus=1)
    said, _ = job.communicate(timeout=1200)
    assert job.returncode == 0, said
    check = [sys.executable, "-m", "emollm.annotation", "verify", str(out)]
    ran = subprocess.run(check, cwd=ROOT, env=cluster.env, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "220 posts" in ran.stdout
    assert "agree with manifest, tasks and input" in ran.stdout


def test_a_training_whose_node_dies_ends_with_the_losses_of_one_undisturbed(
    cluster: RayCluster, tiny_base: Path, sample_data: Path, tmp_path: Path, alone: None
) -> None:
    out, file, hold = tmp_path / "model", tmp_path / "options.json", tmp_path / "hold"
    two = {"num_workers": 2, "ray_address": cluster.address}
    config = options(tiny_base, sample_data, out=out, max_rows=192, checkpoint_steps=2, cluster=two)
    file.write_text(config.model_dump_json())
    hold.touch()
    job = start_job(cluster, "-m", "tests.training.drive", file, hold)
    victim = node_with(cluster, "RayTrainWorker")
    while not list((tmp_path / ".model.training" / "checkpoints").glob("step-*")):
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.1)
    victim.kill()
    cluster.wait_for_nodes(2)  # a worker outlives its node by a moment, in which it could do all that is left
    assert not out.exists()
    hold.unlink()
    cluster.add_node(num_cpus=1)
    # What two workers on the cluster must come to: one, without Ray.
    expected = run_training(options(tiny_base, sample_data, max_rows=192), None).losses
    said, _ = job.communicate(timeout=1200)
    assert job.returncode == 0, said
    assert "continuing after step" in said
    assert len(expected) == 12
    assert [line["loss"] for line in read_lines(out / "metrics.jsonl")] == pytest.approx(expected, rel=1e-4)


def test_the_endpoint_answers_while_a_node_with_a_replica_dies(cluster: RayCluster, model_directory: Path) -> None:
    (port,) = free_ports(1, HEAD)
    url = f"http://{HEAD}:{port}"
    entry = (
        f"serve start --http-host {HEAD} --http-port {port} --proxy-location HeadOnly && "
        f"exec serve run emollm.serve.app:build model={model_directory} replicas=2"
    )
    submit = [BIN / "ray", "job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--no-wait", "--"]
    subprocess.run([*submit, "bash", "-c", entry], cwd=ROOT, env=cluster.env, check=True, timeout=300)
    hosts = hosts_of_replicas(cluster, 2)
    victim = next(node for node in cluster.nodes if node.host in hosts - {HEAD})
    answers: list[int | str] = []
    finished = threading.Event()
    asker = threading.Thread(target=ask, args=(url, answers, finished))
    asker.start()
    try:
        wait_for_answers(answers, 3)
        victim.kill()
        cluster.wait_for_nodes(2)
        wait_for_answers(answers, len(answers) + 3)
    finally:
        finished.set()
        asker.join()
    assert set(answers) == {200}


def hosts_of_replicas(cluster: RayCluster, count: int) -> set[str]:
    """Addresses of the nodes on which so many replicas of the model answer; waited for."""
    give_up = time.monotonic() + 300
    replicas: list[dict[str, str]] = []
    while time.monotonic() < give_up:
        time.sleep(0.5)
        application = cluster.get("/api/serve/applications/")["applications"].get("default", {})
        replicas = application.get("deployments", {}).get("Annotator", {}).get("replicas", [])
        # One that still loads would leave nobody to answer when the other's node dies.
        if application.get("status") == "RUNNING" and len(replicas) == count:
            return {str(replica["node_ip"]) for replica in replicas}
    raise AssertionError(f"not {count} replicas that answer: {replicas}\n" + "\n".join(cluster.logs()))


def wait_for_answers(answers: list[int | str], count: int) -> None:
    wait_for(lambda: len(answers) >= count, saying=lambda: answers)


def ask(url: str, answers: list[int | str], finished: threading.Event) -> None:
    """One request after the other; each one's status, or what came instead."""
    body = json.dumps({"texts": ["what a lovely morning!"], "tasks": ["V-oc"]}).encode()
    request = urllib.request.Request(f"{url}/v1/annotate", body, {"content-type": "application/json"})
    while not finished.is_set():
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                answers.append(answer.status)
        except urllib.error.HTTPError as error:
            answers.append(f"{error.code} {error.read()!r}")
        except OSError as error:
            answers.append(repr(error))
            time.sleep(0.5)
