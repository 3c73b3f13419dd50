"""What stands beside an answer: columns worked out by hand, the same from arrays and from objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from emollm.core.answers import Answer
from emollm.core.calibration import Abstention, Calibration
from emollm.core.card import AffectCard, BaseModelInfo
from emollm.core.conformal import Conformal
from emollm.core.errors import ConfigError
from emollm.core.prompts import Question
from emollm.core.tasks import TASKS
from emollm.scoring.columns import OutputColumns
from emollm.scoring.explain import explain, words_of
from emollm.scoring.extras import NO_EXTRAS, Extras
from emollm.scoring.options import ExtrasConfig
from emollm.scoring.rows import AnnotatePosts

ASKED = tuple(TASKS[name] for name in ("V-reg", "SST5", "E-c"))
FITTED = Calibration(
    questions=(),
    abstain={
        "V-reg": (),
        "SST5": (Abstention(confidence=0.6, right_share=0.8, kept=0.5),),
        "E-c": (
            Abstention(confidence=0.2, right_share=0.7, kept=0.9),
            Abstention(confidence=0.4, right_share=0.85, kept=0.4),
        ),
    },
    sets=(
        Conformal(task="V-reg", score="std", rows=100, quantiles={"0.9": 2.0}),
        Conformal(task="SST5", score="probability", rows=100, quantiles={"0.9": 0.75}),
        Conformal(task="E-c", score="probability", rows=100, quantiles={"0.9": 0.8}),
    ),
)
CARD = AffectCard(
    name="m",
    base=BaseModelInfo(name="b", architecture="decoder", licence="l", fingerprint="f"),
    tasks=ASKED,
    calibration={"heads": FITTED},
)
NUMBER = Answer(value=0.7, unit=0.7, std=0.2, confidence=0.5)
CLASS = Answer(value=4, confidence=0.5, probabilities={"0": 0.0, "1": 0.0, "2": 0.2, "3": 0.3, "4": 0.5})
LABELS = Answer(
    value=("joy",), confidence=0.3, probabilities=dict.fromkeys(TASKS["E-c"].labels, 0.01) | {"joy": 0.9, "love": 0.4}
)
FAILED = Answer(value=None, error="empty_text")


def beside(extras: Extras, task: str, answer: Answer) -> dict[str, object]:
    (value,), found = extras.beside(Question(TASKS[task], ""), [answer])
    return {"value": value, **{name: each[0] for name, each in found.items()}}


def test_below_the_confidence_for_the_precision_asked_for_nothing_is_answered() -> None:
    extras = Extras.of(CARD, "heads", ASKED, abstain="precision=0.8")
    # The smallest share kept that is at least .8: .8 of SST5, .85 of E-c, and none of V-reg.
    assert extras.below == {"V-reg": 2.0, "SST5": 0.6, "E-c": 0.4} and extras.never == ("V-reg",)
    assert "V-reg" in extras.never_line("precision=0.8")
    assert beside(extras, "SST5", CLASS) == {"value": None, "sst5_abstained": True, "sst5_best": 4}
    assert beside(extras, "E-c", LABELS) == {"value": None, "e_c_abstained": True, "e_c_best": ("joy",)}
    assert beside(extras, "V-reg", NUMBER) == {"value": None, "v_reg_abstained": True, "v_reg_best": 0.7}
    sure = Extras.of(CARD, "heads", ASKED, abstain=0.5)
    assert beside(sure, "SST5", CLASS) == {"value": 4, "sst5_abstained": False, "sst5_best": 4}
    assert beside(sure, "SST5", FAILED) == {"value": None, "sst5_abstained": False, "sst5_best": None}
    unsure = Answer(value=3)  # an engine that gives no confidence
    assert beside(sure, "SST5", unsure)["sst5_abstained"] is True


def test_the_second_reading() -> None:
    extras = Extras.of(CARD, "heads", ASKED, second=True)
    assert beside(extras, "SST5", CLASS)["sst5_second"] == 3
    # Love in (odds .4 / .6) costs less than joy out (.1 / .9).
    assert beside(extras, "E-c", LABELS)["e_c_second"] == ("joy", "love")
    assert beside(extras, "V-reg", NUMBER) == {"value": 0.7}
    assert beside(extras, "SST5", FAILED)["sst5_second"] is None
    expected = Answer(value=2, confidence=0.2, probabilities=CLASS.probabilities)  # not the likeliest
    assert beside(extras, "SST5", expected)["sst5_second"] == 4


def test_sets_and_intervals() -> None:
    extras = Extras.of(CARD, "heads", ASKED, sets=0.9)
    assert beside(extras, "SST5", CLASS)["sst5_set"] == (3, 4)  # of at least .25
    assert beside(extras, "E-c", LABELS)["e_c_set"] == ("joy", "love")  # of at least .2
    number = beside(extras, "V-reg", NUMBER)
    assert (number["v_reg_low"], number["v_reg_high"]) == (pytest.approx(0.3), 1.0)
    assert beside(extras, "V-reg", FAILED) == {"value": None, "v_reg_low": None, "v_reg_high": None}
    assert beside(extras, "E-c", FAILED)["e_c_set"] is None


def test_what_was_not_fitted_is_an_error_that_names_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"no thresholds for TDT; .*emollm calibrate"):
        Extras.of(CARD, "heads", [TASKS["TDT"]], abstain="precision=0.8")
    with pytest.raises(ConfigError, match=r"no sets for V-reg, SST5, E-c; .*emollm calibrate"):
        Extras.of(CARD, "constrained", ASKED, sets=0.9)
    with pytest.raises(ConfigError, match="no sets for V-reg"):
        Extras.of(None, "constrained", ASKED, sets=0.5)
    with pytest.raises(ConfigError, match="once per word"):
        Extras.of(CARD, "server", ASKED, explain=True)
    with pytest.raises(ConfigError, match=r"sets 0.7: choose from: 0.5"):
        Extras.of(CARD, "heads", ASKED, sets=0.7)
    for wrong in ({"abstain": "recall=0.8"}, {"abstain": "1.2"}, {"sets": 0.7}):
        with pytest.raises(ValueError, match=r"precision=0\.8|choose from"):
            ExtrasConfig.model_validate(wrong)


def test_words_are_found_at_their_positions() -> None:
    text = "I'm  so-so @home... 😢😢 #fine"
    assert [text[a:b] for a, b in words_of(text)] == ["I'm", "so-so", "@home", "...", "😢😢", "#fine"]


@dataclass
class Counter:
    """Joy is a tenth for each "good" less a tenth for each "bad", from .5; it notes what it is asked."""

    card: AffectCard = CARD
    asked: list[str] = field(default_factory=list)
    calls: int = 0

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        self.calls += 1
        self.asked += [q.text for q in questions]
        return [self._answer(q) for q in questions]

    def _answer(self, question: Question) -> Answer:
        if not question.text.strip():
            return FAILED
        unit = 0.5 + (question.text.count("good") - question.text.count("bad")) / 10
        match question.task.name:
            case "V-reg":
                return Answer(value=unit, unit=unit, std=0.1, confidence=0.5)
            case "SST5":
                return Answer(value=4, confidence=unit, probabilities={"0": 1 - unit, "4": unit})
            case _:
                shares = dict.fromkeys(TASKS["E-c"].labels, 0.1) | {"joy": unit}
                return Answer(value=("joy",) if unit > 0.5 else (), confidence=unit, probabilities=shares)


def test_effects_are_what_leaving_a_word_out_changes() -> None:
    scorer = Counter()
    questions = [Question(task, "") for task in ASKED]
    (number, classes, labels), (single, _, none) = explain(scorer, ["good good bad day", "bad"], questions)
    assert scorer.calls == 1
    assert scorer.asked[:: len(ASKED)] == [
        "good good bad day", "good bad day", "good bad day", "good good day", "good good bad", "bad", "…",
    ]  # fmt: skip
    assert [(w.word, round(w.effect, 9)) for w in number] == [("good", 0.1), ("good", 0.1), ("bad", -0.1), ("day", 0.0)]
    assert number[0].base == pytest.approx(0.6) and (number[0].start, number[0].end) == (0, 4)
    # The expected class is 4 times the probability of class 4.
    assert classes[0].effect == pytest.approx(0.4) and classes[0].about is None
    assert labels[0].about == "joy" and labels[0].effect == pytest.approx(0.1)
    assert [w.effect for w in single] == pytest.approx([-0.1])
    assert none[0].about == "joy"  # none is given: the likeliest is explained
    assert len(explain(scorer, ["good " * 9], questions)[0][0]) == 5


def test_context_and_target_stay_as_they_are() -> None:
    asked: list[tuple[str, str, str]] = []

    class Notes(Counter):
        def score(self, questions: Sequence[Question]) -> list[Answer]:
            asked.extend((q.text, q.context, q.target) for q in questions)
            return super().score(questions)

    questions = [Question(TASKS["V-reg"], "")]
    explain(Notes(), ["good day", "bad"], questions, beside=[("before", "day"), ("", "it")])
    assert asked == [
        ("good day", "before", "day"), ("day", "before", "day"), ("good", "before", "day"), ("bad", "", "it"),
        ("…", "", "it"),
    ]  # fmt: skip


def test_a_corpus_has_the_same_beside_each_answer_as_the_objects() -> None:
    extras = Extras.of(CARD, "heads", ASKED, abstain=0.55, second=True, sets=0.9, explain=True)
    options = {"model": "m", "engine": "heads", "opener": lambda *_, **__: Counter()}
    posts = pa.table({"id": ["a", "b", "c"], "text": ["good day", "", "bad"]})
    table = AnnotatePosts(tasks=("V-reg", "E-c"), extras=extras, **options)(posts)
    names = [f.name for f in OutputColumns(extras=extras).fields((TASKS["V-reg"], TASKS["E-c"]))]
    assert table.column_names == ["id", "text", *names]
    first, empty, bad = table.to_pylist()
    assert (first["v_reg"], first["v_reg_abstained"], first["v_reg_best"]) == (None, True, 0.6)
    assert (first["e_c"], first["e_c_best"], first["e_c_second"]) == (["joy"], ["joy"], [])
    assert first["e_c_set"] == ["joy"]
    assert first["e_c_words"][0] == {
        "about": "joy", "base": pytest.approx(0.6), "word": "good", "start": 0, "end": 4, "effect": pytest.approx(0.1),
    }  # fmt: skip
    assert empty["e_c_words"] is None and empty["v_reg_low"] is None and not empty["v_reg_abstained"]
    assert bad["v_reg_words"][0]["effect"] == pytest.approx(-0.1)
    assert Extras.of(CARD, "heads", ASKED) == NO_EXTRAS
