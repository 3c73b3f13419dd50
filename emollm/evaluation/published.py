"""The result tables of arXiv 2401.08508 (KDD 2024) as data: systems to stand beside ours, quoted and not measured here.

`published_aeb1.csv` and `published_aeb2.csv` hold them as printed. Trap: what they call the "acc" of E-c, and it seems
of GoEmotions, is the label Jaccard weighted by support, not the official per-tweet one.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from importlib import resources
from typing import NamedTuple

SOURCE = "arXiv 2401.08508"
PUBLISHED_ROWS = {
    "EI-reg": 4068, "EI-oc": 4068, "V-reg": 937, "V-oc": 937, "E-c": 3259, "TDT": 692, "SST": 2210, "SST5": 2210,
    "EmoBank-V": 1000, "EmoBank-A": 1000, "EmoBank-D": 1000, "GoEmotions": 5427,
    "VADER-Amazon": 1000, "VADER-Movie": 1000, "VADER-NYT": 1000, "VADER-Tweets": 1000,
}  # fmt: skip
"""Rows that the figures were measured on, by task."""


class Column(NamedTuple):
    """One figure of the main table."""

    title: str
    task: str
    metric: str
    """As `TaskResult.scores` names it."""
    main: bool = True
    """Whether it stands in the main table; the others stand beside their task."""
    emotion: str | None = None


_JACCARD = "weighted label jaccard"
_EMOTIONS = ("anger", "fear", "joy", "sadness")

# By the name of the published column.
COLUMNS: dict[str, Column] = {
    "EI-reg": Column("EI-reg", "EI-reg", "pearson"),
    **{f"EI-reg {e}": Column(f"EI-reg {e}", "EI-reg", "pearson", False, e) for e in _EMOTIONS},
    "EI-oc": Column("EI-oc", "EI-oc", "pearson"),
    **{f"EI-oc {e}": Column(f"EI-oc {e}", "EI-oc", "pearson", False, e) for e in _EMOTIONS},
    "V-reg": Column("V-reg", "V-reg", "pearson"),
    "V-oc": Column("V-oc", "V-oc", "pearson"),
    "E-c acc": Column("E-c acc", "E-c", _JACCARD),
    "E-c micro-F1": Column("E-c micro-F1", "E-c", "micro-F1", False),
    "E-c macro-F1": Column("E-c macro-F1", "E-c", "macro-F1", False),
    "TDT acc": Column("TDT acc", "TDT", "accuracy"),
    "TDT macro-F1": Column("TDT macro-F1", "TDT", "macro-F1", False),
    "SST": Column("SST", "SST", "pearson"),
    "SST5 acc": Column("SST-5 acc", "SST5", "accuracy"),
    "SST5 macro-F1": Column("SST-5 macro-F1", "SST5", "macro-F1", False),
    "EmoBank-V": Column("EmoBank V", "EmoBank-V", "pearson"),
    "EmoBank-A": Column("EmoBank A", "EmoBank-A", "pearson"),
    "EmoBank-D": Column("EmoBank D", "EmoBank-D", "pearson"),
    "GoEmotions acc": Column("GoEmotions acc", "GoEmotions", _JACCARD),
    "GoEmotions macro-F1": Column("GoEmotions macro-F1", "GoEmotions", "macro-F1", False),
    "V-A": Column("VADER Amazon", "VADER-Amazon", "pearson"),
    "V-M": Column("VADER Movie", "VADER-Movie", "pearson"),
    "V-NYT": Column("VADER NYT", "VADER-NYT", "pearson"),
    "V-T": Column("VADER Tweets", "VADER-Tweets", "pearson"),
}


@dataclass(frozen=True, slots=True)
class Quoted:
    """A published system: its figures by `Column`, those it has none of left out."""

    name: str
    scores: dict[Column, float] = field(default_factory=dict)


def quoted_systems() -> list[Quoted]:
    """All published systems, in the order of the tables."""
    systems: dict[str, Quoted] = {}
    for file in ("published_aeb1.csv", "published_aeb2.csv"):
        text = (resources.files("emollm") / "evaluation" / file).read_text(encoding="utf-8")
        for row in csv.DictReader(text.splitlines()):
            system = systems.setdefault(row["model"], Quoted(row["model"]))
            system.scores.update({COLUMNS[name]: float(cell) for name, cell in row.items() if name in COLUMNS and cell})
    return list(systems.values())
