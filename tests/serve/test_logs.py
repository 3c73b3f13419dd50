"""What scoring writes to the log, which the endpoint's replicas write too. No Ray."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from emollm.core.answers import SCORING_FAILED, Answer
from emollm.core.encoding import EncodedPrompt
from emollm.core.prompts import Question
from emollm.core.tasks import TASKS
from emollm.scoring.safely import score_safely


def test_what_an_exception_says_is_in_the_answer_and_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def score(questions: Sequence[Question], _prompts: Sequence[EncodedPrompt]) -> list[Answer]:
        raise RuntimeError(f"cannot read {questions[0].text!r}")

    def batches(questions: Sequence[Question], _prompts: Sequence[EncodedPrompt]) -> Any:
        yield list(range(len(questions)))

    with caplog.at_level(logging.DEBUG):
        (answer,) = score_safely(
            [Question(TASKS["V-oc"], "a secret")],
            encode=lambda questions: [EncodedPrompt([1], [2], [3], truncated=False) for _ in questions],
            batches=batches,
            score=score,
            lower=lambda _: None,
        )
    assert answer.error == f"{SCORING_FAILED}: RuntimeError: cannot read 'a secret'"
    assert "RuntimeError" in caplog.text
    assert "a secret" not in caplog.text
