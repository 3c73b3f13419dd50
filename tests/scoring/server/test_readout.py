"""Replies to answers and distributions, worked out by hand."""

from __future__ import annotations

import math

import pytest

from emollm.core.answers import INVALID_ANSWER, Answer
from emollm.core.prompts import Question
from emollm.core.tasks import TASKS, Kind
from emollm.scoring.server.asked import Asked
from emollm.scoring.server.decisions import Token, decisions
from emollm.scoring.server.readout import Reply, read_reply, read_value

OC = Question(TASKS["V-oc"], "t")
SST5 = Question(TASKS["SST5"], "t")
REG = Question(TASKS["V-reg"], "t")
SET = Question(TASKS["E-c"], "t")


def tokens(*decided: dict[str, float]) -> tuple[Token, ...]:
    """The first of each place is the one that was written."""
    found = []
    for place in decided:
        text, p = next(iter(place.items()))
        found.append(Token(text, math.log(p), tuple((t, math.log(q)) for t, q in place.items())))
    return tuple(found)


def read(question: Question, text: str, told: tuple[Token, ...] | None, *, name: str | None = None) -> Answer:
    asked = Asked((question,), {}, (name,) if name else (), 8, False)
    [answer] = read_reply(asked, Reply(text, told, 0, 0))
    return answer


def test_classes_part_at_their_first_token() -> None:
    told = tokens({"3": 0.6, "2": 0.3, "4": 0.1}, {": positive": 1.0})
    answer = read(SST5, "3: positive", told)
    assert answer.value == 3 and answer.distribution == "exact"
    assert answer.probabilities == pytest.approx({"0": 0, "1": 0, "2": 0.3, "3": 0.6, "4": 0.1})
    assert answer.confidence == pytest.approx(0.6)


def test_the_value_is_the_likeliest_class_and_the_mode_what_was_written() -> None:
    # "-1" and "-2" share a token; those that were not told apart have an even share, and the answer says truncated.
    told = tokens({"0": 0.4, "-": 0.6}, {": neutral or mixed emotional state can be inferred": 1.0})
    answer = read(OC, "0: neutral or mixed emotional state can be inferred", told)
    assert (answer.value, answer.mode, answer.distribution) == (0, 0, "truncated")
    assert answer.probabilities["-2"] == pytest.approx(0.2)


def test_tokens_that_no_answer_begins_with_count_for_none() -> None:
    told = tokens({"3": 0.4, "The": 0.5, "1": 0.1}, {": positive": 0.9, " stars": 0.1})
    answer = read(SST5, "3: positive", told)
    assert answer.valid_mass == pytest.approx(0.4 * 0.9 + 0.1)
    assert answer.probabilities["1"] == pytest.approx(0.1 / 0.46)
    assert answer.distribution == "exact"  # all of it was told, the invalid part too


def test_missing_alternatives_of_the_server_make_a_distribution_truncated() -> None:
    told = tokens({"3": 0.6, "2": 0.3}, {": positive": 1.0})
    assert read(SST5, "3: positive", told).distribution == "truncated"


def test_a_decimal_is_the_expectation_of_its_digits() -> None:
    # 0.5 and then its end (0.7) or a second digit: 0.52 (0.2), 0.58 (0.1); and 1 with 0.2 in all.
    told = tokens({"0": 0.8, "1": 0.2}, {".": 1.0}, {"5": 1.0}, {"</s>": 0.7, "2": 0.2, "8": 0.1})
    answer = read(REG, "0.5", told)
    expected = 0.8 * (0.7 * 0.5 + 0.2 * 0.5245 + 0.1 * 0.5845) + 0.2
    assert answer.value == pytest.approx(expected)
    assert answer.mode == 0.5
    assert answer.std == pytest.approx(
        math.sqrt(
            0.8 * (0.7 * 0.5**2 + 0.2 * 0.5245**2 + 0.1 * 0.5845**2) + 0.2 - expected**2 + 0.8 * 0.3 * 8.25e-6
        )
    )  # fmt: skip
    assert answer.probabilities["0.5"] == pytest.approx(0.8)
    assert answer.probabilities["1"] == pytest.approx(0.2)


def test_a_tenth_that_was_not_followed_counts_in_its_middle() -> None:
    told = tokens({"0": 1.0}, {".": 1.0}, {"5": 0.5, "7": 0.5}, {"</s>": 1.0})
    answer = read(REG, "0.5", told)
    assert answer.value == pytest.approx(0.5 * 0.5 + 0.5 * 0.7495)
    assert answer.distribution == "truncated"


def test_a_range_is_mapped() -> None:
    answer = read(Question(TASKS["EmoBank-V"], "t"), "0.5", tokens({"0.5": 1.0}, {"</s>": 1.0}))
    assert (answer.value, answer.unit, answer.distribution) == (3.0, 0.5, "exact")


def test_a_label_set_has_the_marginals_of_its_branches() -> None:
    told = tokens(
        {"anger": 0.7, "joy": 0.2, "neutral": 0.1},
        {", ": 0.6, ".": 0.4},
        {"disgust": 0.9, "fear": 0.1},
        {".": 1.0},
    )
    answer = read(SET, "anger, disgust.", told)
    assert answer.value == ("anger", "disgust")
    assert answer.probabilities["anger"] == pytest.approx(0.7)
    assert answer.probabilities["disgust"] == pytest.approx(0.7 * 0.6 * 0.9)
    assert answer.probabilities["fear"] == pytest.approx(0.7 * 0.6 * 0.1)
    assert answer.probabilities["joy"] == pytest.approx(0.2)
    assert answer.confidence == pytest.approx(0.378)
    assert answer.distribution == "truncated"  # "joy" may go on


def test_a_prefix_shared_by_two_labels_counts_for_neither() -> None:
    told = tokens({"joy": 0.6, "an": 0.4}, {".": 1.0})
    answer = read(SET, "joy.", told)
    assert (answer.probabilities["anger"], answer.probabilities["anticipation"]) == (0.0, 0.0)
    assert answer.probabilities["joy"] == pytest.approx(0.6)


def test_json_holds_the_value_between_its_quotes() -> None:
    told = tokens({'{"answer": "': 1.0}, {"3": 0.6, "2": 0.4}, {': positive"': 1.0}, {"}": 1.0})
    answer = read(SST5, '{"answer": "3: positive"}', told, name="answer")
    assert answer.probabilities["2"] == pytest.approx(0.4)
    assert answer.distribution == "exact"
    # A token may hold the quote and the value's beginning.
    told = tokens({'{"answer":': 1.0}, {' "3': 0.6, ' "2': 0.4}, {': positive"}': 1.0})
    assert read(SST5, '{"answer": "3: positive"}', told, name="answer").probabilities["2"] == pytest.approx(0.4)


def test_flags_are_each_labels_own_decision() -> None:
    task = TASKS["E-c"].model_copy(update={"labels": ("anger", "joy")})
    text = '{"answer": {"anger": true, "joy": false}}'
    told = tokens(
        {'{"answer": {"anger": ': 1.0}, {"true": 0.8, "false": 0.2}, {', "joy": ': 1.0}, {"false": 0.9, "true": 0.1},
        {"}}": 1.0},
    )  # fmt: skip
    answer = read(Question(task, "t"), text, told, name="answer")
    assert answer.value == ("anger",)
    assert answer.probabilities == pytest.approx({"anger": 0.8, "joy": 0.1})
    assert answer.confidence == pytest.approx(0.72)


def test_without_log_probabilities_an_answer_has_no_distribution() -> None:
    answer = read(REG, "0.62", None)
    assert (answer.value, answer.std, answer.probabilities, answer.distribution) == (0.62, None, {}, "unknown")
    # Tokens that do not spell the reply, as halves of letters do not, tell nothing.
    assert read(REG, "0.62", tokens({"0.6": 1.0})).distribution == "unknown"


@pytest.mark.parametrize("text", ['{"answer": ', "{}", '{"answer": "4 stars"}', "no", '{"answer": {"anger": 1}}'])
def test_truncated_json_is_not_an_answer(text: str) -> None:
    for question in (SST5, SET):
        answer = read(question, text, None, name="answer")
        assert (answer.value, answer.error, answer.text) == (None, INVALID_ANSWER, text)


def test_prose_around_the_json_is_not_part_of_it() -> None:
    answer = read(SST5, 'Sure:\n```json\n{"answer": "3: positive"}\n```', None, name="answer")
    assert answer.value == 3


@pytest.mark.parametrize(
    ("task", "said", "value"),
    [
        ("V-reg", "0.62", 0.62),
        ("V-reg", "**0.62**\nbecause it is nice", 0.62),
        ("V-reg", "Intensity Score: 0.62", 0.62),
        ("V-reg", "about 0.62", None),
        ("V-reg", "7", None),
        ("EmoBank-V", "0.5", 3.0),
        ("V-oc", "2: moderately positive emotional state can be inferred", 2),
        ("E-c", "`anger, joy`", ("anger", "joy")),
        ("E-c", "neutral or no emotion", ()),
        ("E-c", "", None),
    ],
)
def test_replies_are_read_strictly(task: str, said: str, value: object) -> None:
    assert read_value(TASKS[task], said) == value


@pytest.mark.parametrize("said", ["very_happy", "**very_happy**", "_very_happy_", "`very_happy`.", '"very_happy"'])
def test_markup_inside_a_label_is_its_own(said: str) -> None:
    mood = TASKS["SST5"].model_copy(
        update={"kind": Kind.SINGLE_LABEL, "labels": ("very_happy", "don't know"), "classes": ()}
    )
    assert read_value(mood, said) == "very_happy"
    assert read_value(mood, "'don't know'") == "don't know"


def test_tokens_after_the_value_do_not_change_its_probability() -> None:
    read = decisions(
        tokens({'{"a": "': 1.0}, {"x": 1.0}, {'"': 0.5, "y": 0.5}, {"}": 0.1, ",": 0.9}), 7, 8, closing='"'
    )
    assert read.written.mass == pytest.approx(0.5)
    assert [(b.text, b.ended) for b in read.others] == [("xy", False)]
