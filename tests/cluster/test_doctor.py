"""Each check of the doctor on what nodes say: sound, and with a fault."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from emollm import doctor
from emollm.core.options import ClusterConfig
from emollm.doctor import DoctorConfig, Facts, Finding, Member, look

NODE = Facts(
    node="10.0.0.1",
    versions={"Python": "3.11.9", "ray": "2.60.0", "emollm": "0.1.0", "torch": "2.13.0"},
    asks_for_token=True,
    token_is_private=True,
    model="abc",
)
OTHER = replace(NODE, node="10.0.0.2")


def versions(**changed: str | None) -> Finding:
    return doctor.check_versions([NODE, replace(OTHER, versions={**OTHER.versions, **changed})])


def token(**changed: bool) -> Finding:
    return doctor.check_token([NODE, replace(OTHER, **changed)])


def model(digest: str | None, name: str | None = "/mnt/emollm/m") -> Finding:
    return doctor.check_model([replace(NODE, model=digest and "abc"), replace(OTHER, model=digest)], name)


@pytest.mark.parametrize(
    ("finding", "status", "said"),
    [
        (versions(), "ok", "Python 3.11.9, ray 2.60.0, emollm 0.1.0, torch 2.13.0 on every node"),
        (versions(Python="3.12.1"), "failed", "Python differs: 3.11.9 on 10.0.0.1; 3.12.1 on 10.0.0.2"),
        (versions(emollm=None), "failed", "emollm differs: 0.1.0 on 10.0.0.1; none on 10.0.0.2"),
        (token(), "ok", "every node"),
        (token(asks_for_token=False), "failed", "10.0.0.2 require no token"),
        (token(token_is_private=False), "failed", "other users of 10.0.0.2 can read the token"),
        (model("abc"), "ok", "on every node"),
        (model("other"), "failed", "not the same model on every node"),
        (model(""), "failed", "no model directory at /mnt/emollm/m"),
        (model(None, None), "skipped", "no --model"),
        (model(None, "smollm2-135m-heads"), "ok", "on every node"),
        (model(None, "meta-llama/Llama-2-7b-hf"), "warning", "downloaded by every worker"),
        (doctor.check_storage([NODE, OTHER], None), "warning", "absolute paths that all nodes share"),
        (doctor.check_storage([NODE], None), "skipped", "no --cluster.storage"),
    ],
)
def test_a_check(finding: Finding, status: str, said: str) -> None:
    assert (finding.status, said in finding.message) == (status, True), finding
    assert finding.remedy or status in ("ok", "skipped") or "absolute paths" in finding.message


def test_the_storage_check_requires_one_folder_writable_by_every_node(tmp_path: Path) -> None:
    here = tmp_path / ".doctor"
    here.mkdir()
    apart = tmp_path / "apart"
    apart.mkdir()
    (here / "driver").touch()

    def seen(*folders: Path) -> Finding:
        for left in here.glob("node-*"):
            left.unlink()
        facts = [Facts(**look(f"10.0.0.{i}", str(folder), None)) for i, folder in enumerate(folders)]
        return doctor.check_storage(facts, here)

    assert seen(here, here).status == "ok"
    assert seen(here, apart).message == f"{tmp_path}: another folder on 10.0.0.1"
    (apart / "driver").touch()  # left there by a storage that was copied
    assert seen(here, apart).message == f"{tmp_path}: another folder on 10.0.0.1"
    full = replace(NODE, storage_error="No space left on device: /mnt/emollm/x")
    assert "not writable from 10.0.0.1 (No space left" in doctor.check_storage([full], here).message


def test_a_worker_computes_and_says_why_it_cannot() -> None:
    import torch

    assert Member().compute(0) == "CPU"
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match=r"built for CUDA .*, sees no GPU; "):
            Member().compute(1)


def test_a_driver_is_held_against_the_cuda_that_torch_was_built_for() -> None:
    loaded = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12"
    assert doctor.driver_for("13.0", loaded) == "the driver 535.104 is too old for it: CUDA 13.0 needs 580 or later"
    assert doctor.driver_for("12.4", loaded) == "the driver is 535.104"
    assert "for CPUs alone" in doctor.driver_for(None, loaded)
    assert doctor.driver_for("13.0", "") == "no NVIDIA driver is loaded"


@pytest.mark.ray
def test_a_gpu_that_does_not_exist_is_found_by_the_doctor(local_ray: None) -> None:
    config = DoctorConfig(cluster=ClusterConfig(num_workers=1, gpus_per_worker=1))
    (finding,) = doctor.check_workers(config, config.cluster)
    import torch

    if torch.cuda.is_available():
        assert finding.status == "ok"
    else:
        assert finding.status == "failed" and "sees no GPU" in finding.message


def test_a_finding_is_a_line_with_what_to_do() -> None:
    text = doctor.as_text([versions(), token(asks_for_token=False)])
    assert len(text.splitlines()) == 2
    assert "failed   token     10.0.0.2 require no token" in text and "; restart Ray with" in text
