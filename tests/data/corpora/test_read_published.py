"""The published JSON lines: which task a line is of, and what it says."""

import json
from pathlib import Path

import pytest

from emollm.core.errors import DataError
from emollm.core.tasks import TASKS
from emollm.data.corpora.example import BadRow
from emollm.data.corpora.published import read_published, read_templates, take_apart
from emollm.data.corpora.vader import FILES as VADER_FILES

VADER = "Task: Rate it from -4 (bad) to 4 (good) for valence. Text: {} Intensity Score: "


def write(path: Path, *pairs: tuple[str, object]) -> Path:
    lines = [json.dumps({"instruction": i, "input": "", "output": o}) for i, o in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("instruction", "task", "emotion", "text"),
    [
        ("Task: Rate E. Tweet: a lamp. Emotion E: joy. Intensity Score: ", "EI-reg", "joy", "a lamp."),
        ("Task: Sort E. 0: none. Tweet: a lamp. Emotion E: fear. Intensity Class: ", "EI-oc", "fear", "a lamp."),
        ("Task: Rate. Tweet: a Text: lamp. Intensity Score: ", "V-reg", None, "a Text: lamp."),
        ("Task: Sort. Tweet: a lamp. Intensity Class: ", "V-oc", None, "a lamp."),
        ("Task: Tag. Tweet:  a lamp.\nno This tweet contains emotions: ", "E-c", None, " a lamp.\nno"),
        ("Task: Tag. Text: a lamp This tweet contains emotions: ", "GoEmotions", None, "a lamp"),
        ("Task: Rate. Text: a lamp Sentiment score: ", "SST", None, "a lamp"),
        ("Task: Sort. Text: a lamp Sentiment Class: ", "SST5", None, "a lamp"),
        ("Task: Sort. Text: a lamp Intensity Class: ", "TDT", None, "a lamp"),
        ("Task: Rate arousal, 1 to 5. Text: a lamp Intensity Score: ", "EmoBank-A", None, "a lamp"),
        (VADER.format("a lamp"), "VADER", None, "a lamp"),
    ],
)
def test_an_instruction_tells_its_task(instruction: str, task: str, emotion: str | None, text: str) -> None:
    parts = take_apart(instruction)
    assert parts is not None
    assert (parts.task, parts.emotion, parts.text) == (task, emotion, text)


def test_another_text_is_no_instruction() -> None:
    assert take_apart("Translate: a lamp") is None
    assert take_apart("Task: Rate it. Text: a lamp Intensity Score: ") is None  # which of the dimensions?


def test_answers_of_every_kind(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.json",
        ("Task: Rate E. Tweet: a lamp. Emotion E: joy. Intensity Score: ", "0.25"),
        ("Task: Sort. Tweet: a lamp. Intensity Class: ", "-3: very negative emotional state can be inferred"),
        ("Task: Tag. Tweet: a lamp. This tweet contains emotions: ", "anger, disgust."),
        ("Task: Tag. Tweet: a chair. This tweet contains emotions: ", "neutral or no emotion."),
        ("Task: Tag. Text: a lamp This tweet contains emotions: ", "joy, anger, neutral"),
        ("Task: Sort. Text: a lamp Intensity Class: ", -1),
        ("Task: Rate valence. Text: a lamp Intensity Score: ", 2.8),
    )
    examples = read_published(path, "test")
    values = [0.25, -3, ("anger", "disgust"), (), ("joy", "anger", "neutral"), -1, 2.8]
    assert [e.value for e in examples] == values
    assert [e.line for e in examples] == list(range(1, 8))
    assert examples[0].template == "Rate E."


def test_conversations_of_aaid(tmp_path: Path) -> None:
    said = [
        {"from": "human", "value": "Task: Rate. Tweet: a lamp. Intensity Score: "},
        {"from": "assistant", "value": "0.5"},
    ]
    (tmp_path / "train.json").write_text(json.dumps({"id": "multi-1", "conversations": said}) + "\n")
    (example,) = read_published(tmp_path / "train.json", "train")
    assert (example.id, example.task, example.text, example.value) == ("multi-1", "V-reg", "a lamp.", 0.5)


def test_whole_vader_file_is_told_apart_by_row_number(tmp_path: Path) -> None:
    path = write(tmp_path / "v.json", *((VADER.format(f"lamp {i}"), 0.5) for i in range(4000)))
    examples = read_published(path, "test")
    assert [examples[i].task for i in (0, 999, 1000, 1999, 2000, 2999, 3000, 3999)] == [
        name for name in VADER_FILES for _ in range(2)
    ]


def test_part_of_a_vader_file_needs_the_official_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "v.json", *((VADER.format(text), 0.5) for text in "abcdefgh"))
    bad: list[BadRow] = []
    assert read_published(path, "test", bad=bad) == []
    assert len(bad) == 8
    # a ... c are Amazon, d may be either, e is a film; after it nothing is known until h, a tweet.
    official = dict(zip(VADER_FILES, ({"a", "c"}, {"e"}, set(), {"h"}), strict=True))
    bad = []
    examples = read_published(path, "test", vader_texts=official, bad=bad)
    assert [(e.text, e.task.removeprefix("VADER-")) for e in examples] == [
        ("a", "Amazon"), ("b", "Amazon"), ("c", "Amazon"), ("e", "Movie"), ("h", "Tweets"),
    ]  # fmt: skip
    assert [row.line for row in bad] == [4, 6, 7]


def test_invalid_lines_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"instruction": "Task: Sort. Text: a Intensity Class: ", "output": 2}\n{"a": 1}\nno\n[1]\n\n')
    bad: list[BadRow] = []
    assert read_published(path, "test", bad=bad) == []
    assert [row.line for row in bad] == [2, 3, 4, 1]
    assert "not valid JSON" in bad[1].reason
    assert "not a class of TDT" in bad[3].reason


def test_templates_in_order_of_appearance(tmp_path: Path) -> None:
    write(
        tmp_path / "x.json",
        ("Task: Two. Text: a lamp Sentiment score: ", 0.1),
        ("Task: One. Text: a chair Sentiment score: ", 0.1),
        ("Task: Two. Text: a table Sentiment score: ", 0.1),
    )
    write(tmp_path / "y.json", (VADER.format("a lamp"), 0.5))
    templates = read_templates(tmp_path)
    assert templates["SST"] == ("Two.", "One.")
    assert set(templates) == {"SST", *VADER_FILES}
    assert all(name in TASKS for name in templates)


def test_templates_of_another_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}\n')
    with pytest.raises(DataError, match="has no instruction"):
        read_templates(tmp_path)
    with pytest.raises(DataError, match="no published file"):
        read_templates(tmp_path / "nowhere")
