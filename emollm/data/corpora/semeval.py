"""SemEval-2018 Task 1, Affect in Tweets: the tab-separated files of EI-reg, EI-oc, V-reg, V-oc and E-c.

Format page: competitions.codalab.org/competitions/17751. One header line; then
`ID <tab> Tweet <tab> Affect Dimension <tab> Intensity Score|Class`, and for E-c `ID <tab> Tweet` and eleven
columns of 0/1. EI has one file per emotion. Spanish and Arabic files have the same format.

Traps: the test files of EI-reg and V-reg have 16,937 rows of a bias study, without gold, recognised by their ids;
texts contain literal `\\n`, `&amp;` and outer blanks, which are kept: if texts were stripped, 97 of 999 rows of the
published AAID sample would differ, and 56 if they were unescaped.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from emollm.core.errors import DataError
from emollm.core.tasks import TASKS, Kind, Task, Value
from emollm.data.corpora.example import BadRow, Example, hand_over
from emollm.data.corpora.rows import Label, Rows, integer, number

SOURCE = "semeval2018"

_FILE_NAME = re.compile(
    r"(?:2018-)?(?P<task>EI-reg|EI-oc|Valence-reg|Valence-oc|E-c)-(?P<language>En|Es|Ar)"
    r"(?:-(?P<emotion>anger|fear|joy|sadness))?-(?P<split>train|dev|test)(?P<gold>-gold)?\.txt"
)
_TASK_NAMES = {"Valence-reg": "V-reg", "Valence-oc": "V-oc"}


def read_semeval(folder: Path, split: str, *, language: str = "En", bad: list[BadRow] | None = None) -> list[Example]:
    """All examples of one split ("train", "dev" or "test") in `folder`, at any depth.

    The order is that of tasks, emotions and file lines, independent of folder names. Bad rows of all files
    are added to `bad`, or refused together where it is None. Raises DataError if the folder or the split's
    files are missing.
    """
    found = find_semeval(folder, split, language=language)
    collected: list[BadRow] = []
    examples: list[Example] = []
    for task in TASKS.values():
        for emotion in task.emotions or ("",):
            if path := found.get((task.name, emotion)):
                examples += _read_file(path, task, emotion or None, split, collected)
    hand_over(collected, bad)
    return examples


def find_semeval(folder: Path, split: str, *, language: str = "En") -> dict[tuple[str, str], Path]:
    """The files of a split by task and emotion ("" for tasks without emotions); raises DataError if there is none."""
    if not folder.is_dir():
        raise DataError(f"no SemEval-2018 folder at {folder}; give the folder with EI-reg, EI-oc, V-reg, V-oc and E-c")
    found: dict[tuple[str, str], Path] = {}
    # Files with gold come first, so that a -gold test file is used instead of the one without gold.
    for path in sorted(folder.rglob("*.txt"), key=lambda p: (not p.stem.endswith("-gold"), p)):
        name = _FILE_NAME.fullmatch(path.name)
        if name and name["split"] == split and name["language"] == language:
            key = (_TASK_NAMES.get(name["task"], name["task"]), name["emotion"] or "")
            if key not in found:
                found[key] = path
            elif bool(name["gold"]) == found[key].stem.endswith("-gold"):
                raise DataError(f"two files for {' '.join(key).strip()} {split}: {found[key]} and {path}; keep one")
    if not found:
        raise DataError(
            f"{folder} has no {split} file of SemEval-2018 ({language}), such as E-c-{language}-{split}.txt"
        )
    return found


def _read_file(path: Path, task: Task, emotion: str | None, split: str, bad: list[BadRow]) -> list[Example]:
    rows = Rows(path, source=SOURCE, split=split, bad=bad)
    columns = ["ID", "Tweet", *(task.labels or ("Affect Dimension", _score_column(task)))]
    lines = rows.lines()
    header = next(lines, (1, ""))[1].split("\t")
    if header != columns:
        column = next((c for c in columns if c not in header), header[-1])
        reason = f"the header is not that of {task.name} (see column {column!r}); a file of another task?"
        rows.reject_file(header, reason, rows=sum(1 for _ in lines))
        return []
    for line, raw in lines:
        cells = raw.split("\t")
        # 16,937 rows of the official EI-reg and V-reg test files are a bias study without gold: never scored.
        if "-mystery-" in cells[0]:
            continue
        if len(cells) != len(columns):
            rows.reject(line, raw, f"{len(cells)} columns, expected {len(columns)}")
            continue
        row_id, text, *rest = cells
        if task.kind is not Kind.LABEL_SET and rest[0] != (emotion or "valence"):
            rows.reject(line, rest[0], f"unknown affect dimension; this file is about {emotion or 'valence'}")
            continue
        gold = "\t".join(rest if task.kind is Kind.LABEL_SET else rest[1:])
        label = Label(task, gold, partial(_parse_value, task), emotion)
        rows.add(line=line, id=row_id, text=text, labels=[label])
    return rows.examples


def _score_column(task: Task) -> str:
    return "Intensity Score" if task.kind is Kind.REGRESSION else "Intensity Class"


def _parse_value(task: Task, raw: str) -> Value:
    match task.kind:
        case Kind.REGRESSION:
            return number(raw)
        case Kind.ORDINAL:
            value, colon, _ = raw.partition(":")
            if not colon:
                raise ValueError("not of the form '2: moderate amount of ...'")
            return integer(value)
        case _:
            cells = raw.split("\t")
            wrong = [cell for cell in cells if cell not in ("0", "1")]
            if wrong:
                raise ValueError(f"{wrong[0]!r} is neither 0 nor 1")
            return tuple(label for label, cell in zip(task.labels, cells, strict=True) if cell == "1")
