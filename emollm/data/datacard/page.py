"""card.html: titles, tables and notes on the data; the template is `reports/templates/data_card.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emollm.data.datacard.counts import Card, Table, total_rows
from emollm.data.datacard.histograms import label_histograms, length_histogram
from emollm.reports.charts import bars, columns
from emollm.reports.page import render

TITLES = {
    "aaid": "AAID: affect instructions for training",
    "aeb": "AEB: the affect benchmark",
    "own": "Instructions from own labels",
}


def page(card: Card) -> str:
    """The whole page."""
    # Parts of a benchmark have different questions, splits the same: each part has a chart, splits share one.
    splits = [table.name for table in card.tables] if card.job != "aeb" else []
    return render(
        "data_card.html",
        title=title(card),
        card=card,
        wording=wording(card),
        summary=summary(card),
        warnings=warnings(card),
        rows=rows_table(card),
        splits=splits,
        labels=[
            {**one._asdict(), "chart": (columns if one.upright else bars)(one.labels, one.series)}
            for one in label_histograms(card)
        ],
        lengths=_lengths(card, together=bool(splits)),
        length_rows=[
            [t.name, t.texts, t.lengths.text_median, t.lengths.text_most, t.lengths.row_median, t.lengths.row_most]
            for t in card.tables
        ],
        duplicate_rows=[
            [t.name, t.texts, t.duplicates.texts, t.duplicates.examples, t.duplicates.contradictions]
            for t in card.tables
        ],
        rater_rows=[
            [t.name, r.question, r.posts, f"{r.raters:.1f}", f"{r.alpha:.3f}", f"{r.ceiling:.3f}"]
            for t in card.tables
            for r in t.raters
        ],
        overlap_rows=[[o.of, o.within, o.texts, o.same, o.same_question, o.alike] for o in card.overlaps],
        files=[[name, f"{sha[:16]}…"] for name, sha in card.facts["files"].items()],
    )


def _lengths(card: Card, *, together: bool) -> list[dict[str, Any]]:
    labels, series = length_histogram(card)
    if together:
        return [{"name": "", "chart": columns(labels, series, width=560, height=150)}]
    # Small charts have space for the lower edges only.
    labels = [label.partition("\N{EN DASH}")[0] for label in labels]
    return [{"name": one.name, "chart": columns(labels, [one], height=80)} for one in series]


def title(card: Card) -> str:
    return TITLES.get(card.job, card.job)


def summary(card: Card) -> list[tuple[str, str]]:
    """The numbers at the top: figure and caption."""
    examples = sum(table.examples for table in card.tables)
    questions = {question for table in card.tables for question in table.questions}
    return [
        (f"{total_rows(card):,}", "rows"),
        (f"{examples:,}", "labelled examples"),
        (f"{len(card.tasks)}", "tasks" if len(card.tasks) != 1 else "task"),
        (f"{len(questions)}", "questions" if len(questions) != 1 else "question"),
    ]


def warnings(card: Card) -> list[str]:
    """Sentences on differences from the original, contradictions and overlap; empty if there are none."""
    found: list[str] = []
    for whose in ("official", "published"):
        for name, questions in (card.facts.get(f"differs_from_{whose}") or {}).items():
            for question, counts in questions.items():
                where = "" if question.startswith(name) else f"{name}: "
                found.append(f"{where}{question} has {counts['here']:,} examples, the {whose} one {counts[whose]:,}.")
    if missing := card.facts.get("missing"):
        found.append(f"Left out, since no source was given: {', '.join(missing)}.")
    rejected: Mapping[str, int] = card.facts.get("rejected", {})
    if rejected.get("rows"):
        found.append(f"{rejected['rows']:,} bad rows ({rejected['labels']:,} labels) were left out: rejected.jsonl.")
    if unlabelled := card.facts.get("unlabelled"):
        found.append(f"{unlabelled:,} empty labels were left out.")
    if unlike := card.facts.get("asked_in_own_range"):
        found.append(f"The imported wordings of {', '.join(unlike)} ask for the corpus's own range, not for 0..1.")
    for table in card.tables:
        if table.duplicates.contradictions:
            found.append(
                f"{table.name}: {table.duplicates.contradictions:,} texts are there more than once with different "
                "answers to the same question; no model can be right on all of them."
            )
    for overlap in card.overlaps:
        if overlap.same_question:
            found.append(
                f"{overlap.same_question:,} of {overlap.texts:,} texts of {overlap.of} have the same question "
                f"in {overlap.within}: a model may have memorised their answers."
            )
    return found


def wording(card: Card) -> str:
    source = card.facts["wording"]["from"]
    return "the project's own" if source == "emollm" else f"from {source}"


def rows_table(card: Card) -> tuple[list[str], list[list[int | str]]]:
    """Header and lines: rows per question, and how many rows each wording of it has.

    Splits are shown side by side; a benchmark's parts, which have different questions, below each other.
    """
    if card.job == "aeb":
        return ["part", "question", "rows", "wordings × rows of each"], [
            [table.name, question, table.questions[question], _wordings(table, question)]
            for table in card.tables
            for question in _in_order(card, [table])
        ]
    header = ["question", *(table.name for table in card.tables)]
    header += [f"{table.name}: wordings × rows of each" for table in card.tables]
    lines: list[list[int | str]] = []
    for question in _in_order(card, card.tables):
        counts = [table.questions.get(question, 0) for table in card.tables]
        lines.append([question, *counts, *(_wordings(table, question) for table in card.tables)])
    lines.append(["all", *(table.rows for table in card.tables), *("" for _ in card.tables)])
    return header, lines


def _in_order(card: Card, tables: Sequence[Table]) -> list[str]:
    asked = {question for table in tables for question in table.questions}
    questions = [f"{t.name}.{emotion}" for t in card.tasks.values() for emotion in t.emotions] + list(card.tasks)
    order = {name: i for i, name in enumerate(card.tasks)}
    return sorted((q for q in questions if q in asked), key=lambda q: order[q.partition(".")[0]])


def _wordings(table: Table, question: str) -> str:
    if question not in table.templates:
        return ""
    number, fewest, most = table.templates[question]
    rows = f"{fewest:,}" if fewest == most else f"{fewest:,}\N{EN DASH}{most:,}"
    return f"{number} × {rows}"
