"""Each check on what nodes say: sound, and with a fault."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from emollm.doctor import checks, working_dir_bytes
from emollm.doctor.finding import Finding, as_json, as_text
from emollm.doctor.probe import Ask, NodeFacts, StorageFacts, try_storage
from tests.conftest import ROOT

A100 = "NVIDIA A100-SXM4-40GB, 570.86.15, 40960 MiB"
OLD = "NVIDIA A100-SXM4-40GB, 550.54.14, 40960 MiB"
NODE = NodeFacts(
    node="10.0.0.1",
    resources={"CPU": 96, "GPU": 2, "object_store_memory": 10 * checks.GIB},
    python="3.11.9",
    versions={"ray": "2.60.0", "torch": "2.13.0", "transformers": "5.23.0"},
    token_auth=True,
    token_file_mode=0o600,
    wildcard_ports=(6379, 8076),
    gpus=(A100, A100),
    free_bytes=100 * checks.GIB,
    shared_memory_bytes=20 * checks.GIB,
    storage=StorageFacts(error=None, sees_driver=True, write_mb_s=300, read_mb_s=900),
    model="abc",
)
OTHER = replace(NODE, node="10.0.0.2")


def versions(node: NodeFacts) -> Finding:
    found = checks.check_versions([NODE, node])
    return max(found, key=lambda f: ("ok", "warning", "failed").index(f.status))


def room(*, workers: int = 4, cpus: float = 8, gpus: float = 1, spare: float = 1, waits: bool = False) -> Finding:
    return checks.check_placement([NODE, OTHER], cpus=cpus, gpus=gpus, workers=workers, spare_cpus=spare, waits=waits)


def ports(node: NodeFacts, *, kubernetes: bool = False) -> Finding:
    return checks.check_ports([NODE, node], dashboard_port=8265, kubernetes=kubernetes)


def storage(*nodes: NodeFacts, where: str | None = "/mnt/emollm") -> Finding:
    return checks.check_storage(nodes, storage=where, min_mb_s=50)


def disk(node: NodeFacts) -> Finding:
    return checks.check_disk([NODE, node], min_free_gib=20)


def model(node: NodeFacts) -> Finding:
    return checks.check_model([NODE, node], model="/mnt/emollm/m")


def clocks(offset: float) -> Finding:
    return checks.check_clocks({"10.0.0.1": 0.01, "10.0.0.2": offset}, max_skew_s=2)


def stored(**facts: object) -> NodeFacts:
    assert OTHER.storage is not None
    return replace(OTHER, storage=replace(OTHER.storage, **facts))


@pytest.mark.parametrize(
    ("finding", "status", "said"),
    [
        (versions(OTHER), "ok", "on every node"),
        (versions(replace(OTHER, python="3.12.1")), "failed", "Python differs: 3.11.9 on 10.0.0.1; 3.12.1 on 10.0.0.2"),
        (versions(replace(OTHER, versions={**OTHER.versions, "ray": "2.59.0"})), "failed", "ray differs"),
        (versions(replace(OTHER, versions={**OTHER.versions, "torch": None})), "warning", "None on 10.0.0.2"),
        (checks.check_token([NODE, OTHER]), "ok", "2 nodes"),
        (checks.check_token([NODE, replace(OTHER, token_auth=False)]), "failed", "10.0.0.2 ask for no token"),
        (checks.check_token([NODE, replace(OTHER, token_file_mode=0o644)]), "failed", "can read the token"),
        (ports(OTHER), "ok", "2 ports behind the token"),
        (ports(replace(OTHER, wildcard_ports=(8265,))), "failed", "8265"),
        (ports(replace(OTHER, wildcard_ports=(8265,)), kubernetes=True), "warning", "8265"),
        (ports(replace(OTHER, token_auth=False)), "failed", "without a token: 6379, 8076"),
        (checks.check_gpus([NODE, OTHER], wanted=1), "ok", "4: NVIDIA A100-SXM4-40GB"),
        (checks.check_gpus([NODE, replace(OTHER, gpus=())], wanted=1), "failed", "10.0.0.2: Ray has more GPUs"),
        (checks.check_gpus([NODE, replace(OTHER, gpus=(A100, OLD))], wanted=1), "warning", "550.54.14, 570.86.15"),
        (checks.check_gpus([replace(NODE, resources={"CPU": 4}, gpus=())], wanted=0), "skipped", "no node has a GPU"),
        (room(), "ok", "2 nodes"),
        (room(workers=5), "failed", "room for 4"),
        (room(workers=5, waits=True), "warning", "room for 4"),
        # 192 CPUs in all, but a worker cannot be spread over two nodes.
        (room(workers=1, cpus=100, gpus=0), "failed", "room for 0, of 192 CPUs"),
        (room(workers=4, cpus=48, gpus=0.5), "failed", "1 CPU for what feeds them: there is room for 4, of 192"),
        (room(workers=4, cpus=48, gpus=0.5, spare=0), "ok", "2 nodes"),
        (room(workers=40, cpus=0.1, gpus=0.1), "ok", "2 nodes"),
        (disk(OTHER), "ok", "100 GiB"),
        (disk(replace(OTHER, free_bytes=checks.GIB)), "failed", "10.0.0.2 (1.0 GiB)"),
        (disk(replace(OTHER, shared_memory_bytes=checks.GIB)), "warning", "/dev/shm"),
        (clocks(-0.02), "ok", "0.02 s"),
        (clocks(-7.5), "failed", "10.0.0.2 (-7.5 s)"),
        (model(OTHER), "ok", "2 nodes"),
        (model(replace(OTHER, model="")), "failed", "10.0.0.2: no model directory at /mnt/emollm/m"),
        (model(replace(OTHER, model="abd")), "failed", "not the same model"),
        (storage(NODE, OTHER), "ok", "300 MB/s in, 900 MB/s out"),
        (storage(NODE, stored(sees_driver=False)), "failed", "another folder on 10.0.0.2"),
        (storage(NODE, stored(error="Permission denied")), "failed", "10.0.0.2 (Permission denied)"),
        (storage(NODE, stored(write_mb_s=5)), "warning", "5 MB/s"),
        (storage(NODE, OTHER, where=None), "warning", "absolute paths"),
        (storage(NODE, where=None), "skipped", "no --cluster.storage"),
        (checks.check_working_dir(3 << 20, limit_mib=100), "ok", "3.0 MiB"),
        (checks.check_working_dir(300 << 20, limit_mib=100), "failed", "300 MiB"),
    ],
)  # fmt: skip
def test_a_check(finding: Finding, status: str, said: str) -> None:
    assert (finding.status, said in finding.says) == (status, True), finding
    assert finding.remedy or status in ("ok", "skipped") or "absolute paths" in finding.says


def test_a_folder_that_cannot_be_written_is_an_answer_and_leaves_nothing(tmp_path: Path) -> None:
    ask = Ask(session_dir="/tmp", nonce="n", megabytes=1)
    assert try_storage(tmp_path / "none", "x", ask).error == f"No such file or directory: {tmp_path}/none/.doctor-n"
    apart = try_storage(tmp_path, "x", ask)
    assert (apart.error, apart.sees_driver) == (None, False)
    assert apart.write_mb_s > 0
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".doctor-n").mkdir()
    (tmp_path / ".doctor-n" / "driver").write_text("n")
    assert try_storage(tmp_path, "x", ask).sees_driver


def test_what_is_sent_with_a_job_is_the_code_and_little_else(tmp_path: Path) -> None:
    assert working_dir_bytes(ROOT) < 20 * checks.MIB
    (tmp_path / "code.py").write_bytes(b"x" * 1000)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "large").write_bytes(b"x" * 50_000)
    assert working_dir_bytes(tmp_path) == 51_000
    (tmp_path / ".rayignore").write_text("/data/\n")
    assert working_dir_bytes(tmp_path) < 1_100


def test_findings_are_shown_as_text_and_as_json() -> None:
    findings = [disk(OTHER), clocks(9)]
    text = as_text(findings)
    assert "failed   clocks  off by" in text
    assert "-> start chrony" in text
    assert text.endswith("1 failed, 1 ok")
    told = json.loads(as_json(findings))
    assert (told["ok"], [f["status"] for f in told["findings"]]) == (False, ["ok", "failed"])
