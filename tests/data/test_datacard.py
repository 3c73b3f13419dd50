"""The data card: its numbers by hand, and a page that shows labels of any spelling without running them."""

import html.parser
import json
import re
from pathlib import Path

import pytest

from emollm.core.errors import ConfigError
from emollm.core.tasks import TASKS
from emollm.data.aaid import AaidConfig, OwnConfig, build_aaid, build_own
from emollm.data.corpora.example import Example
from emollm.data.datacard.counts import LENGTH_BINS, Card, collect, normal
from emollm.data.datacard.page import page
from emollm.data.instructions import build_rows
from emollm.reports.charts import Series, bars, columns

FACTS = {"seed": 1, "files": {"a.txt": "0" * 64}, "wording": {"from": "emollm"}, "rejected": {"rows": 0, "labels": 0}}


def example(text: str, value: float, row: int, task: str = "V-reg") -> Example:
    return Example(
        id=str(row), text=text, task=task, emotion=None, value=value, source="s", split="train", path="a.txt", line=row
    )


TRAIN = [
    ("a lamp on a table", 0.1),
    ("a lamp on a table", 0.1),  # a duplicate
    ("one chair", 0.05),
    ("one chair", 0.95),  # a contradiction
    ("Six tall lamps, see https://lamp.example", 1.0),
]
VALIDATION = [("one chair", 0.2), ("@you six TALL lamps see!", 0.3), ("quite new", 0.4)]


@pytest.fixture
def card() -> Card:
    tables = {
        name: build_rows([example(text, value, i) for i, (text, value) in enumerate(rows)], seed=1)
        for name, rows in (("train", TRAIN), ("validation", VALIDATION))
    }
    return collect("own", tables, [TASKS["V-reg"]], FACTS, tokenizer=None, against=None)


def test_counts_by_hand(card: Card) -> None:
    train, validation = card.tables
    assert (train.rows, train.examples, train.texts) == (50, 5, 3)
    assert train.questions == {"V-reg": 50}
    # 0.1 belongs to the second tenth, 1.0 to the last.
    assert train.labels["V-reg"] == {"0.0-0.1": 1, "0.1-0.2": 2, "0.9-1.0": 2}
    assert train.templates["V-reg"] == (10, 5, 5)
    assert (validation.rows, validation.examples) == (30, 3)


def test_duplicates_and_contradictions(card: Card) -> None:
    duplicates = card.tables[0].duplicates
    assert (duplicates.texts, duplicates.examples, duplicates.contradictions) == (2, 2, 1)


def test_overlap_letter_for_letter_and_alike(card: Card) -> None:
    (overlap,) = card.overlaps
    assert (overlap.of, overlap.within, overlap.texts) == ("validation", "train", 3)
    assert (overlap.same, overlap.same_question, overlap.alike) == (1, 1, 2)
    assert normal("Six tall lamps, see https://lamp.example") == normal("@you six TALL lamps see!")


def test_lengths_in_words(card: Card) -> None:
    lengths = card.tables[0].lengths
    # Texts of 2, 5 and 5 words, counted once each.
    assert lengths.histogram[:3] == (1, 2, 0)
    assert sum(lengths.histogram) == 3
    assert len(lengths.histogram) == len(LENGTH_BINS)
    assert (lengths.text_median, lengths.text_most) == (5, 5)
    assert lengths.row_most > lengths.row_median > 10  # wordings and answers are in a row


def test_lengths_in_tokens_of_a_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"x": 0}, unk_token="x"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # a token a character
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tables = {"train": build_rows([example("twelve chars", 0.5, 1)], seed=1)}
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        card = collect("own", tables, [TASKS["V-reg"]], FACTS, tokenizer=place, against=None)
        assert (card.unit, card.tables[0].lengths.text_most) == ("tokens", 12)
    with pytest.raises(ConfigError, match=r"no readable tokenizer\.json"):
        collect("own", tables, [TASKS["V-reg"]], FACTS, tokenizer=tmp_path / "nowhere", against=None)


def cells(text: str) -> list[str]:
    """The table rows of a page, cells joined by bars."""
    rows = re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)
    return [" | ".join(re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)) for row in rows]


def test_the_card_says_what_to_know(card: Card) -> None:
    text = page(card)
    assert "1 of 3 texts of validation have the same question in train" in text
    assert "1 texts are there more than once with different answers" in text
    assert "V-reg | 50 | 30 | 10 × 5 | 10 × 3" in cells(text)
    assert "validation | train | 3 | 1 | 1 | 2" in cells(text)


def test_the_card_holds_no_text_of_the_corpus(card: Card) -> None:
    for text, _ in TRAIN + VALIDATION:
        assert text not in page(card)


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_page_stands_alone(tmp_path: Path) -> None:
    build_aaid(AaidConfig(out=tmp_path / "data", templates_per_example=1))
    tags = _Tags()
    tags.feed((tmp_path / "data" / "card.html").read_text())
    assert tags.tags.count("svg") == 12  # eleven questions and the lengths
    assert "script" not in tags.tags
    assert tags.links == []


def test_labels_and_names_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    (tmp_path / "notes.jsonl").write_text(json.dumps({"note": "a lamp", "topic": evil}) + "\n")
    (tmp_path / "own.toml").write_text(
        f'file = "notes.jsonl"\ntext = "note"\nvalidation = 0\n[[task]]\nname = "Topic"\nkind = "single-label"\n'
        f'labels = ["{evil}", "lamp|chair"]\ncolumn = "topic"\n'
    )
    build_own(OwnConfig(data=tmp_path / "own.toml", out=tmp_path / "data"))
    text = (tmp_path / "data" / "card.html").read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text


def test_bars_are_as_tall_as_their_shares() -> None:
    svg = columns(["a", "b"], [Series("x", [0.5, 0.25], ["5", "2"])], height=100)
    heights = [float(part.split('height="')[1].split('"')[0]) for part in svg.split("<rect")[1:]]
    assert heights == [100.0, 50.0]
    assert "<title>x, a: 5</title>" in svg
    lying = bars(["a", "b"], [Series("x", [0.5, 0.25], ["5", "2"])])
    widths = [float(part.split('width="')[1].split('"')[0]) for part in lying.split("<rect")[1:]]
    assert widths[0] == pytest.approx(2 * widths[1])


def test_charts_of_nothing() -> None:
    assert "<svg" in columns([], [])
    assert "<svg" in columns(["a"], [Series("x", [0.0], ["0"])])
    assert "<svg" in bars(["a"], [Series("x", [0.0], ["0"])])
