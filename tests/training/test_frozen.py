"""Heads on a frozen base, the whole road on a real Ray: fit, evaluate, annotate, and a teacher's labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from emollm.annotation.pipeline import AnnotateConfig, annotate_corpus
from emollm.commands.teacher import ask_teacher
from emollm.core.card import read_card
from emollm.core.errors import ConfigError
from emollm.core.folders import read_run
from emollm.core.options import ClusterConfig, with_values
from emollm.core.prompts import questions_for
from emollm.core.tasks import QuestionKey, select_tasks
from emollm.data.aaid import SAMPLES
from emollm.data.files.columns import Notes, Reading
from emollm.data.files.whole import read_posts
from emollm.models.load import LoadedModel, attach_lora, load_base
from emollm.models.save import save_model
from emollm.scoring.open import open_scorer
from emollm.training.frozen import calibration_tenth, fit_frozen, labels_of
from emollm.training.options import TrainConfig
from emollm.training.ray_train import fit
from tests.tiny import tiny_model

pytestmark = pytest.mark.ray

ONE = ClusterConfig(num_workers=1)


@pytest.fixture(scope="module")
def model(local_ray: None, tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> Path:
    """Heads on a tiny random BERT: it knows nothing, but lets words through."""
    folder = tmp_path_factory.mktemp("frozen")
    base = tiny_model("bert", folder / "base")
    config = TrainConfig(
        data=sample_data, out=folder / "model", base=str(base), objective="heads", freeze=True, cluster=ONE
    )  # fmt: skip
    seen: list[int] = []
    summary = fit_frozen(config, on_posts=lambda new, _total: seen.append(new), ask_teacher=ask_teacher)
    assert sum(seen) == summary["texts"]
    assert {p.name for p in folder.iterdir()} == {"base", "model"}
    return folder / "model"


def test_the_folder_is_small_and_tells_all(model: Path) -> None:
    assert {p.name for p in model.iterdir()} == {"affect.json", "heads.safetensors", "run.json"}
    card = read_card(model)
    assert card.adapter == "heads" and card.base.architecture == "encoder" and card.heads is not None
    origins = card.heads.origins()
    assert {t for t, o in origins.items() if o == "trained"} == {"EI-reg", "EI-oc", "V-reg", "V-oc", "E-c"}
    assert origins["SST"] == origins["GoEmotions"] == "derived"
    assert {task.name for task in card.tasks} == set(origins)
    # How well is for test_fit.py and for real models to show: a random BERT of 32 dimensions knows nothing of mood.
    head, run = card.heads.head(QuestionKey("V-reg")), read_run(model)
    assert head is not None and run is not None
    assert run["config"]["cluster"]["gpus_per_worker"] == 1.0  # Ray's; the device is what PyTorch sees
    assert run["summary"]["held_out"]["V-reg"] == head.metrics and set(head.metrics) == {"pearson", "in_90"}


def test_annotated_offline_and_asked_here_a_post_has_the_same_answers(model: Path, tmp_path: Path) -> None:
    posts = SAMPLES / "posts.jsonl"
    annotate_corpus(
        AnnotateConfig(
            model=str(model), input=posts, out=tmp_path / "out", max_posts=40, batch_size=16, precision="float32",
            cluster=ONE,
        )
    )  # fmt: skip
    rows = {row["id"]: row for row in pq.read_table(tmp_path / "out").to_pylist()}
    texts = read_posts(str(posts), "text", Reading(), Notes()).table.slice(0, 40).to_pylist()
    scorer = open_scorer(str(model), precision="float32")
    for post in texts[:10]:
        valence, emotions = scorer.score(questions_for(post["text"], select_tasks(["V-reg", "E-c"])))
        row = rows[post["id"]]
        assert row["v_reg"] == pytest.approx(valence.value, abs=1e-6)
        assert tuple(row["e_c"]) == emotions.value
        assert row["e_c_probabilities"] == pytest.approx(emotions.probabilities, abs=1e-6)


def test_a_teacher_labels_posts_and_a_student_learns_them(model: Path, tmp_path: Path) -> None:
    student = tmp_path / "student"
    options = {
        "out": student, "base": str(tiny_model("llama", tmp_path / "base")), "objective": "heads", "freeze": True,
        "teacher": (str(model),), "unlabelled": SAMPLES / "posts.jsonl", "tasks": ("V-reg", "EI-oc", "E-c"),
        "cluster": ONE,
    }  # fmt: skip
    fit_frozen(TrainConfig.model_validate(options), ask_teacher=ask_teacher)
    card = read_card(student)
    assert card.heads is not None
    origins = card.heads.origins()
    assert (origins["V-reg"], origins["E-c"], origins["SST"]) == ("distilled", "distilled", "derived")
    # It follows its teacher on posts held out from it.
    assert card.heads.head(QuestionKey("V-reg")).metrics["pearson"] > 0.2  # type: ignore[union-attr]
    # Asked again with other options, the teacher has nothing left to do.
    before = (tmp_path / "student-teacher" / "_run.json").stat().st_mtime_ns
    fit_frozen(
        TrainConfig.model_validate({**options, "out": student, "overwrite": True, "heads": {"layers": [2]}}),
        ask_teacher=ask_teacher,
    )
    assert (tmp_path / "student-teacher" / "_run.json").stat().st_mtime_ns == before
    assert {r.layer for r in read_card(student).heads.feature_specs} == {2}  # type: ignore[union-attr]
    # Asked something else, it is another job: its answers are replaced where that was said.
    fewer = {**options, "out": student, "overwrite": True, "max_unlabelled": 60}
    fit_frozen(TrainConfig.model_validate(fewer), ask_teacher=ask_teacher)
    assert pq.read_table(tmp_path / "student-teacher").num_rows == 60


def test_gold_labels_and_those_of_two_teachers_together(model: Path, tmp_path: Path, sample_data: Path) -> None:
    config = TrainConfig.model_validate(
        {
            "data": sample_data, "out": tmp_path / "both", "base": str(tiny_model("bert", tmp_path / "base")),
            "objective": "heads", "freeze": True, "teacher": (str(model), "minilm-affect"),
            "unlabelled": SAMPLES / "posts.jsonl", "max_unlabelled": 100, "tasks": ("V-reg",),
            "heads": {"layers": [1], "poolings": ["mean"]}, "cluster": ONE,
        }
    )  # fmt: skip
    summary = fit_frozen(config, ask_teacher=ask_teacher)
    assert summary["texts"] > 100
    for place in (1, 2):
        assert pq.read_table(tmp_path / f"both-teacher-{place}").num_rows == 100
    head = read_card(tmp_path / "both").heads.head(QuestionKey("V-reg"))  # type: ignore[union-attr]
    assert head is not None and head.origin == "trained" and head.rows > 100


def test_a_backbone_learns_gold_labels_and_a_teachers_and_is_calibrated_on_gold(
    model: Path, tmp_path: Path, sample_data: Path
) -> None:
    config = TrainConfig.model_validate(
        {
            "data": sample_data, "out": tmp_path / "tuned", "base": str(tiny_model("bert", tmp_path / "base")),
            "objective": "heads", "teacher": (str(model),), "unlabelled": SAMPLES / "posts.jsonl",
            "max_unlabelled": 200, "tasks": ("V-reg",), "heads": {"layers": [1], "poolings": ["mean"]},
            "lora_rank": 2, "epochs": 0.1, "global_batch_size": 16, "num_evaluations": 1, "validation_rows": 32,
            "cluster": ONE,
        }
    )  # fmt: skip
    golds, _ = labels_of(with_values(config, teacher=(), unlabelled=None))
    both, _ = labels_of(config, ask_teacher)
    assert both.is_gold_N.sum() == len(golds.texts) < len(both.texts)
    summary = fit(config, ask_teacher=ask_teacher)
    learnt = (~calibration_tenth(both)).sum()
    assert 0 < summary["rows"] <= learnt and summary["planned_steps"] == int(0.1 * learnt / 16)
    head = read_card(tmp_path / "tuned").heads.head(QuestionKey("V-reg"))  # type: ignore[union-attr]
    assert head is not None and head.origin == "trained" and head.rows > len(golds.texts)
    held = np.flatnonzero(calibration_tenth(both))
    assert both.is_gold_N[both.gold_first(QuestionKey("V-reg"), held, at_least=1)].all()
    assert not both.is_gold_N[held].all()


def test_heads_are_fitted_anew_on_a_trained_adapter_which_stays(
    local_ray: None, tmp_path: Path, sample_data: Path
) -> None:
    base = load_base(str(tiny_model("bert", tmp_path / "base")))
    tuned = attach_lora(base.model, rank=2, alpha=4, dropout=0.0)
    start = tmp_path / "start"
    start.mkdir()
    save_model(start, LoadedModel(tuned, base.tokenizer, base.card.model_copy(update={"adapter": "lora"})))
    first = {
        "data": sample_data, "out": tmp_path / "first", "start_from": str(start), "objective": "heads", "freeze": True,
        "tasks": ("V-reg", "E-c"), "heads": {"layers": [2], "poolings": ["mean"]}, "cluster": ONE,
    }  # fmt: skip
    fit_frozen(TrainConfig.model_validate(first))
    assert read_card(tmp_path / "first").adapter == "lora"
    more = {**first, "out": tmp_path / "more", "start_from": str(tmp_path / "first"), "tasks": ("EI-oc",)}
    fit_frozen(TrainConfig.model_validate({**more, "heads": {}}))
    card = read_card(tmp_path / "more")
    assert card.heads is not None and {t for t, o in card.heads.origins().items() if o == "trained"} == {
        "V-reg", "E-c", "EI-oc",
    }  # fmt: skip
    assert {spec.layer for spec in card.heads.feature_specs} == {2}
    asked = [q for q in questions_for("Glad.", card.tasks) if q.task.name in ("V-reg", "E-c")]
    before, after = (open_scorer(str(tmp_path / name), precision="float32") for name in ("first", "more"))
    for old, new in zip(before.score(asked), after.score(asked), strict=True):
        assert new.probabilities == pytest.approx(old.probabilities)
        assert new.value == (old.value if old.unit is None else pytest.approx(old.value))


def test_only_a_model_with_adapters_is_gone_on_from(model: Path, tmp_path: Path, sample_data: Path) -> None:
    options = {"data": sample_data, "out": tmp_path / "m", "objective": "heads", "freeze": True}
    for start, message in ((str(model), "has no adapter to go on from"), ("nowhere", "no model directory at nowhere")):
        with pytest.raises(ValueError, match=message):
            fit_frozen(TrainConfig.model_validate({**options, "start_from": start}))
    with pytest.raises(ConfigError, match="is made for minilm-l6; --base is opt-13b"):
        fit_frozen(TrainConfig.model_validate({**options, "start_from": "fast", "base": "opt-13b"}))


def test_a_layer_that_is_not_there_is_refused_and_nothing_is_left(
    local_ray: None, tmp_path: Path, sample_data: Path, tiny_base: Path
) -> None:
    config = TrainConfig.model_validate(
        {"data": sample_data, "out": tmp_path / "m", "base": str(tiny_base), "objective": "heads", "freeze": True,
         "heads": {"layers": [2, 9]}}
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"--heads.layers 9: .* has layers 1 to 2"):
        fit_frozen(config, ask_teacher=ask_teacher)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": True}, "add --objective heads"),
        ({"teacher": ("t",), "objective": "heads", "freeze": True}, "--teacher and --unlabelled go together"),
        ({"teacher": ("t",), "unlabelled": "u"}, "add --objective heads"),
        (
            {"teacher": ("t",), "unlabelled": "u", "objective": "heads", "data": None},
            "--teacher needs --data or --freeze",
        ),
        ({"data": None}, "--data is required"),
        ({"objective": "heads", "zero_stage": 3}, "use --zero-stage 2"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.model_validate({"data": "d", "out": "o", **options})
