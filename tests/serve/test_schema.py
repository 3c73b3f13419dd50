"""What goes over the wire fits the schema that is published."""

from __future__ import annotations

from pathlib import Path

import pytest

from emollm.core.prompts import questions_for
from emollm.scoring.open import open_scorer
from emollm.serve.schema import AnnotateResponse, TextResult


@pytest.mark.parametrize("engine", ["constrained", "generate"])
def test_a_response_that_was_not_validated_is_valid(model_directory: Path, engine: str) -> None:
    scorer = open_scorer(str(model_directory), engine=engine, device="cpu")
    questions = [questions_for(text, scorer.card.tasks) for text in ("what a day :)", "", "word " * 2000)]
    results = [TextResult.of(asked, scorer.score(asked)) for asked in questions]
    written = AnnotateResponse.model_construct(results=results).model_dump_json()
    assert AnnotateResponse.model_validate_json(written, strict=True).model_dump_json() == written
    assert [result.truncated for result in results] == [False, False, True]
