"""Tables in, tables out."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest

from emollm.core.answers import Answer
from emollm.core.card import AffectCard, BaseModelInfo, read_card
from emollm.core.prompts import Question
from emollm.models.load import LoadedModel, load_base
from emollm.models.save import save_model
from emollm.scoring.columns import PLAIN
from emollm.scoring.rows import AnnotatePosts, ScoreQuestions


@pytest.fixture(scope="module")
def model(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    base = load_base(str(tiny_base))
    save_model(folder, LoadedModel(base.model, base.tokenizer, base.card))
    return str(folder)


@pytest.mark.parametrize("engine", ["constrained", "generate"])
def test_one_row_per_post_with_the_columns_of_the_schema(model: str, engine: str) -> None:
    names = ("EI-oc", "EmoBank-V", "E-c")
    posts = pa.table({"id": ["a", "b", "c"], "text": ["Glad.", None, "Ich bin heute sehr froh und möchte tanzen."]})
    table = AnnotatePosts(tasks=names, model=model, engine=engine)(posts)
    tasks = tuple(task for name in names for task in read_card(Path(model)).tasks if task.name == name)
    assert table.cast(PLAIN.schema(tasks)).num_rows == 3
    first, empty, german = table.to_pylist()
    assert [row["not_english"] for row in (first, empty, german)] == [False, False, True]
    assert {name for name in table.column_names if name.startswith("emobank_v")} == {
        "emobank_v", "emobank_v_std", "emobank_v_confidence", "emobank_v_error",
    }  # fmt: skip
    assert (
        empty["emobank_v"] is None and empty["emobank_v_error"] == "empty_text" and empty["e_c_probabilities"] is None
    )
    if engine == "constrained":
        assert 1 <= first["emobank_v"] <= 5 and first["emobank_v_std"] > 0
        assert list(first["ei_oc_joy_probabilities"]) == ["0", "1", "2", "3"]
        assert sum(first["ei_oc_joy_probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert first["ei_oc_joy_confidence"] == pytest.approx(max(first["ei_oc_joy_probabilities"].values()))
        assert len(first["e_c_probabilities"]) == 11


def test_a_row_with_a_problem_is_not_scored_and_a_scorer_that_raises_costs_one_row() -> None:
    class Touchy:
        card = AffectCard(name="t", base=BaseModelInfo(name="", architecture="decoder", licence="", fingerprint=""))
        asked: ClassVar[list[str]] = []

        def score(self, questions: list[Question]) -> list[Answer]:
            if any("bad" in q.text for q in questions):
                raise RuntimeError("two\nlines")
            self.asked += [q.text for q in questions]
            return [Answer(value=1, confidence=0.5) for _ in questions]

    posts = pa.table({"id": ["a", "b", "c"], "text": ["x", "y", "bad"], "n": [1, 2, 3], "problem": [None, "odd", None]})
    table = AnnotatePosts(tasks=("V-oc",), model="m", engine="e", opener=lambda *_, **__: Touchy())(posts)
    assert table.column_names[:4] == ["id", "text", "n", "v_oc"]
    assert table["error"].to_pylist() == [None, "odd", "scoring_failed: RuntimeError: two lines"]
    assert Touchy.asked == ["x"] and table["v_oc"].to_pylist() == [1, None, None]


def test_questions_of_all_kinds_share_a_table(model: str) -> None:
    rows = pa.table(
        {
            "index": [4, 2],
            "task": ["V-reg", "E-c"],
            "emotion": pa.array([None, None], pa.string()),
            "text": ["Glad."] * 2,
            "context": ["", "Are you?"],
            "target": ["", ""],
        }
    )
    number, labels = ScoreQuestions(model=model, engine="constrained")(rows).to_pylist()
    assert number["index"] == 4 and 0 <= number["number"] <= 1 and number["labels"] is None
    assert labels["index"] == 2 and isinstance(labels["labels"], list) and labels["number"] is None
