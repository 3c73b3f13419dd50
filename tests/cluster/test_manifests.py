"""What Kubernetes and the image are told: the pins, the token, the storage, and no port open by our own words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from emollm.core.options import read_profile
from tests.conftest import ROOT

FOLDER = ROOT / "cluster" / "kubernetes"
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line and line[0] != "#"
)

# Kubernetes drops a field it does not know without a word. Those of KubeRay 1.7 that we use (its CRD reference).
CLUSTER_FIELDS = {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec",
                  "workerGroupSpecs"}  # fmt: skip
SPEC_FIELDS = {
    "RayCluster": CLUSTER_FIELDS,
    "RayJob": {"entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
               "rayClusterSpec"},
    "RayService": {"serveConfigV2", "rayClusterConfig"},
}  # fmt: skip
HEAD_FIELDS = {"serviceType", "rayStartParams", "template"}
WORKER_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def manifest(kind: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / f"{kind.lower()}.yaml").read_text())  # type: ignore[no-any-return]


def cluster_spec(kind: str) -> dict[str, Any]:
    spec = manifest(kind)["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec  # type: ignore[no-any-return]


def pods(kind: str) -> list[dict[str, Any]]:
    spec = cluster_spec(kind)
    return [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


@pytest.mark.parametrize("kind", SPEC_FIELDS)
def test_a_manifest_asks_for_the_token_the_pins_and_the_storage(kind: str) -> None:
    found, spec = manifest(kind), cluster_spec(kind)
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", kind)
    assert set(found["spec"]) == SPEC_FIELDS[kind]
    assert set(spec) == CLUSTER_FIELDS
    assert set(spec["headGroupSpec"]) == HEAD_FIELDS
    assert all(set(group) == WORKER_FIELDS for group in spec["workerGroupSpecs"])
    assert spec["rayVersion"] == PINS["ray"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "emollm-ray-token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    for pod in pods(kind):
        (container,) = pod["spec"]["containers"]
        assert container["image"].endswith(f"/emollm:ray-{PINS['ray']}")
        assert {"name": "storage", "mountPath": "/mnt/emollm"} in container["volumeMounts"]
        assert pod["metadata"]["labels"]["app"] == "emollm"  # what the NetworkPolicy goes by
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_manifests_differ_only_in_their_use() -> None:
    plain, job = (cluster_spec(kind) for kind in ("RayCluster", "RayJob"))
    assert plain == job
    assert cluster_spec("RayService")["workerGroupSpecs"][0]["minReplicas"] == 1  # an endpoint is always up


def test_the_profile_of_the_job_fits_the_pods() -> None:
    entrypoint = manifest("RayJob")["spec"]["entrypoint"].split()
    profile = read_profile(entrypoint[entrypoint.index("--cluster.profile") + 1])
    assert profile is not None
    (group,) = cluster_spec("RayJob")["workerGroupSpecs"]
    asked = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert group["maxReplicas"] * asked["nvidia.com/gpu"] >= profile["num_workers"] * profile["gpus_per_worker"]
    assert int(asked["cpu"]) > asked["nvidia.com/gpu"] * profile["cpus_per_worker"]


def test_the_endpoint_asks_for_keys() -> None:
    from emollm.serve.config import ServeConfig

    (app,) = yaml.safe_load(manifest("RayService")["spec"]["serveConfigV2"])["applications"]
    assert app["import_path"] == "emollm.serve.app:build"
    # Serve listens in the pod's network whatever `host` says, so keys are not a choice.
    assert ServeConfig.model_validate(app["args"]).keys == Path("/etc/emollm/keys.txt")


def test_only_the_cluster_its_operator_and_named_clients_get_in() -> None:
    claim, policy = yaml.safe_load_all((FOLDER / "storage-and-network.yaml").read_text())
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert policy["spec"]["podSelector"] == {"matchLabels": {"app": "emollm"}}
    inside, operator, client = policy["spec"]["ingress"]
    assert inside == {"from": [{"podSelector": {"matchLabels": {"app": "emollm"}}}]}
    assert {port["port"] for port in operator["ports"]} == {8265, 52365}
    assert [port["port"] for port in client["ports"]] == [8000]


def test_nothing_listens_on_every_network() -> None:
    for path in [ROOT / "cluster.yaml", *FOLDER.glob("*.yaml"), ROOT / "cluster" / "Dockerfile"]:
        lines = [line.split("#")[0] for line in path.read_text().splitlines()]
        assert not [line for line in lines if "0.0.0.0" in line or "LoadBalancer" in line or "NodePort" in line], path


def test_the_image_installs_from_the_pins_and_nothing_newer() -> None:
    text = (ROOT / "cluster" / "Dockerfile").read_text()
    assert f"emollm:ray-{PINS['ray']} ." in text
    assert re.search(r"^FROM python:3\.11\.\d+-slim-\w+$", text, re.MULTILINE)
    installs = re.findall(r"pip install [^\n]*", text)
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in line for line in installs)
    for word in ("nightly", "latest", "--pre", "git+"):
        assert word not in text
    assert re.findall(r"^COPY (\w+) \w+$", text, re.MULTILINE) == ["emollm", "jobs"]


def test_the_image_has_what_jobs_ask_for() -> None:
    text = (ROOT / "cluster" / "Dockerfile").read_text()
    (extras,) = re.findall(r"--editable '\.\[([\w,]+)\]'", text)
    assert {"all", "baselines", "aws"} <= set(extras.split(","))  # `--baselines local`
    assert re.search(r"apt-get install .*\bgit\b", text)  # run.json names the revision of a checkout
