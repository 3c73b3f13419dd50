"""cluster.yaml passes Ray's own rules and ours; each slip that would be dangerous or dear is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.launcher import check_launcher
from emollm.core.errors import ConfigError
from emollm.core.options import read_profile
from emollm.doctor.finding import Finding, all_passed
from tests.conftest import ROOT

CLUSTER = ROOT / "cluster.yaml"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a token that only its owner can read."""
    token = tmp_path / "home" / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.write_text("0" * 64)
    token.chmod(0o600)
    return tmp_path / "home"


def filled_in() -> dict[str, Any]:
    text = (
        CLUSTER.read_text().replace("-00000000000000000", "-0123456789abcdef0").replace("000000000000", "123456789012")
    )
    return yaml.safe_load(text)  # type: ignore[no-any-return]


def failures(cluster: dict[str, Any], folder: Path, home: Path) -> dict[str, Finding]:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(cluster))
    return {f.check: f for f in check_launcher(path, home=home) if f.status == "failed"}


def test_filled_in_it_passes_and_as_it_is_only_the_placeholders_fail(tmp_path: Path, home: Path) -> None:
    assert failures(filled_in(), tmp_path, home) == {}
    (failure,) = [f for f in check_launcher(CLUSTER, home=home) if f.status == "failed"]
    lines = CLUSTER.read_text().splitlines()
    numbers = [int(n) for n in failure.says.removeprefix("placeholders in lines ").split(", ")]
    assert all("FILL IN" in lines[n - 1] for n in numbers)
    assert len([line for line in lines[8:] if "FILL IN" in line]) == 8  # as its head says


@pytest.mark.parametrize(
    ("check", "spoil", "said"),
    [
        ("schema", lambda c: c.update(max_wrokers=3), "max_wrokers"),
        ("schema", lambda c: c.update(head_node_type="haed"), "head_node_type"),
        ("token", lambda c: c.pop("file_mounts"), "not every node asks for a token"),
        ("token", lambda c: c["docker"]["run_options"].pop(0), "not every node asks for a token"),
        ("dashboard", lambda c: c.update(head_start_ray_commands=["ray start --head --dashboard-host=::"]), "code"),
        ("dashboard", lambda c: c.pop("head_start_ray_commands"), "code"),
        ("firewall", lambda c: c["available_node_types"]["head"]["node_config"].pop("SecurityGroupIds"), "port 22"),
        ("versions", lambda c: c.pop("setup_commands"), "nightly"),
        ("versions", lambda c: c["docker"].update(image="emollm:latest"), "not tagged ray-2."),
        ("storage", lambda c: c["initialization_commands"].clear(), "/mnt/emollm"),
    ],
)  # fmt: skip
def test_a_slip_is_told(check: str, spoil: Callable[[Any], Any], said: str, tmp_path: Path, home: Path) -> None:
    cluster = filled_in()
    spoil(cluster)
    found = failures(cluster, tmp_path, home)
    assert list(found) == [check]
    assert said in found[check].says
    assert found[check].remedy


def test_the_token_must_be_there_and_private(tmp_path: Path, home: Path) -> None:
    token = home / ".ray" / "auth_token"
    token.chmod(0o644)
    assert "0644" in failures(filled_in(), tmp_path, home)["token"].says
    token.unlink()
    assert "no token" in failures(filled_in(), tmp_path, home)["token"].says


def test_machines_that_run_all_the_time_are_told(tmp_path: Path, home: Path) -> None:
    cluster = filled_in()
    cluster["available_node_types"]["a100-40gb"]["min_workers"] = 1
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(cluster))
    findings = check_launcher(path, home=home)
    assert all_passed(findings)
    assert [f.says for f in findings if f.status == "warning"] == ["1 a100-40gb run, and cost, all the time"]


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


def test_what_is_not_known_of_another_cloud_is_not_judged(tmp_path: Path, home: Path) -> None:
    cluster = filled_in()
    cluster["provider"] = {"type": "gcp", "region": "us-west1", "project_id": "mine"}
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(cluster))
    (firewall,) = [f for f in check_launcher(path, home=home) if f.check == "firewall"]
    assert firewall.status == "skipped"


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    for text in (None, "a: [", "- 1"):
        path = tmp_path / "c.yaml"
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigError, match=r"--file .*c\.yaml"):
            check_launcher(path)
