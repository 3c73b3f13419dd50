"""Labels as sentences: what is asked of which text, that a small model learns it, and how its answers are then read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from emollm.core.answers import Answer
from emollm.core.ask import STATEMENT, labels, statement_task
from emollm.core.card import AffectCard, BaseModelInfo
from emollm.core.errors import ConfigError
from emollm.core.prompts import Question, render
from emollm.core.tasks import Task
from emollm.data.aaid import OwnConfig, build_own
from emollm.data.instructions import pieces_of
from emollm.data.statements import StatementsConfig, build_statements
from emollm.scoring.asking.entailment import EntailmentScorer
from emollm.scoring.asking.scorer import Route, route

TOML = """
file = "notes.jsonl"
text = "text"
validation = 0.3
[[task]]
name = "mood"
kind = "label-set"
labels = ["calm", "cross", "glad", "tired"]
column = "mood"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    notes = [
        {"text": f"note number {n}", "mood": ["calm", "cross", "glad", "tired"][n % 4 : n % 4 + n % 3]}
        for n in range(60)
    ]
    (tmp_path / "notes.jsonl").write_text("\n".join(map(json.dumps, notes)))
    (tmp_path / "notes.toml").write_text(TOML)
    build_own(OwnConfig(data=tmp_path / "notes.toml", out=tmp_path / "data"))
    return tmp_path / "data"


def test_each_text_is_asked_some_labels_in_drawn_wordings(folder: Path, tmp_path: Path) -> None:
    tables = build_statements(
        StatementsConfig(data=folder, out=tmp_path / "out", labels_per_text=2, leave_out=("tired",))
    )
    rows = [row for table in tables.values() for row in table.to_pylist()]
    # Three wordings of a note are one text.
    assert set(Counter(row["text"] for row in rows).values()) == {2} and len({row["text"] for row in rows}) == 60
    said = {row["emotion"] for row in rows}
    assert not any("tired" in sentence for sentence in said) and len(said) > 3
    golds = {
        (n["text"], label)
        for n in map(json.loads, (tmp_path / "notes.jsonl").read_text().splitlines())
        for label in n["mood"]
    }
    for row in rows:
        label = (
            row["emotion"].split()[-1]
            if row["emotion"].split()[-1] in ("calm", "cross", "glad")
            else row["emotion"].split()[2]
        )
        assert row["answer"] == ("yes" if (row["text"], label) in golds else "no")
    assert {row["answer"] for row in rows} == {"yes", "no"}
    [task] = [Task.model_validate(t) for t in json.loads((tmp_path / "out" / "run.json").read_text())["tasks"]]
    assert task.name == STATEMENT and set(task.emotions) == said
    # What is asked at call time of a label not seen has the words that were trained.
    row = rows[0]
    assert render(Question(statement_task([row["emotion"]]), row["text"], row["emotion"])) == pieces_of(row)
    with pytest.raises(ConfigError, match=r"--leave-out 'sad' is no label .* calm, cross, glad, tired"):
        build_statements(StatementsConfig(data=folder, out=tmp_path / "again", leave_out=("sad",)))


class Taught:
    """What a model says that was trained on statements; it believes those that name what stands in the text."""

    card = AffectCard(
        name="taught",
        base=BaseModelInfo(name="b", architecture="decoder", licence="", fingerprint=""),
        tasks=(statement_task(["The writer feels calm"]),),
    )

    def score(self, questions: list[Question]) -> list[Answer]:
        yes = [0.9 if str(q.emotion).split()[-1] in q.text else 0.2 for q in questions]
        return [Answer(value="yes", probabilities={"yes": p, "no": 1 - p}, valid_mass=1.0) for p in yes]


def test_a_model_trained_on_statements_is_taken_at_its_word() -> None:
    one, some = labels("dread", "relief"), labels("dread", "relief", many=True)
    scorer = EntailmentScorer(Taught())
    first, second = scorer.score([Question(one, "what relief"), Question(some, "what relief")])
    assert first.value == "relief" and first.probabilities["relief"] == pytest.approx(0.9 / 1.1)
    assert second.value == ("relief",) and second.probabilities == {"dread": 0.2, "relief": 0.9}
    assert route("auto", Taught.card, "constrained") == Route("entailment", None)
