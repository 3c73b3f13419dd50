"""The heads engine behind the scorer's interface."""

from __future__ import annotations

from pathlib import Path

import pytest

from emollm.core.answers import EMPTY_TEXT, SCORING_FAILED
from emollm.core.card import read_card
from emollm.core.errors import ModelError
from emollm.core.heads_card import FeatureSpec
from emollm.core.prompts import Question, questions_for
from emollm.core.tasks import TASKS, Kind, select_tasks
from emollm.models.save import save_model
from emollm.scoring.heads.engine import HeadsScorer
from emollm.scoring.heads.weights import HEADS_FILE, HeadWeights
from emollm.scoring.open import open_scorer, resolve_engine
from tests.core.test_encoding import NASTY
from tests.scoring.heads.conftest import BACKBONES, Load, random_heads
from tests.scoring.heads.conftest import backbone as backbone

POSTS = ("I am so happy!", "the train is late AGAIN", "What a sad day, my friend", "ok", "so it goes, on and on and on")
READINGS = (FeatureSpec(layer=1, pooling="last"), FeatureSpec(layer=2, pooling="mean"))


@pytest.fixture(params=BACKBONES)
def scorer(request: pytest.FixtureRequest, backbone: Load) -> HeadsScorer:
    loaded, head_weights = random_heads(backbone(request.param), READINGS)
    return HeadsScorer(loaded, head_weights=head_weights)


@pytest.fixture
def llama(backbone: Load) -> HeadsScorer:
    loaded, head_weights = random_heads(backbone("llama"), READINGS)
    return HeadsScorer(loaded, head_weights=head_weights)


def test_every_question_gets_an_answer_of_its_task(scorer: HeadsScorer) -> None:
    questions = [q for text in POSTS for q in questions_for(text, scorer.card.tasks)]
    for question, answer in zip(questions, scorer.score(questions), strict=True):
        assert answer.error is None and answer.value is not None
        question.task.check_value(answer.value)
        assert 0 <= (answer.confidence or 0) <= 1
        if question.task.kind is not Kind.LABEL_SET:
            assert sum(answer.probabilities.values()) == pytest.approx(1)


def test_answers_do_not_depend_on_batch_order_or_mix(scorer: HeadsScorer) -> None:
    tasks = select_tasks(["V-reg", "E-c", "EI-oc"])
    questions = [q for text in POSTS for q in questions_for(text, tasks)]
    together = scorer.score(questions)
    alone = [scorer.score([q])[0] for q in questions]
    mixed = dict(zip(reversed(questions), scorer.score(questions[::-1]), strict=True))
    for question, a, b in zip(questions, together, alone, strict=True):
        for other in (b, mixed[question]):
            assert a.probabilities == pytest.approx(other.probabilities, abs=1e-6)
            assert a.unit == (None if other.unit is None else pytest.approx(other.unit, abs=1e-6))


def test_a_post_is_read_once_for_all_its_questions(llama: HeadsScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    original = llama.scores
    monkeypatch.setattr(llama, "scores", lambda prompts: rows.append(len(prompts)) or original(prompts))
    llama.score([q for text in (*POSTS, POSTS[0]) for q in questions_for(text, select_tasks(["profile"]))])
    assert sum(rows) == len(POSTS)


def test_users_text_is_data(llama: HeadsScorer) -> None:
    task = select_tasks(["V-oc", "E-c"])
    alone = llama.score(questions_for(POSTS[0], task))
    texts = [POSTS[0], *NASTY.values(), "", " \n", "word " * 100_000]
    answers = llama.score([q for text in texts for q in questions_for(text, task)])
    assert answers[0].probabilities == pytest.approx(alone[0].probabilities, abs=1e-6)
    for text, mine in zip(texts, zip(answers[::2], answers[1::2], strict=True), strict=True):
        assert {a.error for a in mine} == {None if text.strip() else EMPTY_TEXT}
        assert {a.truncated for a in mine} == {len(text) > 5000}


def test_a_question_without_a_head_harms_no_other(llama: HeadsScorer) -> None:
    there, missing = llama.score([Question(TASKS["V-reg"], "Fine."), Question(TASKS["EmoBank-A"], "Fine.")])
    assert there.error is None
    assert missing.error == f"{SCORING_FAILED}: no head for EmoBank-A"


def test_only_a_post_that_breaks_the_model_has_no_answers(llama: HeadsScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    original, bad = llama.scores, llama.encode(POSTS[2]).ids

    def breaks(prompts):  # type: ignore[no-untyped-def]
        if any(prompt.ids == bad for prompt in prompts):
            raise RuntimeError("tensors are sad")
        return original(prompts)

    monkeypatch.setattr(llama, "scores", breaks)
    answers = llama.score([q for text in POSTS for q in questions_for(text, select_tasks(["V-reg", "V-oc"]))])
    failed = f"{SCORING_FAILED}: RuntimeError: tensors are sad"
    assert [a.error for a in answers] == [None] * 4 + [failed] * 2 + [None] * 4


def test_a_saved_model_opens_with_its_heads(tmp_path: Path, backbone: Load) -> None:
    loaded, head_weights = random_heads(backbone("opt"), READINGS)
    save_model(tmp_path, loaded)
    head_weights.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"affect.json", HEADS_FILE}
    question = questions_for(POSTS[1], select_tasks(["V-reg"]))
    [mine], [again] = (
        HeadsScorer(loaded, head_weights=head_weights).score(question),
        open_scorer(str(tmp_path)).score(question),
    )
    # Two loads may sum in another order on another processor: 1e-46 and 2e-46 are the same probability.
    assert mine.value == pytest.approx(again.value, abs=1e-6)
    assert mine.probabilities == pytest.approx(again.probabilities, abs=1e-6)
    origins = read_card(tmp_path).heads.origins()  # type: ignore[union-attr]
    assert (origins["V-reg"], origins["SST"]) == ("trained", "derived")


def test_engines_that_a_model_cannot_have_are_refused(tmp_path: Path, backbone: Load, model_directory: Path) -> None:
    loaded, head_weights = random_heads(backbone("llama"), READINGS)
    save_model(tmp_path, loaded)
    head_weights.save(tmp_path)
    assert resolve_engine(str(tmp_path), "auto") == "heads"
    assert resolve_engine(str(model_directory), "auto") == "constrained"
    with pytest.raises(ModelError, match=r"not trained to generate answers; use --engine heads"):
        open_scorer(str(tmp_path), engine="constrained")
    with pytest.raises(ModelError, match=r"has no heads;.*--objective heads --freeze"):
        open_scorer(str(model_directory), engine="heads")


def test_an_encoder_without_heads_says_what_it_needs(tmp_path: Path) -> None:
    from tests.tiny import tiny_model

    with pytest.raises(ModelError, match="cannot generate answers; fit heads"):
        open_scorer(f"base:{tiny_model('bert', tmp_path)}", engine="constrained")


def test_weights_that_do_not_fit_the_card_are_refused(tmp_path: Path, backbone: Load) -> None:
    loaded, head_weights = random_heads(backbone("llama"), READINGS)
    save_model(tmp_path, loaded)
    with pytest.raises(ModelError, match=r"heads in .* do not load"):
        open_scorer(str(tmp_path))
    HeadWeights(head_weights.weight_OF[:3], head_weights.bias_O[:3]).save(tmp_path)
    with pytest.raises(ModelError, match="belong to different models"):
        open_scorer(str(tmp_path))
    HeadWeights(head_weights.weight_OF[:, :5].copy(), head_weights.bias_O).save(tmp_path)
    with pytest.raises(ModelError, match="expect 5 features but the base model has 64"):
        open_scorer(str(tmp_path))
    HeadWeights(head_weights.weight_OF * float("nan"), head_weights.bias_O).save(tmp_path)
    with pytest.raises(ModelError, match="not finite"):
        open_scorer(str(tmp_path))
