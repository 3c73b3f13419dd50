"""`manifest.json`: the content of a data folder in counts and hashes, the same for the same inputs and seed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from emollm.core.digest import file_sha256
from emollm.core.tasks import Task
from emollm.data.corpora.example import BadRow, count_labels

BINS = 10
"""Bars of a regression's histogram, over 0..1."""


def describe(table: pa.Table) -> dict[str, Any]:
    """Counts of rows: in total, and per question (task and emotion), template and label."""
    return {
        "rows": table.num_rows,
        "questions": question_counts(table),
        "templates": {f"{task}/{index}": n for (task, index), n in _counts(table["task"], table["template"]).items()},
        "labels": label_counts(table),
    }


def question_column(table: pa.Table) -> pa.ChunkedArray:
    """`EI-reg.joy` or `V-reg`, one per row."""
    task, emotion = (table[name].cast(pa.string()) for name in ("task", "emotion"))
    return pc.if_else(pc.is_null(emotion), task, pc.binary_join_element_wise(task, emotion, "."))


def question_counts(table: pa.Table) -> dict[str, int]:
    return {question: n for (question,), n in _counts(question_column(table)).items()}


def label_counts(table: pa.Table) -> dict[str, dict[str, int]]:
    """How often each label, class or tenth of the range occurs, per question; "" is the empty label set."""
    counts: dict[str, Counter[str]] = {question: Counter() for question in question_counts(table)}
    question, value, unit, labels = question_column(table), table["value"], table["unit"], table["labels"]
    for (column, number, share), n in _counts(question, value, unit).items():
        if share is not None:
            # The last bin is closed: 1.0 belongs to 0.9-1.0. Rounded, since EmoBank's 1.4 is 0.0999… of its range.
            low = min(int(round(share * BINS, 9)), BINS - 1)
            counts[column][f"{low / BINS:.1f}-{(low + 1) / BINS:.1f}"] += n
        elif number is not None:
            counts[column][str(int(number))] += n
    for (column, label), n in _counts(question.take(pc.list_parent_indices(labels)), pc.list_flatten(labels)).items():
        counts[column][label] += n
    for (column,), n in _counts(question.filter(pc.equal(pc.list_value_length(labels), 0))).items():
        counts[column][""] += n
    return {column: dict(sorted(counts[column].items(), key=_by_number)) for column in sorted(counts)}


def _counts(*columns: pa.ChunkedArray) -> dict[tuple[Any, ...], int]:
    """How often each combination occurs, sorted."""
    names = [str(i) for i in range(len(columns))]
    grouped = pa.table(list(columns), names=names).group_by(names, use_threads=False).aggregate([([], "count_all")])
    keys = zip(*(grouped[name].to_pylist() for name in names), strict=True)
    found = dict(zip(keys, grouped["count_all"].to_pylist(), strict=True))
    return dict(sorted(found.items(), key=lambda item: [(part is None, part) for part in item[0]]))


def _by_number(item: tuple[str, int]) -> tuple[float, str]:
    key = item[0]
    digits = key.lstrip("-")
    return (float(key), key) if digits.isdigit() else (0.0, key)


def file_hashes(paths: Iterable[str | Path], *, roots: Mapping[str, Path | None]) -> dict[str, str]:
    """SHA-256 of each file, named `root/path within it` by the name of the first of `roots` that holds it.

    So the same corpus in another folder gives the same manifest. A root may be the file itself.
    """
    return {_within(Path(path), roots): file_sha256(Path(path)) for path in sorted({str(path) for path in paths})}


def _within(path: Path, roots: Mapping[str, Path | None]) -> str:
    for name, root in roots.items():
        if root is not None and path.is_relative_to(root):
            return f"{name}/{path.relative_to(root).as_posix()}" if path != root else f"{name}/{path.name}"
    return path.name


def describe_bad(bad: Sequence[BadRow]) -> dict[str, int]:
    return {"rows": len(bad), "labels": count_labels(bad)}


def describe_wording(tasks: Iterable[Task], templates: Path | None) -> dict[str, Any]:
    """The source of the wordings, and the wordings."""
    found: Mapping[str, Any] = {task.name: list(task.templates) for task in tasks}
    return {"from": "emollm" if templates is None else templates.name, "templates": found}


def report(folder: Path) -> str:
    """The job's output: one line per table, and one per note for the user."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    lines = [f"{folder / name}.parquet: {table['rows']:,} rows" for name, table in manifest["tables"].items()]
    if len(lines) > 2:
        lines.append(f"{sum(table['rows'] for table in manifest['tables'].values()):,} rows in all")
    if missing := manifest.get("missing"):
        lines.append(f"note: left out, no source given: {', '.join(missing)}")
    for what, corpora in manifest.get("left_out", {}).items():
        if corpora:
            left_out = ", ".join(f"{source} {count:,}" for source, count in corpora.items())
            lines.append(f"note: texts of {what.replace('_', ' ')} left out: {left_out}")
    if rejected := manifest["rejected"]["rows"]:
        labels = manifest["rejected"]["labels"]
        lines.append(f"note: {rejected:,} bad rows ({labels:,} labels) left out; see {folder / 'rejected.jsonl'}")
    for whose in ("official", "published"):
        tables = (manifest.get(f"differs_from_{whose}") or {}).items()
        for name, questions in tables:
            counts = [f"{q} {n['here']:,} of {n[whose]:,}" for q, n in questions.items()]
            more = f" and {len(counts) - 4} more" if len(counts) > 4 else ""
            if counts:
                lines.append(f"note: {name} is not the {whose} one: {', '.join(counts[:4])}{more}")
    if unlike := manifest.get("asked_in_own_range"):
        lines.append(
            f"note: the imported wordings of {', '.join(unlike)} ask for the corpus's own range; models of this "
            "project answer in 0..1 (docs/data.md#traps)"
        )
    lines.append(f"card: {folder / 'card.html'}")
    return "\n".join(lines)
