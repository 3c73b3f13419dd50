"""Gold value to answer string and back; free text to a value or to none."""

import pytest

from emollm.core.answers import answer_string, from_unit, parse_answer, to_unit
from emollm.core.errors import DataError
from emollm.core.tasks import TASKS, Value


@pytest.mark.parametrize(
    ("task", "value", "emotion", "answer"),
    [
        ("EI-reg", 0.5, "joy", "0.5"),
        ("EI-reg", 1.0, "joy", "1"),
        ("EI-reg", 0.0, "joy", "0"),
        ("EI-reg", 0.7309, "joy", "0.731"),
        ("EI-reg", 0.0996, "joy", "0.1"),
        ("EmoBank-V", 3.0, None, "0.5"),
        ("EmoBank-V", 2.8, None, "0.45"),
        ("VADER-Tweets", -4.0, None, "0"),
        ("VADER-Tweets", 1.0, None, "0.625"),
        ("EI-oc", 2, "joy", "2: moderate amount of joy can be inferred"),
        ("EI-oc", 0, "fear", "0: no fear can be inferred"),
        ("V-oc", -3, None, "-3: very negative emotional state can be inferred"),
        ("SST5", 4, None, "4: very positive"),
        ("TDT", -1, None, "-1: negative"),
        ("E-c", ("joy", "anger"), None, "anger, joy."),
        ("E-c", (), None, "neutral or no emotion."),
        ("GoEmotions", ("joy", "neutral"), None, "joy, neutral"),
        ("GoEmotions", ("surprise", "anger"), None, "anger, surprise"),
    ],
)
def test_answer_strings(task: str, value: Value, emotion: str | None, answer: str) -> None:
    assert answer_string(TASKS[task], value, emotion) == answer
    back = parse_answer(TASKS[task], answer)
    if isinstance(value, float):
        # Three places of 0..1 are 0.0005 of the range at most.
        assert back == pytest.approx(value, abs=0.00051 * (TASKS[task].high - TASKS[task].low))  # type: ignore[operator]
    elif isinstance(value, tuple):
        assert set(back) == set(value)  # type: ignore[arg-type]
    else:
        assert back == value


@pytest.mark.parametrize(
    ("task", "text"),
    [
        # One such answer among 975 takes Pearson from .80 to .08: never a number, never clipped.
        ("EI-reg", "48: disgust"),
        ("EI-reg", "1.2"), ("EI-reg", "-0.1"), ("EI-reg", "0.5 or so"), ("EI-reg", ""),
        ("EI-reg", "nan"), ("EI-reg", "1e-1"), ("EI-reg", "."), ("EI-reg", "0.5.."),
        ("EmoBank-V", "2.8"),
        ("EI-oc", "4: extreme"), ("EI-oc", "moderate"), ("EI-oc", "2.5: between"),
        ("SST5", "very positive"),
        ("E-c", "joy, envy"), ("E-c", "joy, neutral or no emotion"), ("E-c", ""),
        ("GoEmotions", "love"),
    ],
)  # fmt: skip
def test_text_that_states_no_value(task: str, text: str) -> None:
    assert parse_answer(TASKS[task], text) is None


@pytest.mark.parametrize(
    ("task", "text", "value"),
    [
        ("EI-reg", " 0.5.\n", 0.5),
        ("EmoBank-V", "0.5", 3.0),
        ("VADER-NYT", "0", -4.0),
        ("EI-oc", "2", 2),
        ("V-oc", "-3: very negative", -3),
        ("TDT", "+1: positive", 1),
        ("E-c", "Joy, ANGER", ("anger", "joy")),
        ("E-c", "Neutral or no emotion", ()),
    ],
)
def test_parsing_is_lenient_only_if_nothing_is_guessed(task: str, text: str, value: Value) -> None:
    assert parse_answer(TASKS[task], text) == value


def test_a_value_of_another_task_has_no_answer() -> None:
    with pytest.raises(DataError, match="not a number in"):
        answer_string(TASKS["EmoBank-V"], 0.5)


def test_unit_form_is_inverted() -> None:
    for value, unit in ((1.0, 0.0), (2.0, 0.25), (5.0, 1.0)):
        assert to_unit(TASKS["EmoBank-A"], value) == unit
        assert from_unit(TASKS["EmoBank-A"], unit) == value
