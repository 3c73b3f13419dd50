"""Recipes as defaults that a file and the line override; plans without weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from emollm.core.bases import BASES, SERIES
from emollm.core.errors import ConfigError, ResourceError
from emollm.core.options import ClusterConfig, read_config
from emollm.models.load import attach_lora, load_base
from emollm.training.options import TrainConfig
from emollm.training.plan import describe_model, plan
from emollm.training.recipes import RECIPES
from tests.tiny import FAMILIES, Family, tiny_model


def test_the_command_line_overrides_the_file_and_the_file_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: emollama-chat-7b\nepochs: 2\nseed: 7\ncluster: {cpus_per_worker: 4}\n")
    argv = ["--data", "d", "--out", "o", "--config", str(file), "--seed", "8", "--cluster.num-workers", "4"]
    config = read_config(TrainConfig, argv, prog="train")
    assert (config.base, config.method, config.learning_rate) == ("llama-2-7b-chat", "full", 1e-6)
    assert (config.epochs, config.seed) == (2.0, 8)
    assert (config.cluster.num_workers, config.cluster.cpus_per_worker, config.cluster.gpus_per_worker) == (4, 4, 1)


@pytest.mark.parametrize(
    ("cluster", "gpus"),
    [
        (ClusterConfig(num_workers=2), 1.0),
        ({"num_workers": 2}, 1.0),
        (ClusterConfig(num_workers=2, gpus_per_worker=0), 0.0),
        (ClusterConfig(profile="laptop"), 0.0),
    ],
)
def test_a_cluster_from_python_counts_as_one_from_a_file(cluster: object, gpus: float) -> None:
    config = TrainConfig.model_validate({"data": "d", "out": "o", "recipe": "emollama-7b", "cluster": cluster})
    assert (config.cluster.num_workers, config.cluster.gpus_per_worker) == (2, gpus)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_valid_run(name: str) -> None:
    config = TrainConfig.model_validate({"data": "d", "out": "o", "recipe": name})
    assert config.base in BASES
    if name in SERIES:
        assert config.global_batch_size == 256 == config.micro_batch_size * 2 * config.accumulation_steps
        assert (config.zero_stage, config.offload, config.num_evaluations, config.patience) == (3, "optimizer", 12, 5)


def test_an_unknown_recipe_lists_them() -> None:
    with pytest.raises(ConfigError, match=r"--recipe 'emollama' is unknown; choose from: emollama-7b, .*smollm2-full"):
        read_config(TrainConfig, ["--data", "d", "--out", "o", "--recipe", "emollama"], prog="train")


@pytest.mark.parametrize("name", BASES)
def test_parameters_follow_from_the_registered_settings(name: str) -> None:
    assert describe_model(TrainConfig(data=Path("d"), out=Path("o"), base=name)).parameters == BASES[name].parameters


@pytest.mark.parametrize("family", FAMILIES)
def test_trainable_parameters_are_counted_as_peft_makes_them(tmp_path: Path, family: Family) -> None:
    base = tiny_model(family, tmp_path)
    described = describe_model(TrainConfig(data=Path("d"), out=Path("o"), base=str(base), lora_rank=3))
    model = attach_lora(load_base(str(base)).model, rank=3, alpha=6, dropout=0.0)
    assert described.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_plan_adds_up(sample_data: Path) -> None:
    planned = plan(TrainConfig.model_validate({"data": sample_data, "out": "o", "recipe": "emollama-chat-7b"}))
    assert planned.steps == int(3 * 47_920 / 256)
    # bf16 weights of half a model on each of two GPUs; float32 master and moments of the whole on the host.
    assert planned.memory_gib["weights"] == pytest.approx(6_738_415_616 * 2 / 2 / 2**30)
    assert planned.host_gib == pytest.approx(6_738_415_616 * (12 + 2) / 2**30)
    assert planned.fits


@pytest.mark.slow
def test_a_plan_that_cannot_fit_is_refused_with_options_that_would(sample_data: Path) -> None:
    options = {
        "data": sample_data, "out": "o", "recipe": "emollama-chat-13b", "offload": "none", "zero_stage": 2,
    }  # fmt: skip
    with pytest.raises(
        ResourceError,
        match=r"needs about \d+ GiB per worker \(weights 24.2.*would fit: --zero-stage 2 --offload optimizer",
    ):
        plan(TrainConfig.model_validate(options))
    with pytest.raises(ResourceError, match=r"a worker has 1; no option would fit"):
        plan(TrainConfig.model_validate({**options, "gpu_memory_gib": 1}))
