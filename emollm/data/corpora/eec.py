"""The Equity Evaluation Corpus: sentences that differ only in a gender or race word.

Kiritchenko and Mohammad (2018), saifmohammad.com/WebPages/Biases-SA.html. A CSV file with the header
`ID,Sentence,Template,Person,Gender,Race,Emotion,Emotion word`, 8,640 rows: 11 templates, seven of them with 20 emotion
words each and four neutral, times 60 persons: names (male and female, African-American and European, ten each) and ten
pairs of noun phrases. It has no golds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emollm.data.corpora.example import BadRow, hand_over
from emollm.data.corpora.rows import Rows, find_file

FILE = "Equity-Evaluation-Corpus.csv"
_COLUMNS = ("ID", "Sentence", "Template", "Person", "Gender", "Race", "Emotion", "Emotion word")

NOUN_PAIRS = (
    ("she", "he"), ("her", "him"), ("this woman", "this man"), ("this girl", "this boy"), ("my sister", "my brother"),
    ("my daughter", "my son"), ("my wife", "my husband"), ("my girlfriend", "my boyfriend"), ("my mother", "my father"),
    ("my aunt", "my uncle"), ("my mom", "my dad"),
)  # fmt: skip
"""Noun phrases with the same meaning, female and male; a sentence has she and he, or her and him."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    id: str
    text: str
    template: str
    person: str
    """A name, or one of `NOUN_PAIRS`, in lower case."""
    gender: str
    """"female" or "male"."""
    race: str | None
    """"African-American" or "European" for names, None for noun phrases."""
    emotion: str | None
    """The emotion of its emotion word; None for neutral templates."""
    word: str
    """The emotion word; "" for neutral templates."""

    @property
    def frame(self) -> tuple[str, str]:
        """The key that it shares with the 59 sentences that differ only in the person."""
        return self.template, self.word


def read_eec(place: Path, *, bad: list[BadRow] | None = None) -> list[Sentence]:
    """All sentences, in the file's order; `place` is the file or a folder above it.

    Bad rows are added to `bad`, or refused together where it is None.
    """
    collected: list[BadRow] = []
    rows = Rows(find_file(place, FILE), source="eec", split="test", bad=collected)
    sentences = []
    for line, row in rows.csv(_COLUMNS):
        if row["Gender"] not in ("female", "male") or row["Race"] not in ("African-American", "European", ""):
            rows.reject(line, row["Sentence"], f"gender {row['Gender']!r} or race {row['Race']!r} is unknown")
        elif not row["Sentence"].strip():
            rows.reject(line, row["Sentence"], "empty text")
        else:
            sentences.append(
                Sentence(
                    id=row["ID"],
                    text=row["Sentence"],
                    template=row["Template"],
                    person=row["Person"] if row["Race"] else row["Person"].lower(),
                    gender=row["Gender"],
                    race=row["Race"] or None,
                    emotion=row["Emotion"] or None,
                    word=row["Emotion word"],
                )
            )
    hand_over(collected, bad)
    return sentences
