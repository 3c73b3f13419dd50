"""A profile fills the cluster section; the same command runs on a laptop and on A100s."""

from __future__ import annotations

from pathlib import Path

import pytest

from emollm.annotation.pipeline import AnnotateConfig
from emollm.core.errors import ConfigError
from emollm.core.options import ClusterConfig, Config, Location, ModelRef, read_config, with_values
from emollm.evaluation.options import EvaluateConfig
from emollm.training.options import TrainConfig

RECIPE = ["--data", "data/aaid", "--out", "models/mine", "--global-batch-size", "256"]


def train(*argv: str) -> TrainConfig:
    return read_config(TrainConfig, [*RECIPE, *argv], prog="train")


@pytest.mark.parametrize(
    ("profile", "workers", "gpus", "accumulation"),
    [("laptop", 2, 0, 16), ("a100x2", 2, 1, 16), ("a100x8", 8, 1, 4), ("a100x16", 16, 1, 2)],
)
def test_one_recipe_runs_on_every_profile(profile: str, workers: int, gpus: int, accumulation: int) -> None:
    config = train("--cluster.profile", profile)
    assert (config.cluster.num_workers, config.cluster.gpus_per_worker) == (workers, gpus)
    assert config.accumulation_steps == accumulation
    recipe = config.model_dump(exclude={"cluster", "data", "out"})
    assert recipe == train().model_dump(exclude={"cluster", "data", "out"})


def test_a_profile_is_larger_than_the_recipes_own_cluster() -> None:
    config = train("--recipe", "emollama-chat-7b", "--cluster.profile", "a100x16", "--cluster.cpus-per-worker", "5")
    cluster = config.cluster
    assert (cluster.num_workers, cluster.gpus_per_worker, cluster.cpus_per_worker) == (16, 1, 5)
    assert train("--recipe", "emollama-chat-7b", "--cluster.profile", "laptop").cluster.gpus_per_worker == 0
    assert train("--recipe", "emollama-chat-7b", "--cluster.num-workers", "4").cluster.gpus_per_worker == 1
    # A frozen base is not trained in steps, and nobody has asked for the recipe's evaluations.
    assert train("--recipe", "smollm2-lora", "--objective", "heads").num_evaluations == 12
    assert train("--recipe", "smollm2-lora", "--objective", "heads", "--freeze").num_evaluations is None


def test_options_given_in_addition_to_a_profile_take_precedence(tmp_path: Path) -> None:
    config = train("--cluster.profile", "a100x16", "--cluster.num-workers", "4", "--cluster.storage", "/fsx")
    assert config.cluster == ClusterConfig(
        profile="a100x16", num_workers=4, cpus_per_worker=8, gpus_per_worker=1, storage=Path("/fsx"),
        wait_for_nodes_s=1800,
    )  # fmt: skip
    path = tmp_path / "c.yaml"
    path.write_text("cluster: {profile: a100x2, gpus_per_worker: 0.5}\n")
    config = train("--config", str(path), "--cluster.num-workers", "4")
    assert (config.cluster.num_workers, config.cluster.cpus_per_worker, config.cluster.gpus_per_worker) == (4, 8, 0.5)
    assert with_values(config.cluster, num_workers=3).gpus_per_worker == 0.5


def test_a_profile_can_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lab.toml"
    path.write_text("num_workers = 6\nray_address = 'ray-head:6379'\n")
    assert train("--cluster.profile", str(path), "--global-batch-size", "48").cluster.ray_address == "ray-head:6379"
    path.write_text("workers = 6\n")
    with pytest.raises(ConfigError, match=r"cluster\.workers; .*num_workers"):
        train("--cluster.profile", str(path))


def test_an_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"--cluster.profile 'a100': choose from: laptop, a100x2, a100x8, a100x16"):
        train("--cluster.profile", "a100")
    with pytest.raises(ConfigError, match="No such file"):
        train("--cluster.profile", "none.yaml")


def test_relative_paths_are_on_the_storage_and_absolute_ones_stay(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    argv = ["--model", "models/mine", "--input", "posts.jsonl", "--out", "/elsewhere", "--text-column", "models"]
    config = read_config(AnnotateConfig, [*argv, "--cluster.storage", str(tmp_path)], prog="annotate")
    assert config.model == str(tmp_path / "models" / "mine")
    assert (str(config.input), str(config.out)) == (str(tmp_path / "posts.jsonl"), "/elsewhere")
    assert config.text_column == "models"
    named = ["--model", "smollm2-135m-instruct", *argv[2:]]
    config = read_config(AnnotateConfig, [*named, "--cluster.storage", str(tmp_path)], prog="annotate")
    assert config.model == "smollm2-135m-instruct"
    assert str(read_config(AnnotateConfig, argv, prog="annotate").input) == "posts.jsonl"


def test_all_path_options_are_resolved_below_the_storage(tmp_path: Path) -> None:
    (tmp_path / "models" / "large").mkdir(parents=True)
    argv = [
        "--data",
        "data/aaid",
        "--compare-with",
        "runs/a,/runs/b",
        "--zero-shot",
        "models/large",
        "--endpoint.cache",
        "replies",
        "--cluster.storage",
    ]
    config = read_config(EvaluateConfig, [*argv, str(tmp_path)], prog="evaluate")
    assert config.compare_with == (tmp_path / "runs/a", Path("/runs/b"))
    assert config.zero_shot == str(tmp_path / "models" / "large")
    assert config.endpoint.cache == tmp_path / "replies"
    assert config.model is None


def test_an_option_is_a_path_by_its_type_and_not_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)

    class Section(Config):
        student: ModelRef | None = None
        input: str = "models/mine"

    class Options(Config):
        parts: tuple[Location, ...] = ()
        model: str = "models/mine"
        section: Section = Section()
        cluster: ClusterConfig = ClusterConfig()

    argv = ["--parts", "a,s3://b/c", "--section.student", "base:models/mine", "--cluster.storage", str(tmp_path)]
    config = read_config(Options, argv, prog="p")
    assert config.parts == (f"{tmp_path}/a", "s3://b/c")
    assert config.section.student == f"base:{tmp_path}/models/mine"
    assert (config.model, config.section.input) == ("models/mine", "models/mine")


def test_a_uri_is_not_a_path(tmp_path: Path) -> None:
    class Options(Config):
        out: Location
        cluster: ClusterConfig = ClusterConfig()

    for out, placed in (("s3://bucket/x", "s3://bucket/x"), ("x", str(tmp_path / "x"))):
        config = read_config(Options, ["--out", out, "--cluster.storage", str(tmp_path)], prog="p")
        assert config.out == placed


def test_a_submitted_job_does_not_write_where_ray_deletes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match=r"--out models/mine is relative.*--cluster.storage"):
        train()
    assert train("--cluster.storage", "/mnt/emollm").out == Path("/mnt/emollm/models/mine")
