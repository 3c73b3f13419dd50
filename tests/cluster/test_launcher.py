"""cluster.yaml passes Ray's own rules and starts on an emulated AWS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from emollm.core.options import read_profile
from tests.conftest import ROOT

CLUSTER = ROOT / "cluster.yaml"


def filled_in() -> dict[str, Any]:
    text = (
        CLUSTER.read_text().replace("-00000000000000000", "-0123456789abcdef0").replace("000000000000", "123456789012")
    )
    return yaml.safe_load(text)  # type: ignore[no-any-return]


def test_eight_values_are_to_be_filled_in() -> None:
    lines = CLUSTER.read_text().splitlines()
    assert len([line for line in lines[8:] if "FILL IN" in line]) == 8  # as its head says
    placeholders = [line for line in lines if re.search(r"-0{17}|\b0{12}\.", line)]
    assert placeholders and all("FILL IN" in line for line in placeholders)


def test_it_passes_rays_own_schema_and_rules() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(filled_in()))
    with pytest.raises(Exception, match="max_wrokers"):  # Ray's rules are at work
        validate_config(prepare_config({**filled_in(), "max_wrokers": 3}))


def test_dangerous_or_expensive_defaults_of_ray_are_overridden() -> None:
    import ray

    cluster = filled_in()
    assert cluster["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert "-v /mnt/emollm:/mnt/emollm" in cluster["docker"]["run_options"]
    assert cluster["docker"]["image"].endswith(f"/emollm:ray-{ray.__version__}")
    (start,) = [line for line in cluster["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in start
    # Ray's defaults would install a nightly wheel.
    assert [cluster[f"{kind}setup_commands"] for kind in ("", "head_", "worker_")] == [[], [], []]
    for name, node in cluster["available_node_types"].items():
        # Without a group of its own Ray makes one with port 22 open to the world.
        assert len(node["node_config"]["SecurityGroupIds"]) == 1
        assert node.get("min_workers", 0) == 0, name
    assert any("mount " in line and " /mnt/emollm" in line for line in cluster["initialization_commands"])


def test_the_largest_profile_fits_the_file() -> None:
    cluster, profile = filled_in(), read_profile("a100x16")
    assert profile is not None
    node = cluster["available_node_types"]["a100-40gb"]
    workers_a_node = node["resources"]["GPU"] / profile["gpus_per_worker"]
    assert workers_a_node * node["max_workers"] >= profile["num_workers"]
    # Some CPUs are left on each machine for the tasks that feed the workers.
    assert workers_a_node * profile["cpus_per_worker"] < node["resources"]["CPU"]
    assert profile["storage"] == "/mnt/emollm"


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """cluster.yaml filled in with names of an emulated AWS."""
    import boto3
    from moto import mock_aws

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps the ssh key it makes there
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    (tmp_path / ".ssh").mkdir()
    with mock_aws():
        ec2, iam = boto3.client("ec2"), boto3.client("iam")
        zone = [{"Name": "availability-zone", "Values": ["us-east-1a"]}]
        subnet = ec2.describe_subnets(Filters=zone)["Subnets"][0]
        group = ec2.create_security_group(GroupName="own", Description="own", VpcId=subnet["VpcId"])
        for name in ("emollm-head", "emollm-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
        names = {
            "subnet-00000000000000000": subnet["SubnetId"],
            "sg-00000000000000000": group["GroupId"],
            "ami-00000000000000000": ec2.describe_images()["Images"][0]["ImageId"],
        }
        text = CLUSTER.read_text()
        for placeholder, name in names.items():
            text = text.replace(placeholder, name)
        yield yaml.safe_load(text)


@pytest.mark.slow
def test_rays_own_launcher_starts_it_on_an_emulated_aws(aws: dict[str, Any]) -> None:
    import boto3
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    cluster = bootstrap_aws(prepare_config(aws))
    provider = AWSNodeProvider(cluster["provider"], cluster["cluster_name"])
    for name, node in cluster["available_node_types"].items():
        provider.create_node(node["node_config"].copy(), {"ray-node-name": name}, 1)
    ec2 = boto3.client("ec2")
    started = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    assert sorted(i["InstanceType"] for i in started) == ["p4d.24xlarge", "p4de.24xlarge", "r7i.2xlarge"]
    for instance in started:
        assert [group["GroupName"] for group in instance["SecurityGroups"]] == ["own"]
        assert instance["MetadataOptions"]["HttpTokens"] == "required"
        role = "emollm-head" if instance["InstanceType"] == "r7i.2xlarge" else "emollm-worker"
        assert instance["IamInstanceProfile"]["Arn"].endswith(role)
        assert "InstanceLifecycle" not in instance  # not spot
    # Ray made no group of its own: that one would let all the world try port 22.
    assert not [g for g in ec2.describe_security_groups()["SecurityGroups"] if "ray" in g["GroupName"]]
