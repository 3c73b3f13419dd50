"""What goes over the wire fits the schema that is published."""

from __future__ import annotations

from pathlib import Path

import pytest

from emollm.core.prompts import questions_for
from emollm.core.tasks import select_tasks
from emollm.scoring.extras import Extras
from emollm.scoring.open import open_scorer
from emollm.serve.schema import AnnotateResponse, TextResult


@pytest.mark.parametrize("engine", ["constrained", "generate"])
def test_a_response_that_was_not_validated_is_valid(model_directory: Path, engine: str) -> None:
    scorer = open_scorer(str(model_directory), engine=engine, device="cpu")
    questions = [questions_for(text, scorer.card.tasks) for text in ("what a day :)", "", "was für ein Tag und " * 400)]
    results = [TextResult.of(asked[0].text, asked, scorer.score(asked)) for asked in questions]
    written = AnnotateResponse.model_construct(results=results).model_dump_json()
    assert AnnotateResponse.model_validate_json(written, strict=True).model_dump_json() == written
    assert [result.truncated for result in results] == [False, False, True]
    assert [result.not_english for result in results] == [False, False, True]


def test_what_stands_beside_an_answer_is_valid_and_there_only_if_asked_for(model_directory: Path) -> None:
    scorer = open_scorer(str(model_directory), engine="constrained", device="cpu")
    asked = questions_for("what a day :)", select_tasks(("E-c", "V-oc", "V-reg"), scorer.card.tasks))
    extras = Extras.of(scorer.card, "constrained", [q.task for q in asked], abstain=1.0, second=True)
    result = TextResult.of(asked[0].text, asked, scorer.score(asked), extras)
    written = AnnotateResponse.model_construct(results=[result]).model_dump_json()
    assert AnnotateResponse.model_validate_json(written).model_dump_json() == written
    assert all((a.value is None) == a.beside.abstained for a in result.answers if a.beside)
    assert any(a.beside and a.beside.abstained for a in result.answers)
    assert '"second"' in written and '"words"' not in written and '"low"' not in written
    assert '"beside"' not in TextResult.of(asked[0].text, asked, scorer.score(asked)).model_dump_json()
