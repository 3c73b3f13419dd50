"""A data card as Markdown: for a terminal, a repository, a hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from emollm.data.datacard.facts import Card
from emollm.data.datacard.histograms import label_histograms, length_histogram
from emollm.data.datacard.words import rows_table, summary, title, warnings, wording
from emollm.reports.page import markdown_cell, markdown_table

_BLOCKS = " ▁▂▃▄▅▆▇█"


def markdown(card: Card) -> str:
    return "\n".join(_lines(card)) + "\n"


def _lines(card: Card) -> Iterator[str]:
    yield f"# {title(card)}"
    yield ""
    yield ", ".join(f"**{figure}** {caption}" for figure, caption in summary(card))
    if found := warnings(card):
        yield from ("", "## Know before use", "", *(f"- {markdown_cell(warning)}" for warning in found))
    yield from ("", "## Rows", "")
    header, rows = rows_table(card)
    yield from markdown_table(
        header, [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    )
    yield from ("", f"Wordings: {markdown_cell(wording(card))}; seed {card.facts['seed']}.")
    yield from ("", "## Labels", "", "Share of examples by label, from the first to the last:", "")
    yield from markdown_table(
        ["question", "table", "labels", "shares", "counts"],
        [
            [h.question, s.name, _ends(h.labels, h.upright), f"`{_sparkline(s.values)}`", _counts(s.notes)]
            for h in label_histograms(card)
            for s in h.series
        ],
    )
    yield from ("", f"## Lengths in {card.unit}", "")
    edges, series = length_histogram(card)
    yield from markdown_table(
        ["table", "distinct texts", "median", "longest", "whole row, median", "longest", f"shares from {edges[0]} on"],
        [
            [
                t.name,
                f"{t.texts:,}",
                *(f"{n:,}" for n in (t.lengths.text_median, t.lengths.text_most)),
                *(f"{n:,}" for n in (t.lengths.row_median, t.lengths.row_most)),
                f"`{_sparkline(s.values)}`",
            ]
            for t, s in zip(card.tables, series, strict=True)
        ],
    )
    yield from ("", "## Duplicates and overlap", "")
    yield from markdown_table(
        ["table", "texts asked the same more than once", "labels beyond the first", "with different answers"],
        [[t.name, *(f"{n:,}" for n in (t.duplicates.texts, t.duplicates.examples, t.duplicates.contradictions))]
         for t in card.tables],
    )  # fmt: skip
    if card.overlaps:
        yield ""
        yield from markdown_table(
            ["texts of", "also in", "of", "letter for letter", "same question too", "alike"],
            [[o.of, o.within, *(f"{n:,}" for n in (o.texts, o.same, o.same_question, o.alike))] for o in card.overlaps],
        )
    yield from ("", "## Input files", "")
    yield from markdown_table(
        ["file", "SHA-256"], [[name, f"`{sha[:16]}…`"] for name, sha in card.facts["files"].items()]
    )


def _sparkline(values: Sequence[float]) -> str:
    top = max(values, default=0) or 1
    # Any share above nothing shows.
    return "".join(_BLOCKS[min(8, max(1 if v else 0, round(v / top * 8)))] for v in values)


def _ends(labels: Sequence[str], upright: bool) -> str:
    return (
        f"{labels[0]} … {labels[-1]}" if upright else f"{', '.join(labels[:3])}, …" if labels[3:] else ", ".join(labels)
    )


def _counts(notes: Sequence[str]) -> str:
    return " ".join(note.partition(" ")[0] for note in notes)
