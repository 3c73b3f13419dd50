"""Recipes: named default settings of a fine-tune, as data. Other options override those of `--recipe NAME`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emollm.core.bases import DEFAULT_BASE, SERIES
from emollm.core.options import ClusterConfig

# arXiv 2401.08508, section 4, and its released script, which warms up for 3%; the paper says 5%.
_PUBLISHED: dict[str, Any] = {
    "method": "full",
    "learning_rate": 1e-6,
    "weight_decay": 1e-5,
    "global_batch_size": 256,
    "micro_batch_size": 8,
    "epochs": 3.0,
    "num_evaluations": 12,
    "patience": 5,
    "warmup_fraction": 0.05,
    "precision": "bf16",
    "gradient_checkpointing": True,
    "zero_stage": 3,
    "offload": "optimizer",
    "seed": 123,
    "cluster": {"num_workers": 2, "gpus_per_worker": 1.0, "cpus_per_worker": 8.0},
}

# Not published: a usual learning rate for adapters. A frozen 13B in bf16 fits on an A100, so no sharding is needed.
_LORA: dict[str, Any] = {
    **_PUBLISHED,
    "method": "lora",
    "learning_rate": 2e-4,
    "epochs": 1.0,
    "zero_stage": 2,
    "offload": "none",
}

# For two cores and no GPU; rates measured in LOG.md.
_SMALL: dict[str, Any] = {
    "base": DEFAULT_BASE,
    "global_batch_size": 32,
    "micro_batch_size": 8,
    "num_evaluations": 12,
    "metrics_every": 4,
    "patience": 5,
    "cluster": {"num_workers": 2},
}

# Heads and adapters for all data of `build-data affect`; measured in LOG.md.
_AFFECT: dict[str, Any] = {
    "objective": "heads",
    "method": "lora",
    "learning_rate": 1e-3,
    "epochs": 2.0,
    "global_batch_size": 32,
    "num_evaluations": 12,
    "validation_rows": 2000,
    "patience": 5,
    "cluster": {"num_workers": 1},
}

RECIPES: dict[str, dict[str, Any]] = {
    **{model.name: {**_PUBLISHED, "base": model.base} for model in SERIES.values()},
    **{f"{model.name}-lora": {**_LORA, "base": model.base} for model in SERIES.values()},
    "smollm2-lora": {**_SMALL, "method": "lora", "learning_rate": 1e-3},
    "smollm2-full": {**_SMALL, "method": "full", "learning_rate": 1e-4},
    "minilm-affect": {
        **_AFFECT,
        "base": "minilm-l6",
        "lora_rank": 32,
        "lora_alpha": 64,
        "micro_batch_size": 32,
        "max_post_tokens": 256,
        "heads": {"emoji": "named", "layers": (6,), "poolings": ("first", "mean"), "use_all_features": True},
    },
    "smollm2-affect": {
        **_AFFECT,
        "base": DEFAULT_BASE,
        "learning_rate": 6e-4,
        "epochs": 1.0,
        "num_evaluations": 4,
        "validation_rows": 1000,
        "lora_rank": 8,
        "lora_alpha": 16,
        "lora_first_layer": 7,
        "micro_batch_size": 16,
        "adapter_precision": "bf16",
        "max_post_tokens": 256,
        "heads": {"layers": (14, 24), "poolings": ("mean", "last"), "use_all_features": True},
    },
}


_EVALUATION = ("num_evaluations", "metrics_every", "patience")


def with_recipe(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`values` merged over those of the recipe that they name, in the sections `cluster` and `heads` key by key.

    A profile replaces the recipe's whole section. The recipe's evaluations are dropped if the base is frozen,
    since it is not trained in steps. Raises ValueError listing the recipes if the name is unknown.
    """
    name = values.get("recipe")
    if name is None:
        return values
    if name not in RECIPES:
        raise ValueError(f"--recipe {name!r} is unknown; choose from: {', '.join(RECIPES)}")
    recipe = dict(RECIPES[name])
    if values.get("freeze"):
        recipe = {key: value for key, value in recipe.items() if key not in _EVALUATION}
    merged = {**recipe, **values}
    heads = values.get("heads")
    if isinstance(heads, Mapping):
        merged["heads"] = {**recipe.get("heads", {}), **heads}
    cluster = values.get("cluster")
    if isinstance(cluster, ClusterConfig):
        cluster = cluster.model_dump(include=cluster.model_fields_set)
    if isinstance(cluster, Mapping) and not cluster.get("profile"):
        merged["cluster"] = {**recipe["cluster"], **cluster}
    return merged
