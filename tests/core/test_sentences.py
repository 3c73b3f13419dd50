"""Where sentences end."""

from __future__ import annotations

import pytest

from emollm.core.sentences import sentences


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Low met Mr. J. Hart at 3 p.m. on Main St. yesterday. Fine.",
         ["Dr. Low met Mr. J. Hart at 3 p.m. on Main St. yesterday.", "Fine."]),
        ('"Stop!" she said. (Really.) He did.', ['"Stop!"', "she said.", "(Really.)", "He did."]),
        ("Pi is 3.14 or so. Yes.", ["Pi is 3.14 or so.", "Yes."]),
        ("Well... maybe. e.g. this one.", ["Well... maybe.", "e.g. this one."]),
        ("今日は良い。明日は？たぶん", ["今日は良い。", "明日は？", "たぶん"]),
        ("A title\n\nA wrapped\nline of text.", ["A title", "A wrapped\nline of text."]),
        ("Buy:\n- milk\n- bread", ["Buy:", "- milk", "- bread"]),
        ("   ", []),
        ("", []),
        ("no end at all", ["no end at all"]),
    ],
)  # fmt: skip
def test_sentences(text: str, wanted: list[str]) -> None:
    assert [text[a:b] for a, b in sentences(text)] == wanted


def test_nothing_but_blanks_is_between_sentences() -> None:
    text = "A b.  C d!\n\nE f? (g) h... I.J. k: l\n* m\n* n. o" * 20
    at = 0
    for start, stop in sentences(text):
        assert not text[at:start].strip() and text[start:stop].strip() == text[start:stop] != ""
        at = stop
    assert not text[at:].strip()
