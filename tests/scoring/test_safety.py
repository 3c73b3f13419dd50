"""Users' text is data: whatever a row holds, it gets its answer or its error, and no other row notices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from emollm.core.answers import EMPTY_TEXT, SCORING_FAILED, Answer
from emollm.core.encoding import EncodedPrompt
from emollm.core.errors import DeviceError
from emollm.core.prompts import Question, questions_for
from emollm.core.tasks import TASKS, select_tasks
from emollm.models.load import LoadedModel
from emollm.scoring.constrained.engine import ConstrainedScorer
from emollm.scoring.generate import GenerateScorer
from emollm.scoring.safely import TokenLimit, run_safely, score_safely
from tests.core.test_encoding import NASTY

GOOD = ("I am so happy!", "What a sad day, my friend")
TASK = select_tasks(["EI-oc", "V-reg", "E-c"])


@pytest.mark.slow
def test_nasty_texts_change_no_other_answer(tiny: LoadedModel) -> None:
    scorer = ConstrainedScorer(tiny)
    alone = [scorer.score(questions_for(text, TASK)) for text in GOOD]
    texts = [GOOD[0], *NASTY.values(), "", " \n", "word " * 100_000, GOOD[1]]
    answers = scorer.score([q for text in texts for q in questions_for(text, TASK)])
    per_text = [answers[i : i + 6] for i in range(0, len(answers), 6)]
    for expected, got in ((alone[0], per_text[0]), (alone[1], per_text[-1])):
        for a, b in zip(expected, got, strict=True):
            assert b.value == pytest.approx(a.value, abs=1e-4) if isinstance(a.value, float) else b.value == a.value
            assert b.probabilities == pytest.approx(a.probabilities, abs=1e-3)
    for text, mine in zip(texts, per_text, strict=True):
        empty = not text.strip()
        assert {a.error for a in mine} == {EMPTY_TEXT if empty else None}
        assert {a.value is None for a in mine} == {empty}
        assert {a.truncated for a in mine} == {len(text) > 5000}


@pytest.mark.parametrize("engine", [ConstrainedScorer, GenerateScorer])
def test_only_a_row_that_breaks_the_model_has_no_answer(
    tiny: LoadedModel, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = engine(tiny)
    questions = [Question(TASKS["V-oc"], text) for text in ("Fine.", "Boom!", "Well.", "Good.", "So so.")]
    expected = scorer.score(questions)
    original = scorer._score_batch

    def breaks(qs: Sequence[Question], prompts: Sequence[EncodedPrompt]) -> list[Answer]:
        if any(q.text == "Boom!" for q in qs):
            raise RuntimeError("tensors are sad")
        return original(qs, prompts)

    monkeypatch.setattr(scorer, "_score_batch", breaks)
    answers = scorer.score(questions)
    assert answers[1] == Answer(value=None, error=f"{SCORING_FAILED}: RuntimeError: tensors are sad")
    assert [a.value for i, a in enumerate(answers) if i != 1] == [a.value for i, a in enumerate(expected) if i != 1]


def test_a_row_that_cannot_be_encoded_affects_no_other_row() -> None:
    def encode(questions: Sequence[Question]) -> list[EncodedPrompt]:
        if any(question.text == "bad" for question in questions):
            raise ValueError("no such character")
        return [EncodedPrompt([1], [2], [3], truncated=False) for _ in questions]

    def batches(questions: Sequence[Question], _prompts: Sequence[EncodedPrompt]) -> Any:
        yield list(range(len(questions)))

    questions = [Question(TASKS["V-oc"], text) for text in ("good", "bad", "fine")]
    answers = score_safely(
        questions,
        encode=encode,
        batches=batches,
        score=lambda qs, _: [Answer(value=len(q.text)) for q in qs],
        lower=TokenLimit(64).lower,
    )
    assert [a.value for a in answers] == [4, None, 4]
    assert answers[1].error == f"{SCORING_FAILED}: ValueError: no such character"


def test_no_questions(tiny: LoadedModel) -> None:
    assert ConstrainedScorer(tiny).score([]) == []


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class AcceleratorError(RuntimeError):
    """Named as torch's."""


def test_a_batch_that_does_not_fit_is_halved_and_the_size_that_fitted_is_remembered() -> None:
    limit, tried = TokenLimit(16), []

    def run(rows: Sequence[int]) -> list[int]:
        tried.append(len(rows))
        if len(rows) > 3:
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return list(rows)

    def batches(rows: Sequence[int]) -> Any:
        yield from (rows[i : i + limit.tokens] for i in range(0, len(rows), limit.tokens))

    def safely(count: int) -> list[int]:
        parts = run_safely(range(count), run, batches=batches, too_large=lambda rows: limit.lower(len(rows)))
        return [row for _, found, _ in parts for row in found or []]

    assert safely(16) == list(range(16)) and limit.tokens == 2
    tried.clear()
    assert safely(4) == list(range(4)) and tried == [2, 2]


@pytest.mark.parametrize(
    "error",
    [
        AcceleratorError("unspecified launch failure"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    ],
)
def test_a_failed_gpu_gives_no_answers_and_no_row_errors(error: Exception) -> None:
    calls = 0

    def poisoned(_rows: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        raise error

    with pytest.raises(DeviceError, match="the GPU failed"):
        list(run_safely(range(1000), poisoned))
    assert calls == 1
