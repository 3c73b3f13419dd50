"""The published JSON lines of AAID and AEB: one instruction and answer per line.

Format page: the releases "AAID" and "AEB" of EmoLLMs (arXiv 2401.08508). AAID: `id` and `conversations`, a human's
and an assistant's `value`. AEB: `instruction`, `input` (empty) and `output`, which is a string, an integer or a
float by file. An instruction reads `Task: <wording> Tweet:|Text: <text>[ Emotion E: <emotion>.] <question>`.

Traps: only its number shows which of VADER's four sets a row is from (1,000 each, in order); AEB's wordings ask for
EmoBank's and VADER's own ranges, not for 0..1; SST-5's texts are in lower case, with `-lrb-`; GoEmotions' texts have
been changed by a CSV reader; the answers of GoEmotions are not in alphabetical order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from emollm.core.errors import DataError
from emollm.core.tasks import TASKS, Kind, Task, Value
from emollm.data.corpora.example import BadRow, Example, hand_over
from emollm.data.corpora.rows import Label, Rows, integer, number
from emollm.data.corpora.vader import FILES as VADER_FILES

SOURCE = "published"
_VADER = "VADER"
_VADER_ROWS = 4_000

_INSTRUCTION = re.compile(
    r"Task: (?P<template>.*?) (?P<text_name>Tweet|Text): (?P<text>.*?)"
    r"(?: Emotion E: (?P<emotion>\w+)\.)? "
    r"(?P<question>Intensity Score|Intensity Class|Sentiment score|Sentiment Class|This t\w+ contains emotions): ?",
    re.DOTALL,
)
_BY_QUESTION = {
    ("Tweet", "Intensity Score", True): "EI-reg",
    ("Tweet", "Intensity Class", True): "EI-oc",
    ("Tweet", "Intensity Score", False): "V-reg",
    ("Tweet", "Intensity Class", False): "V-oc",
    ("Tweet", "This tweet contains emotions", False): "E-c",
    ("Text", "This tweet contains emotions", False): "GoEmotions",
    ("Text", "Sentiment score", False): "SST",
    ("Text", "Sentiment Class", False): "SST5",
    ("Text", "Intensity Class", False): "TDT",
}
_DIMENSIONS = {"valence": "EmoBank-V", "arousal": "EmoBank-A", "dominance": "EmoBank-D"}


class Parts(NamedTuple):
    """A parsed instruction."""

    task: str
    """Task name; "VADER" if only the row's number shows which of the four."""
    emotion: str | None
    template: str
    text: str


def take_apart(instruction: str) -> Parts | None:
    """The parts of a published instruction, or None for another text."""
    found = _INSTRUCTION.fullmatch(instruction)
    if not found:
        return None
    template = found["template"]
    task = _BY_QUESTION.get((found["text_name"], found["question"], found["emotion"] is not None))
    if task is None and found["text_name"] == "Text" and found["question"] == "Intensity Score":
        named = [d for d in _DIMENSIONS if re.search(rf"\b{d}\b", template)]
        # VADER is recognised by the lower end of its scale, since its wording names valence too.
        task = _VADER if "-4" in template else _DIMENSIONS[named[0]] if len(named) == 1 else None
    return Parts(task, found["emotion"], template, found["text"]) if task else None


def read_published(
    path: Path,
    split: str,
    *,
    vader_texts: Mapping[str, Collection[str]] | None = None,
    bad: list[BadRow] | None = None,
) -> list[Example]:
    """All examples of one file, of any tasks, each with the wording it was published with.

    The set of a VADER row is known in a file with all 4,000 rows. A part of such a file needs `vader_texts`, the texts
    of the official sets by task; rows between two sets whose set is uncertain are bad rows.
    Bad rows are added to `bad`, or refused together where it is None.
    """
    collected: list[BadRow] = []
    rows = Rows(path, source=SOURCE, split=split, bad=collected)
    found = list(_json_lines(rows))
    in_vader = [i for i, (_, _, parts, _) in enumerate(found) if parts.task == _VADER]
    vader_names = dict(zip(in_vader, _vader_sets([found[i][2].text for i in in_vader], vader_texts or {}), strict=True))
    for i, (line, row_id, parts, output) in enumerate(found):
        name = vader_names.get(i, parts.task)
        if name is None:
            reason = (
                f"one of {len(in_vader):,} VADER rows: only a file of all {_VADER_ROWS:,} shows which set it is from"
            )
            rows.reject(line, parts.text, reason)
            continue
        task = TASKS[name]
        label = Label(task, _as_text(output), partial(_parse, task), parts.emotion)
        rows.add(line=line, id=row_id, text=parts.text, labels=[label], template=parts.template)
    hand_over(collected, bad)
    return rows.examples


def _vader_sets(texts: Sequence[str], official: Mapping[str, Collection[str]]) -> list[str | None]:
    """The set of each text, given that the sets follow each other; None if it is uncertain."""
    names = list(VADER_FILES)
    if len(texts) == _VADER_ROWS:
        return [names[i * len(names) // _VADER_ROWS] for i in range(_VADER_ROWS)]
    known = [[i for i, name in enumerate(names) if text in official.get(name, ())] for text in texts]
    # A text between two texts of one set is from that set too. Texts that are in two sets give no information.
    before = list(accumulate((k[0] if len(k) == 1 else 0 for k in known), max))
    after = list(accumulate((k[0] if len(k) == 1 else len(names) - 1 for k in reversed(known)), min))[::-1]
    return [names[low] if low == high else None for low, high in zip(before, after, strict=True)]


def read_templates(place: Path) -> dict[str, tuple[str, ...]]:
    """The wordings of each task in a published file or folder, in order of first appearance.

    Raises DataError if there is none.
    """
    paths = published_files(place)
    templates: dict[str, dict[str, None]] = {}
    for path in paths:
        rows = Rows(path, source=SOURCE, split="", bad=[])
        for _, _, parts, _ in _json_lines(rows):
            for name in VADER_FILES if parts.task == _VADER else (parts.task,):
                templates.setdefault(name, {})[parts.template] = None
    if not templates:
        raise DataError(f"{place} has no instruction of a published AAID or AEB file")
    return {name: tuple(found) for name, found in templates.items()}


def published_files(place: Path) -> list[Path]:
    """The file itself, or the JSON lines files under a folder; raises DataError if there is none."""
    if place.is_file():
        return [place]
    found = sorted([*place.rglob("*.json"), *place.rglob("*.jsonl")])
    if not found:
        raise DataError(f"no published file (.json or .jsonl) at {place}")
    return found


def _json_lines(rows: Rows) -> Iterator[tuple[int, str, Parts, Any]]:
    for line, raw in rows.lines():
        try:
            row = json.loads(raw)
        except ValueError:
            rows.reject(line, raw, "not valid JSON")
            continue
        try:
            if "conversations" in row:
                (_, instruction), (_, output) = ((turn["from"], turn["value"]) for turn in row["conversations"])
            else:
                instruction, output = row["instruction"], row["output"]
            parts = take_apart(instruction)
        except (KeyError, TypeError, ValueError):
            rows.reject(line, raw, "neither `conversations` of two turns nor `instruction` and `output`")
            continue
        if parts is None:
            rows.reject(line, instruction, "not an instruction of AAID or AEB")
            continue
        yield line, str(row.get("id", f"{rows.path.stem}-{line}")), parts, output


def _as_text(output: object) -> str:
    return repr(output) if isinstance(output, float) else str(output)


def _parse(task: Task, raw: str) -> Value:
    match task.kind:
        case Kind.REGRESSION:
            return number(raw)
        case Kind.ORDINAL:
            return integer(raw.partition(":")[0])
        case _:
            names = tuple(raw.removesuffix(task.answer_end).split(", "))
            return () if names == (task.no_label,) else names
