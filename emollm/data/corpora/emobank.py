"""EmoBank: valence, arousal and dominance of 10,062 sentences, one CSV file.

Format page: github.com/JULIELab/EmoBank, `corpus/emobank.csv`, with columns `id,split,V,A,D,text` in any order.
Ratings are means on 1..5; each row gives three examples. (`reader.csv` and `writer.csv` of the same folder are
the two perspectives apart, without splits, and not what is benchmarked.)

Traps: texts are quoted and hold commas, doubled quotes and line ends, so lines are not rows.
"""

from __future__ import annotations

from pathlib import Path

from emollm.core.tasks import TASKS
from emollm.data.corpora.example import BadRow, Example, hand_over
from emollm.data.corpora.rows import Label, Rows, find_file, number

SOURCE = "emobank"
COLUMNS = {"EmoBank-V": "V", "EmoBank-A": "A", "EmoBank-D": "D"}
_SPLITS = ("train", "dev", "test")


def read_emobank(path: Path, split: str, *, bad: list[BadRow] | None = None) -> list[Example]:
    """All examples of a split from `emobank.csv` or the folder that holds it: first all V, then A, then D.

    Bad rows of the split, and rows of no known split, are added to `bad`, or refused together where it is None.
    Raises DataError if the file is missing.
    """
    collected: list[BadRow] = []
    path = find_file(path, "emobank.csv")
    rows = Rows(path, source=SOURCE, split=split, bad=collected, labels_per_row=len(COLUMNS))
    for line, cells in rows.csv(["id", "split", *COLUMNS.values(), "text"]):
        if cells["split"] not in _SPLITS:
            rows.reject(line, cells["split"], f"unknown split; choose from: {', '.join(_SPLITS)}")
        elif cells["split"] == split:
            labels = [Label(TASKS[name], cells[column], number) for name, column in COLUMNS.items()]
            rows.add(line=line, id=cells["id"], text=cells["text"], labels=labels)
    hand_over(collected, bad)
    return [example for name in COLUMNS for example in rows.examples if example.task == name]
