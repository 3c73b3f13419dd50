"""EmoBank: valence, arousal and dominance of 10,062 sentences, one CSV file.

Format page: github.com/JULIELab/EmoBank, `corpus/emobank.csv`, with columns `id,split,V,A,D,text` in any order.
Ratings are means on 1..5; each row gives three examples. `reader.csv` and `writer.csv` of the same folder, with
columns `id,V,A,D` and others, are the two perspectives apart: what a reader feels, and what the writer is taken to
feel. They have neither texts nor splits, and are not what is benchmarked.

Traps: texts are quoted and contain commas, doubled quotes and line ends, so lines are not rows.
"""

from __future__ import annotations

from pathlib import Path

from emollm.core.ask import About
from emollm.core.tasks import TASKS, Task
from emollm.data.corpora.example import BadRow, Example, hand_over
from emollm.data.corpora.rows import Label, Rows, find_file, number

SOURCE = "emobank"
COLUMNS = {"EmoBank-V": "V", "EmoBank-A": "A", "EmoBank-D": "D"}
_SPLITS = ("train", "dev", "test")


PERSPECTIVES: tuple[About, ...] = ("writer", "reader")
_FEELS = {"writer": "the writer of the text feels", "reader": "a reader of the text feels"}
_RATED = {
    "EmoBank-V": "how pleasant the state is that {feels}: 0 is as unpleasant as can be, 1 as pleasant as can be.",
    "EmoBank-A": "how aroused {feels}: 0 is wholly calm, 1 as excited as can be.",
    "EmoBank-D": "how much in control {feels}: 0 is not at all, 1 is wholly.",
}


def perspective_tasks() -> tuple[Task, ...]:
    """Each of EmoBank's tasks twice: of the writer's state, and of a reader's."""
    return tuple(
        Task.model_validate(
            {
                **TASKS[name].model_dump(),
                "name": f"{name}-{about}",
                "title": f"{TASKS[name].title}, {about}",
                "about": about,
                "templates": (f"Say from 0 to 1 {rated.format(feels=_FEELS[about])}",),
            }
        )
        for name, rated in _RATED.items()
        for about in PERSPECTIVES
    )


def read_perspectives(folder: Path, split: str, *, bad: list[BadRow] | None = None) -> list[Example]:
    """All examples of a split of `perspective_tasks`: ratings from `writer.csv` and `reader.csv`, texts and splits by
    their id from `emobank.csv`.

    A rating whose id has no text is a bad row. Bad rows are added to `bad`, or refused together where it is None.
    Raises DataError if one of the files is missing.
    """
    collected: list[BadRow] = []
    posts = Rows(find_file(folder, "emobank.csv"), source=SOURCE, split=split, bad=collected)
    texts = {cells["id"]: (cells["split"], cells["text"]) for _, cells in posts.csv(["id", "split", "text"])}
    tasks = {(task.name, task.about): task for task in perspective_tasks()}
    examples: list[Example] = []
    for about in PERSPECTIVES:
        path = find_file(folder, f"{about}.csv")
        rows = Rows(path, source=SOURCE, split=split, bad=collected, labels_per_row=len(COLUMNS))
        for line, cells in rows.csv(["id", *COLUMNS.values()]):
            if cells["id"] not in texts:
                rows.reject(line, cells["id"], "no text in emobank.csv has this id")
                continue
            of, text = texts[cells["id"]]
            if of == split:
                named = ((tasks[f"{name}-{about}", about], column) for name, column in COLUMNS.items())
                labels = [Label(task, cells[column], number) for task, column in named]
                rows.add(line=line, id=cells["id"], text=text, labels=labels)
        examples += rows.examples
    hand_over(collected, bad)
    return examples


def read_emobank(path: Path, split: str, *, bad: list[BadRow] | None = None) -> list[Example]:
    """All examples of a split from `emobank.csv` or its folder: first all of V, then A, then D.

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
