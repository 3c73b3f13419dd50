"""Tasks that a model was not trained for: which way they go and what it computes; the card's tasks stay as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emollm.core.answers import Answer
from emollm.core.ask import labels, levels, scale
from emollm.core.bases import DEFAULT_BASE
from emollm.core.card import AffectCard, BaseModelInfo
from emollm.core.errors import ConfigError
from emollm.core.prompts import Question
from emollm.core.tasks import TASKS, Task, Way
from emollm.models.load import load_base
from emollm.scoring.asking.embedding import EmbeddingScorer
from emollm.scoring.asking.entailment import EntailmentScorer
from emollm.scoring.asking.scorer import AskingScorer, Route, route
from emollm.scoring.constrained.engine import ConstrainedScorer
from emollm.scoring.constrained.search import SearchOptions
from emollm.scoring.open import _open_way, open_scorer
from emollm.scoring.scorer import prepare
from tests.tiny import tiny_model

TEXT = "The test came back clear, thank you all!"
OWN = (labels("relief", "dread", "boredom"), labels("relief", "dread", many=True), levels("urgency", "can wait", "now"),
       scale("stress", low=0, high=10))  # fmt: skip


@pytest.fixture(scope="module")
def scorer(model_directory: Path) -> AskingScorer:
    found = open_scorer(str(model_directory), device="cpu")
    assert isinstance(found, AskingScorer)
    return found


def test_a_base_that_answers_in_two_ways_is_loaded_once(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emollm.models import load

    loaded, load_model = [], load.load_model

    def counted(model: str, **options: Any) -> load.LoadedModel:
        loaded.append(model)
        return load_model(model, **options)

    monkeypatch.setattr(load, "load_model", counted)
    (tmp_path / "link").symlink_to(tiny_base)
    others: dict[Any, Any] = {}
    for way, name in (("constrained", str(tiny_base)), ("entailment", f"{tmp_path}/link")):
        opened = _open_way(None, others, Route(way, f"base:{name}"), device="cpu", batch_tokens=64, precision="float32")
        assert opened.scorer.score([Question(with_way(OWN[0], way), TEXT)])[0].error is None
    assert loaded == [f"base:{tiny_base}"]


def with_way(task: Task, way: Way) -> Task:
    return task.model_copy(update={"way": way})


def card(architecture: str, base: str) -> AffectCard:
    info = BaseModelInfo.model_validate({"name": base, "architecture": architecture, "licence": "", "fingerprint": ""})
    return AffectCard(name="m", base=info)


@pytest.mark.parametrize(
    ("architecture", "base", "engine", "way", "expected"),
    [
        ("decoder", "mine", "constrained", "auto", Route("constrained", None)),
        ("decoder", DEFAULT_BASE, "heads", "auto", Route("constrained", DEFAULT_BASE)),
        ("decoder", "/a/folder", "heads", "entailment", Route("entailment", "base:/a/folder")),
        ("decoder", "mine", "constrained", "embedding", Route("embedding", "minilm-l6")),
        ("encoder", "minilm-l6", "heads", "auto", Route("embedding", "minilm-l6")),
        ("encoder", "minilm-l6", "heads", "constrained", Route("constrained", DEFAULT_BASE)),
    ],
)
def test_a_task_goes_where_the_model_can_answer_it(
    architecture: str, base: str, engine: str, way: Way, expected: Route
) -> None:
    assert route(way, card(architecture, base), engine) == expected


@pytest.mark.parametrize("way", ["constrained", "entailment"])
def test_every_answer_is_of_its_kind_and_says_how_it_was_found(scorer: AskingScorer, way: Way) -> None:
    tasks = [with_way(task, way) for task in OWN]
    one, some, step, number = scorer.score([Question(task, TEXT) for task in tasks])
    assert one.value in ("relief", "dread", "boredom") and math.isclose(sum(one.probabilities.values()), 1.0)
    assert isinstance(some.value, tuple) and set(some.probabilities) == {"relief", "dread"}
    assert step.value in (0, 1) and set(step.probabilities) == {"0", "1"}
    assert isinstance(number.value, float) and 0 <= number.value <= 10
    for answer in (one, some, step, number):
        assert answer.error is None and answer.way is not None and answer.way.startswith(f"{way} by ")
        assert answer.valid_mass is not None and 0 <= answer.valid_mass <= 1


def test_tasks_of_the_card_are_answered_as_without_the_others(scorer: AskingScorer, model_directory: Path) -> None:
    own = Question(OWN[0], TEXT)
    known = [Question(TASKS["V-reg"], TEXT), Question(TASKS["E-c"], TEXT)]
    mixed = scorer.score([known[0], own, known[1]])
    alone = scorer.score(known)
    assert mixed[0].value == pytest.approx(alone[0].value, abs=1e-6) and mixed[2].value == alone[1].value
    assert mixed[0].way is None and mixed[0].notes == ()


def test_the_probabilities_are_likelihoods_divided_by_those_without_content(tiny_base: Path) -> None:
    constrained = ConstrainedScorer(load_base(str(tiny_base)), options=SearchOptions(tolerance=0.0))
    asked: list[Question] = []

    class Watched:
        card = constrained.card

        def score(self, questions: Sequence[Question]) -> list[Answer]:
            asked.extend(questions)
            return constrained.score(questions)

    [found] = EntailmentScorer(Watched()).score([Question(OWN[0], TEXT)])
    statement = asked[0].task
    assert statement.labels == ("The writer feels relief", "The writer feels dread", "The writer feels boredom")
    raw, *empty = constrained.score([Question(statement, text) for text in (TEXT, "N/A", "[MASK]", "...")])
    prior = [np.mean([answer.probabilities[label] for answer in empty]) for label in statement.labels]
    ratio = np.array([raw.probabilities[label] for label in statement.labels]) / prior
    assert list(found.probabilities.values()) == pytest.approx((ratio / ratio.sum()).tolist(), abs=1e-6)


def test_an_encoder_answers_with_the_nearest_sentence(tmp_path: Path) -> None:
    folder = tiny_model("bert", tmp_path)
    scorer = EmbeddingScorer(load_base(str(folder)))
    task = labels("a", "b", describe={"a": "The sun is out.", "b": "My keys are lost."})
    sun, keys = scorer.score([Question(task, "The sun is out"), Question(task, "My keys are lost")])
    assert (sun.value, keys.value) == ("a", "b")
    vectors = scorer.embed(["The sun is out", "My keys are lost"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1])
    with_both = scorer.score([Question(task, "The sun is out", context="At last.", target="the sun")])[0]
    assert with_both.probabilities != sun.probabilities and with_both.notes == ()
    empty, there = scorer.score([Question(task, "  "), Question(task, "The sun is out", target="keys")])
    assert empty.error == "empty_text" and there.notes == ("target_not_in_text",)


def test_labels_that_are_one_to_the_tokenizer_are_an_error_and_no_guess(
    scorer: AskingScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a tokenizer without accents has it.
    opened = scorer._way_of(OWN[0])
    plain = replace(opened, ids=lambda text: list(text.replace("é", "e").encode()))
    monkeypatch.setitem(scorer._opened, scorer._route(OWN[0]), plain)
    task = labels("blase", "blasé")
    [answer, other] = scorer.score([Question(task, TEXT), Question(TASKS["V-reg"], TEXT)])
    assert answer.value is None and answer.error is not None and other.error is None
    assert answer.error.startswith("labels_alike: 'blase' and 'blasé'")


def test_context_and_target_change_the_answer_and_are_flagged(scorer: AskingScorer) -> None:
    for task in (OWN[0], with_way(OWN[1], "entailment"), TASKS["V-reg"], TASKS["E-c"]):
        questions = [
            Question(task, TEXT),
            Question(task, TEXT, context="Did you hear from the doctor?"),
            Question(task, TEXT, target="The test"),
            Question(task, TEXT, context="word " * 3000, target="my neighbour"),
        ]
        plain, context, target, long = scorer.score(questions)
        assert len({str(sorted(a.probabilities.items())) for a in (plain, context, target)}) == 3
        assert plain.notes == context.notes == target.notes == ()
        assert long.notes == ("context_cut", "target_not_in_text") and long.error is None


def test_a_model_that_is_not_to_be_had_is_said_before_anything_is_scored(scorer: AskingScorer, tmp_path: Path) -> None:
    gone = AskingScorer(scorer._engine, name="heads", open_way=_cannot)
    with pytest.raises(ConfigError, match="not here"):
        prepare(gone, OWN[:1])
    with pytest.raises(ConfigError, match="open one with open_scorer"):
        prepare(ConstrainedScorer(load_base(str(tiny_model("llama", tmp_path)))), OWN[:1])


def _cannot(_route: Route) -> None:
    raise ConfigError("not here")
