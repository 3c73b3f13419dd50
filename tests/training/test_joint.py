"""Heads trained with their backbone: the loss and its masks, and whole runs, on two real workers and in one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from emollm.core.card import read_card
from emollm.core.errors import ModelError
from emollm.core.heads_card import FeatureSpec
from emollm.core.options import with_values
from emollm.core.prompts import Post, Question, questions_for
from emollm.core.tasks import PROFILE, select_tasks
from emollm.data.aaid import SAMPLES
from emollm.data.files.columns import Notes, Reading
from emollm.data.files.whole import read_posts
from emollm.metrics.questions import GoldQuestion
from emollm.scoring.heads.labels import LabelledText, folds
from emollm.scoring.heads.ridge import scale_of
from emollm.scoring.open import open_scorer
from emollm.training.batches import EncodedRow
from emollm.training.joint import Joint, StartingHeads, head_scores
from emollm.training.loop import StepReport
from emollm.training.ray_train import fit
from emollm.training.starting_heads import starting_heads
from emollm.training.validation import EvaluationReport, Validator
from tests.scoring.heads.conftest import Load, random_heads
from tests.scoring.heads.conftest import backbone as backbone
from tests.tiny import tiny_model
from tests.training.ranks import options, run_training, train_here

READINGS = (FeatureSpec(layer=1, pooling="last"), FeatureSpec(layer=2, pooling="mean"))
TEXTS = ["What a day!", "the train is late AGAIN", "so so", "I love this :)", "no", "my cat is ill and I fear for her"]
POSTS = [Post(text) for text in TEXTS]


def a_joint(backbone: Load, family: str, *, gaps: bool) -> Joint:
    loaded, head_weights = random_heads(backbone(family), READINGS)
    assert loaded.card.heads is not None
    tasks, heads = select_tasks(PROFILE), tuple(h for h in loaded.card.heads.heads if h.origin == "trained")
    rng = np.random.default_rng(0)
    golds = {}
    for head in heads:
        task = next(t for t in tasks if t.name == head.task)
        wide = len(task.classes) or len(task.labels) or 1
        gold = rng.random((len(TEXTS), wide))
        if task.classes:
            gold = np.eye(wide)[gold.argmax(axis=1)]
        if gaps:
            gold[:3] = np.nan
        golds[head.key] = gold
    labelled = LabelledText(TEXTS, golds, folds(TEXTS), np.ones(len(TEXTS), dtype=bool))
    features = {r: rng.normal(size=(50, 32)).astype(np.float32) for r in READINGS}
    start = StartingHeads(
        labelled, np.zeros(len(TEXTS), dtype=bool), tasks, loaded.card.heads.prompt, READINGS, heads, head_weights,
        scale_of(features, READINGS),
    )  # fmt: skip
    return Joint(loaded, start, with_answers=None, loss_weight=1.0, device="cpu")


def rows_of(joint: Joint) -> list[EncodedRow]:
    return joint.rows(joint.start.learnt, pa.table({}), [])


@pytest.mark.parametrize("family", ["llama", "bloom", "t5", "bert"])
def test_the_loss_is_a_sum_over_texts_and_a_gap_adds_nothing(backbone: Load, family: str) -> None:
    joint = a_joint(backbone, family, gaps=False)
    rows = rows_of(joint)
    assert [len(row.answer) for row in rows] == [11] * len(TEXTS)

    def loss(which: Joint, mine: list) -> torch.Tensor:  # type: ignore[type-arg]
        micro = which.collate(mine)
        return which.module(micro.inputs, micro.labels_BT)  # type: ignore[no-any-return]

    whole = loss(joint, rows).item()
    assert whole == pytest.approx(sum(loss(joint, [row]).item() for row in rows), rel=1e-4)
    with_gaps = a_joint(backbone, family, gaps=True)
    labelled_rows = rows_of(with_gaps)
    assert len(labelled_rows) == 3  # a text without any gold is no row
    assert loss(with_gaps, labelled_rows).item() == pytest.approx(loss(joint, rows[3:]).item(), rel=1e-4)
    loss(with_gaps, labelled_rows).backward()
    gradients = [p.grad for p in with_gaps.module.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in gradients)


def test_a_text_with_one_gold_changes_no_other_head(backbone: Load) -> None:
    joint = a_joint(backbone, "llama", gaps=False)
    [row] = [row for row in rows_of(joint) if row.id == "text 1"]
    micro = joint.collate([row])
    golds = torch.full_like(micro.labels_BT, float("nan"))
    golds[:, 0] = 0.5  # EI-reg anger alone
    joint.module(micro.inputs, golds).backward()
    change = joint.module.change_OF.grad
    assert isinstance(change, torch.Tensor)
    assert [bool(row.abs().sum() > 0) for row in change] == [True] + [False] * (len(change) - 1)


def test_held_out_posts_are_scored_with_what_stands_beside_them(
    backbone: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    joint = a_joint(backbone, "llama", gaps=False)
    labelled = replace(joint.start.labelled, beside=[(f"before {n}", "") for n in range(len(TEXTS))])
    prompt = joint.start.prompt.model_copy(update={"beside": ("context",)})
    start = replace(joint.start, labelled=labelled, prompt=prompt, held_out_N=np.ones(len(TEXTS), dtype=bool))
    joint = Joint(joint._loaded, start, with_answers=None, loss_weight=1.0, device="cpu")
    found = []

    def see(*args: object, **options: object) -> object:
        found.append(head_scores(*args, **options))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr("emollm.training.joint.head_scores", see)
    joint.finished()
    np.testing.assert_array_equal(found[0], joint.scores(joint._loss.head_weights(), labelled.posts))
    assert np.abs(found[0] - joint.scores(joint._loss.head_weights(), POSTS)).max() > 1e-3


def test_validation_rows_are_asked_with_what_stands_beside_them(backbone: Load) -> None:
    joint = a_joint(backbone, "llama", gaps=False)
    start = replace(joint.start, prompt=joint.start.prompt.model_copy(update={"beside": ("context",)}))
    joint = Joint(joint._loaded, start, with_answers=None, loss_weight=1.0, device="cpu")
    [task] = select_tasks(("V-reg",))

    def scores(context: str) -> dict[str, dict[str, float | None]]:
        rows = [
            GoldQuestion(
                id=str(n), task=task, emotion=None, text=text, gold=n / 5, context=context and f"{context} {n}"
            )
            for n, text in enumerate(TEXTS)
        ]
        return Validator([], rows, options(Path("d"), Path("o")), rank=0, world_size=1, device="cpu").scores(joint)

    assert scores("he said so") != scores("")


@pytest.mark.slow
def test_heads_start_where_they_were_and_gradient_steps_lower_the_loss(backbone: Load) -> None:
    joint = a_joint(backbone, "bert", gaps=False)
    assert joint.scores(joint._loss.head_weights(), POSTS) == pytest.approx(
        joint.scores(joint.start.head_weights, POSTS), abs=1e-4
    )
    micro = joint.collate(rows_of(joint))
    optimizer = torch.optim.AdamW([p for p in joint.module.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(12):
        loss = joint.module(micro.inputs, micro.labels_BT)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.ray
def test_two_workers_on_ray_learn_what_one_process_does(
    local_ray: None, alone: None, tmp_path: Path, sample_data: Path, tiny_base: Path
) -> None:
    model = tmp_path / "model"
    config = options(
        tiny_base, sample_data, out=model, method="lora", objective="both", tasks=("V-reg", "E-c"), num_wordings=1,
        max_rows=None, global_batch_size=32, micro_batch_size=16, epochs=0.2, num_evaluations=2, metrics_every=2,
        validation_rows=24, metric_rows=8, cluster={"num_workers": 2},
        heads={"layers": [2], "poolings": ["mean"], "use_all_features": True},
    )  # fmt: skip
    steps: list[StepReport] = []
    evaluations: list[EvaluationReport] = []
    summary = fit(config, on_step=steps.append, on_evaluation=evaluations.append)
    one = run_training(
        with_values(config, cluster={"num_workers": 1}), None, start=starting_heads(config, device="cpu")
    )
    # Every task has a gap somewhere, and none of them reached a weight.
    assert len(steps) >= 3 and [step.loss for step in steps] == pytest.approx(one.losses, rel=1e-4)
    assert [e.loss for e in evaluations] == pytest.approx([e.loss for e in one.evaluations], rel=1e-4)
    assert set(evaluations[-1].scores) == {"V-reg", "E-c"}
    card = read_card(model)
    assert card.adapter == "lora" and card.heads is not None and card.heads.writes_answers
    assert summary["reload_difference"] < 1e-2
    # Each worker scored half of the texts that the heads are calibrated on.
    assert one.joint is not None
    for head in one.joint.finished()[1]:
        assert card.heads.head(head.key).metrics == pytest.approx(head.metrics, abs=1e-3)  # type: ignore[union-attr]
    for engine in ("auto", "constrained"):
        answers = open_scorer(str(model), engine=engine).score(five_posts())
        assert [a.error for a in answers] == [None] * 10


@pytest.mark.slow
def test_an_encoder_learns_heads_and_its_model_directory_answers(
    alone: None, tmp_path: Path, sample_data: Path
) -> None:
    base, model = tiny_model("roberta", tmp_path / "base"), tmp_path / "model"
    config = options(
        base, sample_data, out=model, objective="heads", tasks=("V-reg", "E-c"), num_wordings=1, max_rows=96,
        micro_batch_size=16, epochs=10.0, heads={"layers": [2], "poolings": ["mean"]},
    )  # fmt: skip
    losses = train_here(config, start=starting_heads(config, device="cpu"))
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    card = read_card(model)
    assert card.adapter is None and card.heads is not None and not card.heads.writes_answers
    assert [a.error for a in open_scorer(str(model)).score(five_posts())] == [None] * 10


def five_posts() -> list[Question]:
    texts = read_posts(str(SAMPLES / "posts.jsonl"), "text", Reading(), Notes()).table["text"].to_pylist()[:5]
    return [q for text in texts for q in questions_for(text, select_tasks(["V-reg", "E-c"]))]


@pytest.mark.slow
def test_an_encoder_cannot_be_instruction_tuned(alone: None, tmp_path: Path, sample_data: Path) -> None:
    config = options(tiny_model("bert", tmp_path / "base"), sample_data, out=tmp_path / "m")
    with pytest.raises(ModelError, match="cannot generate answers; train it with --objective heads"):
        train_here(config)
