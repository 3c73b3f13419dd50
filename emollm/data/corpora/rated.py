"""Corpora with every rater's answer: GoEmotions' raw annotations and EmoBank's individual ratings.

GoEmotions, `goemotions_1.csv` to `_3.csv` (the "full dataset" of
github.com/google-research/google-research/tree/master/goemotions): one row per comment and rater, with `text`, `id`,
`rater_id`, `example_very_unclear` and one 0/1 column per label. EmoBank, `individual_reader_ratings.csv` and
`individual_writer_ratings.csv` (github.com/JULIELab/EmoBank, `corpus`): one row per rating, `id,V,A,D`, with neither
rater nor text; texts and splits are those of `emobank.csv`.

Traps: a rater who found a comment very unclear gave it no label, which is not the empty set: the row is not a rating.
EmoBank's authors treat a rating of 1, 1, 1 as not given, and so does this reader. GoEmotions' raw files have
no splits: a comment is in the split of train.tsv, dev.tsv or test.tsv beside them, or else in none and left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from emollm.core.errors import DataError
from emollm.core.tasks import TASKS, Value
from emollm.data.corpora import emobank, goemotions
from emollm.data.corpora.example import BadRow, Example, hand_over
from emollm.data.corpora.rows import Rows, find_file, number
from emollm.data.raters import aggregate

PERSPECTIVES = ("reader", "writer")


def read_goemotions_raters(
    folder: Path, split: str, *, task_name: str = "GoEmotions", bad: list[BadRow] | None = None
) -> list[Example]:
    """The comments of a split with the answer of each rater; `value` has the labels of at least half of them.

    Raises DataError if the raw files or the split's file are missing.
    """
    collected: list[BadRow] = []
    known = {e.id: e for e in goemotions.read_goemotions(folder, split, task_name=task_name, bad=collected)}
    paths = sorted(folder.rglob("goemotions_[0-9]*.csv"))
    if not paths:
        raise DataError(f"no goemotions_1.csv under {folder}: the raw annotations, one row per rater")
    ratings: dict[str, list[Value]] = {}
    for path in paths:
        rows = Rows(path, source=goemotions.SOURCE, split=split, bad=collected)
        for row_id, rating in _goemotions_ratings(rows, task_name):
            if row_id in known:
                ratings.setdefault(row_id, []).append(rating)
    hand_over(collected, bad)
    return [_with_ratings(known[row_id], given) for row_id, given in ratings.items()]


def read_emobank_raters(
    folder: Path, split: str, *, perspectives: Sequence[str] = PERSPECTIVES, bad: list[BadRow] | None = None
) -> list[Example]:
    """The sentences of a split with every rating of V, A and D, of readers, writers or both; `value` is their mean.

    Raises DataError if a file is missing.
    """
    collected: list[BadRow] = []
    known = {(e.task, e.id): e for e in emobank.read_emobank(folder, split, bad=collected)}
    ratings: dict[tuple[str, str], list[Value]] = {}
    for perspective in perspectives:
        path = find_file(folder, f"individual_{perspective}_ratings.csv")
        rows = Rows(path, source=emobank.SOURCE, split=split, bad=collected, labels_per_row=len(emobank.COLUMNS))
        for line, cells in rows.csv(["id", *emobank.COLUMNS.values()]):
            try:
                given = {name: number(cells[column]) for name, column in emobank.COLUMNS.items()}
                for name, value in given.items():
                    TASKS[name].check_value(value)
            except ValueError as error:
                rows.reject(line, ",".join(cells.values()), str(error))
                continue
            if set(given.values()) == {1.0}:
                continue
            for name, value in given.items():
                if (name, cells["id"]) in known:
                    ratings.setdefault((name, cells["id"]), []).append(value)
    hand_over(collected, bad)
    return [_with_ratings(known[key], given) for key, given in ratings.items()]


def _goemotions_ratings(rows: Rows, task_name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    fine = TASKS["GoEmotions-28"].labels
    for line, cells in rows.csv(["id", "example_very_unclear", *fine]):
        if cells["example_very_unclear"].strip().lower() in ("true", "1"):
            continue
        marks = {label: cells[label].strip() for label in fine}
        if odd := next((mark for mark in marks.values() if mark not in ("0", "1")), None):
            rows.reject(line, odd, "a label's mark is 0 or 1")
            continue
        named = [label for label, mark in marks.items() if mark == "1"]
        if task_name != "GoEmotions-28":
            named = [goemotions.to_ekman(label) for label in named]
        yield cells["id"], tuple(label for label in TASKS[task_name].labels if label in named)


def _with_ratings(example: Example, ratings: Sequence[Value]) -> Example:
    return replace(example, ratings=tuple(ratings), value=aggregate(TASKS[example.task], ratings))
