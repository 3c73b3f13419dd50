"""Options from a file and the command line; every mistake is one line that says what is allowed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from emollm.core.errors import ConfigError, DataError
from emollm.core.options import ClusterConfig, Config, read_config, split_command, with_values


class Options(Config):
    """Do a thing."""

    data: Path
    """Where the data is."""
    tasks: tuple[str, ...] = ("profile",)
    engine: Literal["fast", "exact"] = "fast"
    limit: int | None = Field(None, ge=1)
    overwrite: bool = False
    cluster: ClusterConfig = ClusterConfig()


def read(*argv: str) -> Options:
    return read_config(Options, argv, prog="thing")


def test_defaults_are_overridden_by_the_line() -> None:
    config = read("--data", "x", "--tasks", "a,b", "--overwrite", "--cluster.num-workers", "5")
    assert config == Options(data=Path("x"), tasks=("a", "b"), overwrite=True, cluster=ClusterConfig(num_workers=5))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "data: /x\nlimit: 3\ncluster: {num_workers: 4, cpus_per_worker: 0.5}\n"),
        ("c.toml", 'data = "/x"\nlimit = 3\n[cluster]\nnum_workers = 4\ncpus_per_worker = 0.5\n'),
        ("c.json", '{"data": "/x", "limit": 3, "cluster": {"num_workers": 4, "cpus_per_worker": 0.5}}'),
    ],
)
def test_the_command_line_overrides_the_file_option_by_option(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    config = read("--config", str(tmp_path / name), "--limit", "7", "--cluster.num-workers", "2")
    assert (config.data, config.limit) == (Path("/x"), 7)
    assert config.cluster == ClusterConfig(num_workers=2, cpus_per_worker=0.5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--data is required"),
        (["--data", "x", "--limit", "0"], "--limit '0'.*greater than or equal to 1"),
        (["--data", "x", "--engine", "slow"], "--engine 'slow'.*'fast' or 'exact'"),
        (["--data", "x", "--limitt", "3"], r"--limitt.*did you mean --limit\?.*--overwrite"),
        (["--data", "x", "--tasks", "a", "b"], "unrecognized arguments: b; .*in quotes, and join .* by commas"),
        (["--data", "x", "--cluster.num-workers", "none"], "--cluster.num-workers 'none'.*integer"),
        (["--config", "missing.yaml"], "missing.yaml: No such file"),
        (["--data", ""], "^--data is empty$"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(*argv)


def test_an_unknown_option_in_a_file_says_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("data: x\ncluster: {workers: 3}\n")
    with pytest.raises(ConfigError, match=r"cluster\.workers; .*num_workers"):
        read("--config", str(path))
    path.write_text("data: [unclosed\n")
    with pytest.raises(ConfigError, match=r"cannot be parsed: .*line 2") as told:
        read("--config", str(path))
    assert "\n" not in str(told.value)
    path.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match="expected options by name"):
        read("--config", str(path))


def test_commands_are_listed_for_an_unknown_command() -> None:
    assert split_command(["build", "--x"], prog="p", commands={"build": Options}) == ("build", ["--x"])
    for argv in (["bild"], []):
        with pytest.raises(ConfigError, match="choose from: build"):
            split_command(argv, prog="p", commands={"build": Options})


def test_replaced_values_are_validated() -> None:
    with pytest.raises(ValueError, match="limit"):
        with_values(Options(data=Path("x")), limit=0)


def test_errors_survive_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DataError("row 3: 'x' is not a number")))
    assert isinstance(error, ValueError)
    assert str(error) == "row 3: 'x' is not a number"
