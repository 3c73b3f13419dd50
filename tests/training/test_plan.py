"""Plans of trainings with heads: each text once, a tenth held out, and no more parameters than are trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from emollm.core.errors import ResourceError
from emollm.core.heads_card import Prompt
from emollm.models.load import LoadedModel, attach_lora, load_base
from emollm.models.save import save_model
from emollm.scoring.heads.backbone import Backbone, PostEncoder
from emollm.training.joint import _freeze_unread
from emollm.training.options import TrainConfig
from emollm.training.plan import describe_model, plan, plan_report
from tests.tiny import Encoder, Family, tiny_model


def heads_config(data: Path, base: str, **changes: Any) -> TrainConfig:
    settings = {
        "data": data, "out": "o", "base": base, "objective": "heads", "tasks": ("V-reg", "E-c"), "num_wordings": 2,
        "global_batch_size": 16, "epochs": 2.0, "heads": {"layers": [1], "poolings": ["mean", "last"]},
    }  # fmt: skip
    return TrainConfig.model_validate({**settings, **changes})


@pytest.mark.parametrize("family", ["llama", "opt", "bloom", "t5", "bart", "bert"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_layers_that_heads_do_not_use_are_not_counted_as_trained(
    tmp_path: Path, family: Family | Encoder, method: str
) -> None:
    base = tiny_model(family, tmp_path)
    loaded = load_base(str(base))
    if method == "lora":
        model = attach_lora(loaded.model, rank=16, alpha=32, dropout=0.0)
        loaded = LoadedModel(model, loaded.tokenizer, loaded.card)
    encode, backbone = PostEncoder(loaded, Prompt()), Backbone(loaded.model, loaded.card.base.architecture)
    _freeze_unread(loaded.model, backbone, encode.batch([encode("a post")], "cpu"), 1)
    trained = sum(p.numel() for p in loaded.model.parameters() if p.requires_grad)
    described = describe_model(heads_config(Path("d"), str(base), method=method)).trainable
    # Of all weights the final norm is counted, which stands behind what is read.
    assert trained <= described <= trained + (64 if method == "full" else 0)


def test_texts_are_learnt_once_and_a_tenth_is_held_out(tiny_base: Path, sample_data: Path) -> None:
    heads = plan(heads_config(sample_data, str(tiny_base)))
    work = heads.work
    assert work.texts + work.held_out == 862 and 50 < work.held_out < 120
    assert (work.rows, heads.steps, work.are_counted) == (work.texts, 2 * work.texts // 16, True)
    # V-reg has one output and E-c eleven; two feature_specs of 32 dimensions, and a bias.
    assert heads.trainable == heads.model.trainable + 12 * 65
    both = plan(heads_config(sample_data, str(tiny_base), objective="both"))
    assert both.work.rows == 4 * work.texts  # two tasks in two wordings
    assert both.tokens_a_row > heads.tokens_a_row + 10
    assert both.flops > 4 * heads.flops


def test_a_frozen_base_needs_one_pass_over_the_texts_and_no_steps(tiny_base: Path, sample_data: Path) -> None:
    frozen = plan(heads_config(sample_data, str(tiny_base), freeze=True))
    assert (frozen.work.texts, frozen.work.held_out, frozen.steps, frozen.trainable) == (862, 0, 0, 12 * 65)
    # The first block of the tiny LLaMA: queries and outputs 32 x 32, keys and values 32 x 16, three of 32 x 64.
    assert frozen.model.read == 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
    assert frozen.flops == pytest.approx(2 * 862 * frozen.tokens_a_row * frozen.model.read)
    assert set(frozen.memory_gib) == {"weights", "activations", "runtime"}
    console = Console(record=True, width=160)
    console.print(plan_report(frozen))
    text = console.export_text()
    assert "862 read once" in text and "steps" not in text and "batch" not in text


def test_what_stands_beside_a_text_is_counted_with_it(tiny_base: Path, sample_data: Path, tmp_path: Path) -> None:
    def tokens(data: Path, base: str, objective: str = "heads") -> float:
        return plan(heads_config(data, base, objective=objective, heads={"layers": [1]}, method="lora")).tokens_a_row

    table = pq.read_table(sample_data / "train.parquet")
    said = pa.array(["Nobody thought that it would come to this."] * table.num_rows)
    for name in ("context", "target"):
        beside = tmp_path / name
        shutil.copytree(sample_data, beside)
        column = table.schema.get_field_index(name)
        pq.write_table(table.set_column(column, table.schema.field(column), said), beside / "train.parquet")
        for base in (str(tiny_base), "bart-large"):  # with a tokenizer, and without
            assert tokens(beside, base) > tokens(sample_data, base) + 8, (name, base)
        assert tokens(beside, str(tiny_base), "both") > tokens(sample_data, str(tiny_base), "both") + 16


def test_a_run_that_goes_on_from_a_model_is_planned_with_its_base_and_adapter(
    sample_data: Path, tmp_path: Path
) -> None:
    base = load_base(str(tiny_model("bert", tmp_path / "base")))
    tuned = attach_lora(base.model, rank=2, alpha=4, dropout=0.0)
    (tmp_path / "start").mkdir()
    save_model(
        tmp_path / "start",
        LoadedModel(tuned, base.tokenizer, base.card.model_copy(update={"adapter": "lora"})),
    )
    changes = {"objective": "heads", "heads": {"layers": [2]}, "tasks": ("V-reg",), "epochs": 1.0}
    options = {"data": sample_data, "out": Path("o"), "start_from": str(tmp_path / "start"), **changes}
    found = plan(TrainConfig.model_validate(options))
    same = heads_config(sample_data, str(tmp_path / "base"), method="lora", lora_rank=2, **changes)
    (tmp_path / "link").symlink_to("base")
    assert plan(TrainConfig.model_validate({**options, "base": str(tmp_path / "link")})).model == found.model
    assert (found.model.name, found.model.trainable) == (base.card.base.name, describe_model(same).trainable)


@pytest.mark.slow
def test_heads_that_cannot_fit_are_refused_without_zero_3(sample_data: Path) -> None:
    cluster = {"num_workers": 2, "gpus_per_worker": 1}
    config = heads_config(
        sample_data, "llama-2-13b-chat", method="full", heads={}, micro_batch_size=8, cluster=cluster
    )  # fmt: skip
    with pytest.raises(ResourceError, match="this would fit: ") as refused:
        plan(config)
    assert "--zero-stage 3" not in str(refused.value) and "--offload all" not in str(refused.value)
