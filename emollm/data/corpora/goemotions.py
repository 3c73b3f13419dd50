"""GoEmotions: Reddit comments with any of 28 emotion labels, three TSV files.

Format page: github.com/google-research/google-research/tree/master/goemotions, `data/train.tsv`, `dev.tsv` and
`test.tsv`, without header: `text <tab> label numbers, comma-separated <tab> comment id`. The numbers count the
lines of `emotions.txt` (elsewhere `labels.txt`) from 0; that order is fixed in `tasks.toml`.

Traps: quotes have no meaning. A CSV reader with default settings removes outer quotes and halves doubled ones (75 of
2,713 test texts then differ, and the published benchmark has those texts: see `as_csv_cell`).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from emollm.core.errors import DataError
from emollm.core.tasks import TASKS
from emollm.data.corpora.example import BadRow, Example, hand_over
from emollm.data.corpora.rows import Label, Rows, find_file, integer

SOURCE = "goemotions"

# Demszky et al. (2020), section on the label hierarchy; also `ekman_mapping.json` of the release.
EKMAN: Mapping[str, tuple[str, ...]] = {
    "anger": ("anger", "annoyance", "disapproval"),
    "disgust": ("disgust",),
    "fear": ("fear", "nervousness"),
    "joy": (
        "joy", "amusement", "approval", "excitement", "gratitude", "love",
        "optimism", "relief", "pride", "admiration", "desire", "caring",
    ),
    "sadness": ("sadness", "disappointment", "embarrassment", "grief", "remorse"),
    "surprise": ("surprise", "realization", "confusion", "curiosity"),
    "neutral": ("neutral",),
}  # fmt: skip
_TO_EKMAN = {fine: coarse for coarse, group in EKMAN.items() for fine in group}


def read_goemotions(
    folder: Path, split: str, *, task_name: str = "GoEmotions", bad: list[BadRow] | None = None
) -> list[Example]:
    """All examples of a split, labelled for `GoEmotions` (Ekman's six and neutral) or `GoEmotions-28`.

    Labels are in the order of the corpus's list, as in the published benchmark's answers. Bad rows
    are added to `bad`, or refused together where it is None. Raises DataError if the file is missing, or if
    the label list next to it is not the expected one.
    """
    collected: list[BadRow] = []
    path = find_file(folder, f"{split}.tsv")
    _check_labels(path.parent)
    rows = Rows(path, source=SOURCE, split=split, bad=collected)
    task = TASKS[task_name]
    for line, raw in rows.lines():
        cells = raw.split("\t")
        if len(cells) != 3:
            rows.reject(line, raw, f"{len(cells)} columns, expected text, label numbers, id")
            continue
        text, labels, row_id = cells
        rows.add(line=line, id=row_id, text=text, labels=[Label(task, labels, partial(_parse, task_name))])
    hand_over(collected, bad)
    return rows.examples


def to_ekman(label: str) -> str:
    """Which of Ekman's six, or neutral, one of the 28 labels belongs to."""
    return _TO_EKMAN[label]


def as_csv_cell(text: str) -> str:
    """The text as a CSV reader returns it, which is the text of the published benchmark."""
    return next(csv.reader([text], delimiter="\t"), [""])[0]


def _parse(task_name: str, raw: str) -> tuple[str, ...]:
    names = TASKS["GoEmotions-28"].labels
    found: dict[str, None] = {}
    for part in raw.split(","):
        index = integer(part)
        if not 0 <= index < len(names):
            raise ValueError(f"label {index} is not in 0..{len(names) - 1}")
        found[names[index] if task_name == "GoEmotions-28" else _TO_EKMAN[names[index]]] = None
    return tuple(found)


def _check_labels(folder: Path) -> None:
    for name in ("emotions.txt", "labels.txt"):
        path = folder / name
        if path.is_file() and tuple(path.read_text(encoding="utf-8-sig").split()) != TASKS["GoEmotions-28"].labels:
            raise DataError(f"{path} is not the list of GoEmotions' 28 labels, by which the rows are numbered")
