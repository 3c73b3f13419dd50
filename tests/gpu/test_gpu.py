"""What only a real GPU can show; skipped where there is none. And the script for one, to its end on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from emollm.core.heads_card import FeatureSpec
from emollm.core.prompts import Question, questions_for
from emollm.core.tasks import Kind, select_tasks
from emollm.models.device import cache_bytes, free_bytes
from emollm.models.load import LoadedModel, load_base
from emollm.models.precision import resolve_precision
from emollm.models.save import save_model
from emollm.scoring.constrained.engine import ConstrainedScorer
from emollm.scoring.generate import GenerateScorer
from emollm.scoring.heads.engine import HeadsScorer
from emollm.scoring.heads.fit import fit_heads
from emollm.scoring.open import open_scorer
from tests.conftest import ROOT
from tests.scoring.heads.conftest import random_heads
from tests.tiny import Family, tiny_model

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")]
TEXTS = ("I am so happy!", "the train is late AGAIN", "What a sad day, my friend", "so it goes, on and on and on")
TASKS = ["EI-reg", "V-oc", "E-c"]
SPECS = (FeatureSpec(layer=1, pooling="last"), FeatureSpec(layer=2, pooling="mean"))


def on_gpu(test: Any) -> Any:
    for mark in gpu:
        test = mark(test)
    return test


def asked(texts: Sequence[str] = TEXTS) -> list[Question]:
    return [question for text in texts for question in questions_for(text, select_tasks(TASKS))]


def loaded(family: Family, folder: Path, device: str) -> LoadedModel:
    return load_base(str(tiny_model(family, folder / family)), device=device)


@on_gpu
@pytest.mark.parametrize("engine", [ConstrainedScorer, GenerateScorer])
@pytest.mark.parametrize("family", ["llama", "bloom", "t5"])
def test_an_engine_answers_as_on_a_cpu(tmp_path: Path, family: Family, engine: Any) -> None:
    here, there = (engine(loaded(family, tmp_path, d), device=d).score(asked()) for d in ("cpu", "cuda"))
    for a, b in zip(here, there, strict=True):
        assert b.error == a.error
        assert b.probabilities == pytest.approx(a.probabilities, abs=1e-3)


@on_gpu
def test_heads_answer_as_on_a_cpu_in_parts_that_are_tokenized_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emollm.scoring.heads.engine._POSTS_AHEAD", 3)
    found = []
    for device in ("cpu", "cuda"):
        model, weights = random_heads(loaded("llama", tmp_path, device), SPECS)
        found.append(HeadsScorer(model, device=device, head_weights=weights).score(asked(TEXTS * 2)))
    for a, b in zip(*found, strict=True):
        assert b.probabilities == pytest.approx(a.probabilities, abs=1e-4) and b.error is None


@on_gpu
def test_a_batch_that_does_not_fit_is_halved_and_remembered(tmp_path: Path) -> None:
    model, weights = random_heads(loaded("llama", tmp_path, "cuda"), SPECS)
    scorer = HeadsScorer(model, device="cuda", head_weights=weights, batch_tokens=1 << 30)
    hog = torch.empty(max(0, free_bytes("cuda") - (512 << 20)), dtype=torch.uint8, device="cuda")
    texts = [f"{TEXTS[3]} {number}" for number in range(60_000)]
    found = scorer.score_posts(texts, questions_for("", select_tasks(["V-reg"])))
    assert not any(found.errors) and scorer._limit.tokens < 1 << 30
    del hog


@on_gpu
def test_the_cache_of_the_exact_engine_fits_into_what_is_free(tmp_path: Path) -> None:
    model = loaded("llama", tmp_path, "cuda")
    scorer = ConstrainedScorer(model, device="cuda", batch_tokens=1 << 30)
    assert scorer._held.tokens * cache_bytes(model.model) < free_bytes("cuda")


@on_gpu
def test_heads_are_fitted_on_the_gpu_as_on_the_cpu() -> None:
    from tests.scoring.heads.test_fit import TASKS_HERE, planted

    features, labelled = planted()
    ours, theirs = (fit_heads(features, labelled, TASKS_HERE, device=device) for device in (None, "cuda"))
    np.testing.assert_allclose(theirs.head_weights.weight_OF, ours.head_weights.weight_OF, rtol=1e-4, atol=1e-7)


@on_gpu
def test_auto_takes_the_gpu_and_says_so(model_directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    open_scorer(str(model_directory))
    assert torch.cuda.get_device_name() in capfd.readouterr().err


@on_gpu
def test_the_rule_for_the_arithmetic() -> None:
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    assert resolve_precision("auto", "cuda", engine="heads") == "float32"
    assert resolve_precision("auto", "cuda", engine="constrained") == ("bf16" if bf16 else "fp16")


@on_gpu
def test_a_real_device_error_ends_the_process_instead_of_becoming_answers() -> None:
    code = """
import torch
from emollm.core.errors import DeviceError
from emollm.scoring.safely import run_safely
def run(rows):
    table = torch.zeros(4, device="cuda")
    found = table[torch.tensor([9], device="cuda")]  # a device-side assert
    torch.cuda.synchronize()
    return found
try:
    list(run_safely(range(8), run))
except DeviceError:
    print("ended")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.stdout.strip() == "ended"


@on_gpu
@pytest.mark.parametrize(("stage", "offload"), [(0, "none"), (2, "none"), (2, "optimizer"), (3, "none"), (3, "all")])
def test_training_goes_on_from_a_checkpoint(
    stage: int, offload: str, tiny_base: Path, sample_data: Path, tmp_path: Path
) -> None:
    """The fused Adam, and for what lies in host memory DeepSpeed's where it can be built: two steps, and two more."""
    code = """
import os, sys
import torch, torch.distributed as dist
from pathlib import Path
from emollm.models.load import load_base
from emollm.training.checkpoints import Checkpoints
from emollm.training.loop import train
from emollm.training.worker import rows_of
from tests.training.ranks import options
base, data, out, stage, offload = sys.argv[1:]
os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
config = options(base, data, zero_stage=int(stage), offload=offload, precision="bf16", checkpoint_steps=2)
losses = []
for _ in range(2):
    loaded = load_base(base, dtype=torch.bfloat16, device="cuda")
    kept = Checkpoints(Path(out), base="b", keep=2, rank=0, world_size=1, on_note=print)
    steps = []
    train(loaded, rows_of(config, loaded, None), config, rank=0, world_size=1, device="cuda", on_step=steps.append,
          checkpoints=kept)
    losses.append([step.loss for step in steps])
assert len(losses[0]) == 4 and len(losses[1]) == 2, losses
assert all(abs(a - b) < 1e-2 for a, b in zip(losses[0][2:], losses[1])), losses
"""
    command = [sys.executable, "-c", code, str(tiny_base), str(sample_data), str(tmp_path / "c"), str(stage), offload]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]


@on_gpu
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_one_training_step(stage: int, tiny_base: Path, sample_data: Path, tmp_path: Path) -> None:
    sizes = ["--max-rows", "64", "--global-batch-size", "32", "--micro-batch-size", "8", "--evaluations", "0"]
    where = ["--base", str(tiny_base), "--data", str(sample_data), "--out", str(tmp_path / "m")]
    how = ["--zero-stage", str(stage), "--method", "full" if stage else "lora"]
    command = ["-m", "emollm.training", *where, *sizes, *how]
    ran = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_arrays_and_objects_hold_the_same(tmp_path: Path) -> None:
    """Of one readout, so that the job, the API and the endpoint cannot drift apart."""
    model, weights = random_heads(loaded("llama", tmp_path, "cpu"), SPECS)
    scorer = HeadsScorer(model, head_weights=weights)
    questions = questions_for("", select_tasks(TASKS))
    objects = scorer.score(asked())
    for place, arrays in enumerate(scorer.score_posts(TEXTS, questions).each):
        assert not isinstance(arrays, str)
        mine = objects[place :: len(questions)]
        expected = np.array([list(answer.probabilities.values()) for answer in mine])
        np.testing.assert_allclose(arrays.probabilities_NK, expected, atol=1e-6)
        if questions[place].task.kind is Kind.REGRESSION:
            np.testing.assert_allclose(arrays.value, [answer.value for answer in mine], atol=1e-6)


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_on_a_cpu_and_goes_on_where_it_stopped(
    tmp_path: Path, tiny_base: Path, sample_data: Path
) -> None:
    """To its end, but for the endpoint under load, which tests/serve/test_load.py has."""
    model, weights = random_heads(loaded("llama", tmp_path, "cpu"), SPECS)
    heads = tmp_path / "heads"
    heads.mkdir()
    save_model(heads, model)
    weights.save(heads)

    def run(*steps: str) -> list[dict[str, Any]]:
        command = [sys.executable, "benchmarks/gpu.py", "--tiny", "--out", str(tmp_path), "--base", str(tiny_base)]
        command += ["--limit-s", "3600"]  # a busy machine takes longer than a GPU's ten minutes
        command += ["--model", str(heads), "--data", str(sample_data), "--steps", *steps]
        # The group of one that other tests have in this process is not the script's.
        env = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=env)
        return [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]

    first = run("peaks")
    steps = ["peaks", "trunk", "heads", "heads-default", "job", "exact", "7b"]
    steps += ["training", "training-7b", "zero", "endpoint"]
    found = run(*steps)
    assert found[0] == first[0] and [one["step"] for one in found] == steps
    assert not [one for one in found if "failed" in one or "skipped" in one]
    by_step = {one["step"]: one for one in found}
    assert by_step["exact"]["posts_s"] > 0 < by_step["7b"]["released_posts_s"]
    assert set(by_step["training"]) >= {"trainer", "trainer-kept", "emollm"}
    assert by_step["training-7b"]["emollm"]["rows_s"] > 0 < by_step["zero"]["3-optimizer"]["emollm"]["rows_s"]
