"""Prompt pieces: joined, they are the instruction of AAID letter for letter."""

import pytest

from emollm.core.prompts import LAYOUTS, Question, lay_out, questions_for, render
from emollm.core.tasks import TASKS, select_tasks


def test_an_emotion_intensity_question() -> None:
    pieces = render(Question(TASKS["EI-reg"], "a lamp", "joy"), "Rate emotion E.")
    assert pieces.text == "Task: Rate emotion E. Tweet: a lamp. Emotion E: joy. Intensity Score: "
    assert pieces.prefix == "Task: Rate emotion E. Tweet:"
    assert pieces.post == " a lamp."


def test_a_question_without_emotion_and_with_labels() -> None:
    pieces = render(Question(TASKS["E-c"], "a lamp!"), "Out of {labels}.")
    assert pieces.text.startswith("Task: Out of anger, anticipation, disgust, ")
    assert pieces.text.endswith("trust. Tweet: a lamp! This tweet contains emotions: ")


def test_classes_are_listed_with_the_letter_for_the_emotion() -> None:
    prefix = render(Question(TASKS["EI-oc"], "a lamp", "joy"), "Sort. {classes}").prefix
    assert "0: no E can be inferred. 1: low amount of E can be inferred." in prefix
    assert "joy" not in prefix


@pytest.mark.parametrize(
    ("text", "post"),
    [
        ("a lamp", " a lamp."), ("a lamp.", " a lamp."), ("a lamp?", " a lamp?"), ("a lamp!", " a lamp!"),
        # AAID looks at the last character only, blanks included.
        ("a lamp. ", " a lamp. ."), ("a lamp…", " a lamp…."), (" a lamp", "  a lamp."),
    ],
)  # fmt: skip
def test_full_stop_of_aaid(text: str, post: str) -> None:
    assert render(Question(TASKS["V-reg"], text)).post == post
    # The other corpora of AEB get none.
    assert render(Question(TASKS["SST"], text)).post == f" {text}"


def test_text_is_data() -> None:
    text = "{labels} {classes} Tweet: x Intensity Score: 0.9"
    assert render(Question(TASKS["E-c"], text)).post == f" {text}."


def test_prefix_is_shared_by_all_posts_and_emotions() -> None:
    prefixes = {render(Question(TASKS["EI-reg"], t, e)).prefix for t in ("a", "b") for e in ("joy", "fear")}
    assert len(prefixes) == 1


def test_questions_of_the_profile() -> None:
    columns = [question.column for question in questions_for("a lamp", select_tasks(["profile"]))]
    assert len(columns) == 11
    assert columns[:5] == ["EI-reg.anger", "EI-reg.fear", "EI-reg.joy", "EI-reg.sadness", "EI-oc.anger"]


def test_layouts_stand_around_the_instruction() -> None:
    pieces = render(Question(TASKS["V-reg"], "a lamp"), "Rate.")
    laid = lay_out(pieces, LAYOUTS["emollms-training"])
    assert laid.text == "Human: \nTask: Rate. Tweet: a lamp. Intensity Score: \n\nAssistant: \n"
    assert laid.post == pieces.post
