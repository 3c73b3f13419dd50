"""SemEval-2018 Task 1, Affect in Tweets: the tab-separated files of EI-reg, EI-oc, V-reg, V-oc and E-c.

Format page: competitions.codalab.org/competitions/17751. One header line; then
`ID <tab> Tweet <tab> Affect Dimension <tab> Intensity Score|Class`, and for E-c `ID <tab> Tweet` and eleven
columns of 0/1. EI files come one an emotion. Spanish and Arabic files have the same form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from emollm.corpora.example import BadRow, Example, refuse
from emollm.errors import DataError
from emollm.tasks import TASKS, Kind, Task, Value

SOURCE = "semeval2018"

_FILE_NAME = re.compile(
    r"(?:2018-)?(?P<task>EI-reg|EI-oc|Valence-reg|Valence-oc|E-c)-(?P<language>En|Es|Ar)"
    r"(?:-(?P<emotion>anger|fear|joy|sadness))?-(?P<split>train|dev|test)(?:-gold)?\.txt"
)
_TASK_NAMES = {"Valence-reg": "V-reg", "Valence-oc": "V-oc"}


def read_semeval(folder: Path, split: str, *, language: str = "En") -> list[Example]:
    """All examples of one split ("train", "dev" or "test") under `folder`, searched through.

    The order is that of tasks, emotions and file lines, whatever the folders are called. Raises DataError if
    the folder or the split's files are missing, and one that lists file, line, value and reason of all bad
    rows together.
    """
    if not folder.is_dir():
        raise DataError(f"no SemEval-2018 folder at {folder}; give the one that holds EI-reg, EI-oc, V-reg, V-oc, E-c")
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.rglob("*.txt")):
        name = _FILE_NAME.fullmatch(path.name)
        if name and name["split"] == split and name["language"] == language:
            key = (_TASK_NAMES.get(name["task"], name["task"]), name["emotion"] or "")
            if key in found:
                raise DataError(f"two files for {' '.join(key).strip()} {split}: {found[key]} and {path}; keep one")
            found[key] = path
    if not found:
        raise DataError(f"{folder} holds no {split} file of SemEval-2018 ({language}), such as E-c-{language}-{split}.txt")

    examples: list[Example] = []
    bad: list[BadRow] = []
    for task in TASKS.values():
        for emotion in task.emotions or ("",):
            if path := found.get((task.name, emotion)):
                for row in _read_file(path, task, emotion or None, split):
                    (bad if isinstance(row, BadRow) else examples).append(row)  # type: ignore[arg-type]
    refuse(bad)
    return examples


def _read_file(path: Path, task: Task, emotion: str | None, split: str) -> Iterator[Example | BadRow]:
    columns = ["ID", "Tweet", *(task.labels or ("Affect Dimension", _score_column(task)))]
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8 ({error.reason})") from None
    header = lines[0].rstrip("\r").split("\t")
    if header != columns:
        raise DataError(f"{path}:1: the header is {header}, expected {columns}; is it a file of {task.name}?")
    seen: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        cells = line.rstrip("\r").split("\t")
        if cells == [""]:
            continue

        def reject(value: str, reason: str, line: int = number) -> BadRow:
            return BadRow(path=str(path), line=line, value=value, reason=reason)

        if len(cells) != len(columns):
            yield reject(line[:80], f"{len(cells)} columns, expected {len(columns)}")
            continue
        row_id, text, *rest = cells
        # 16,937 rows of the official EI-reg and V-reg test files are a bias study without gold: never scored.
        if "-mystery-" in row_id:
            continue
        # The text stays raw, `&amp;`, literal `\\n` and outer blanks included: only so do AAID's rows come out.
        if not text.strip():
            yield reject(text, "empty text")
        elif row_id in seen:
            yield reject(row_id, f"duplicate id, first on line {seen[row_id]}")
        elif task.kind is not Kind.LABEL_SET and rest[0] != (emotion or "valence"):
            yield reject(rest[0], f"affect dimension is not {emotion or 'valence'}")
        else:
            try:
                value = _parse_value(task, rest)
                task.check_value(value)
            except (ValueError, DataError) as error:
                yield reject("\t".join(rest), str(error))
                continue
            seen[row_id] = number
            yield Example(
                id=row_id,
                text=text,
                task=task.name,
                emotion=emotion,
                value=value,
                source=SOURCE,
                split=split,
                path=str(path),
                line=number,
            )


def _score_column(task: Task) -> str:
    return "Intensity Score" if task.kind is Kind.REGRESSION else "Intensity Class"


def _parse_value(task: Task, cells: list[str]) -> Value:
    match task.kind:
        case Kind.REGRESSION:
            try:
                return float(cells[1])
            except ValueError:
                raise ValueError("not a number") from None
        case Kind.ORDINAL:
            value, colon, _ = cells[1].partition(":")
            if not colon:
                raise ValueError("not of the form '2: moderate amount of ...'")
            return int(value)
        case _:
            wrong = [cell for cell in cells if cell not in ("0", "1")]
            if wrong:
                raise ValueError(f"{wrong[0]!r} is neither 0 nor 1")
            return tuple(label for label, cell in zip(task.labels, cells, strict=True) if cell == "1")
