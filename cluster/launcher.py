"""Check cluster.yaml before `ray up` spends money on it: python -m cluster.launcher"""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from emollm.core.errors import ConfigError
from emollm.core.options import Config, read_config, run_job
from emollm.doctor.finding import Finding, all_passed, as_text

# The zeros that stand where an account's own names belong.
_PLACEHOLDER = re.compile(r"\b(?:fs|sg|subnet|ami)-0{17}\b|\b0{12}\.dkr\.")


class LauncherConfig(Config):
    """Check a cluster file of the Ray launcher for what Ray's defaults, or a slip, would make dangerous or dear."""

    file: Path = Path("cluster.yaml")
    """The cluster file."""


def check_launcher(path: Path, *, home: Path | None = None) -> list[Finding]:
    """All findings on a cluster file. `home` is where the token lies; None: yours. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
        cluster = yaml.safe_load(text)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"--file {path} cannot be read: {error}") from None
    if not isinstance(cluster, dict):
        raise ConfigError(f"--file {path} holds no cluster")
    findings = [_schema(cluster)]
    if findings[0].status == "failed":
        return findings
    return [
        *findings,
        _filled_in(text),
        _token(cluster, home or Path.home()),
        _dashboard(cluster),
        _security_groups(cluster),
        _versions(cluster),
        _storage(cluster),
        _workers(cluster),
    ]


def _schema(cluster: Mapping[str, Any]) -> Finding:
    """Ray's own schema, defaults and rules, as `ray up` applies them before it calls AWS."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(dict(cluster)))
    except Exception as error:  # jsonschema, ValueError, KeyError or AssertionError
        problem = str(getattr(error, "message", error)).split("\n")[0]
        return Finding(check="schema", status="failed", says=f"Ray refuses it: {problem}", remedy="mend the file")
    return Finding(check="schema", status="ok", says="as Ray's own schema has it")


def _filled_in(text: str) -> Finding:
    numbers = [n for n, line in enumerate(text.splitlines(), start=1) if _PLACEHOLDER.search(line)]
    if numbers:
        return Finding(
            check="filled in",
            status="failed",
            says=f"placeholders in lines {', '.join(map(str, numbers))}",
            remedy="put your account's names there; docs/cluster.md#what-to-fill-in says how to get them",
        )
    return Finding(check="filled in", status="ok", says="no placeholder is left")


def _token(cluster: Mapping[str, Any], home: Path) -> Finding:
    remote = "~/.ray/auth_token"
    mounts = cluster.get("file_mounts") or {}
    options = " ".join((cluster.get("docker") or {}).get("run_options", []))
    starts = [*_starts(cluster, "head"), *_starts(cluster, "worker")]
    if remote not in mounts or not (
        "RAY_AUTH_MODE=token" in options or all("RAY_AUTH_MODE=token" in line for line in starts)
    ):
        return Finding(
            check="token",
            status="failed",
            says="not every node asks for a token: whoever reaches a port could run code",
            remedy=f"mount {remote} in file_mounts, and set RAY_AUTH_MODE=token in docker run_options",
        )
    local = Path(str(mounts[remote]).replace("~", str(home), 1))
    if not local.is_file():
        return Finding(
            check="token",
            status="failed",
            says=f"no token at {local}",
            remedy="make one: ray get-auth-token --generate > /dev/null && chmod 600 ~/.ray/auth_token",
        )
    mode = stat.S_IMODE(local.stat().st_mode)
    if mode & 0o077:
        return Finding(
            check="token", status="failed", says=f"{local} has mode {mode:04o}", remedy=f"chmod 600 {local}"
        )  # fmt: skip
    return Finding(check="token", status="ok", says="on every node, and private here")


def _dashboard(cluster: Mapping[str, Any]) -> Finding:
    for line in _starts(cluster, "head"):
        if "--dashboard-host=127.0.0.1" not in line:
            return Finding(
                check="dashboard",
                status="failed",
                says="not on loopback: the Jobs API runs code for whoever reaches it",
                remedy="ray start --head --dashboard-host=127.0.0.1 in head_start_ray_commands",
            )
    return Finding(check="dashboard", status="ok", says="on loopback")


def _security_groups(cluster: Mapping[str, Any]) -> Finding:
    if cluster["provider"]["type"] != "aws":
        return Finding(check="firewall", status="skipped", says="only known for AWS: look at your own rules")
    node_types = cluster["available_node_types"].items()
    open_types = [name for name, node in node_types if not node["node_config"].get("SecurityGroupIds")]
    if open_types:
        return Finding(
            check="firewall",
            status="failed",
            says=f"{', '.join(open_types)}: no SecurityGroupIds, so Ray makes a group with port 22 open to the world",
            remedy="name a group of your own in node_config: docs/cluster.md#what-to-fill-in",
        )
    return Finding(
        check="firewall", status="ok", says="security groups are your own; this check cannot see their rules"
    )


def _versions(cluster: Mapping[str, Any]) -> Finding:
    """Nothing installed at start but from pins, and the image's Ray the one that runs here."""
    import ray

    keys = ("setup_commands", "head_setup_commands", "worker_setup_commands")
    commands = "\n".join(line for key in keys for line in cluster.get(key, ["?"]))
    image = str((cluster.get("docker") or {}).get("image", ""))
    if "?" in commands or "ray-wheels" in commands or ".dev0" in commands:
        return Finding(
            check="versions",
            status="failed",
            says="a nightly wheel would be installed: what is absent here comes from Ray's defaults",
            remedy="give all three of setup_commands, head_setup_commands and worker_setup_commands, empty if need be",
        )
    if not image.endswith(f":ray-{ray.__version__}"):
        return Finding(
            check="versions",
            status="failed",
            says=f"image {image} is not tagged ray-{ray.__version__}, the Ray of this environment",
            remedy="build cluster/Dockerfile and tag it so: every node and the submitting machine need the same Ray",
        )
    return Finding(check="versions", status="ok", says=f"Ray {ray.__version__} in the image and here; nothing at start")


def _storage(cluster: Mapping[str, Any]) -> Finding:
    mounted = any(" /mnt/emollm" in line and "mount " in line for line in cluster.get("initialization_commands", []))
    passed_on = "-v /mnt/emollm:/mnt/emollm" in (cluster.get("docker") or {}).get("run_options", [])
    if not (mounted and passed_on):
        return Finding(
            check="storage",
            status="failed",
            says="no shared folder at /mnt/emollm in every container: results would stay on a node that goes away",
            remedy="mount it in initialization_commands, and pass it on with -v in docker run_options",
        )
    return Finding(check="storage", status="ok", says="/mnt/emollm in every container")


def _workers(cluster: Mapping[str, Any]) -> Finding:
    types = {name: node for name, node in cluster["available_node_types"].items() if name != cluster["head_node_type"]}
    kept = {name: node["min_workers"] for name, node in types.items() if node.get("min_workers")}
    most = min(cluster["max_workers"], sum(node.get("max_workers", cluster["max_workers"]) for node in types.values()))
    spot = [name for name, node in types.items() if node["node_config"].get("InstanceMarketOptions")]
    says = f"0 to {most} machines, given back after {cluster['idle_timeout_minutes']:g} idle minutes"
    says += f"; spot: {', '.join(spot)}" if spot else "; none is spot"
    if kept:
        return Finding(
            check="workers",
            status="warning",
            says=f"{', '.join(f'{n} {name}' for name, n in kept.items())} run, and cost, all the time",
            remedy="min_workers: 0",
        )
    return Finding(check="workers", status="ok", says=says)


def _starts(cluster: Mapping[str, Any], kind: str) -> list[str]:
    return [line for line in cluster.get(f"{kind}_start_ray_commands", ["ray start"]) if "ray start" in line]


def main(argv: Sequence[str]) -> None:
    config = read_config(LauncherConfig, argv, prog="launcher")
    findings = check_launcher(config.file)
    print(as_text(findings))
    sys.exit(0 if all_passed(findings) else 1)


if __name__ == "__main__":
    run_job(main)
