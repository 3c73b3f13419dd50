"""A data card as one HTML file: no script, no font, nothing fetched; light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from emollm.data.datacard.facts import Card
from emollm.data.datacard.histograms import Histogram, label_histograms, length_histogram
from emollm.data.datacard.words import rows_table, summary, title, warnings, wording
from emollm.reports.charts import bars, columns
from emollm.reports.page import html_page, html_table, key, notes, tiles


def page(card: Card) -> str:
    """The whole page. Everything that came from data, names and labels included, is escaped."""
    return html_page(title(card), "\n".join(_body(card)))


def _body(card: Card) -> Iterator[str]:
    # Parts of a benchmark ask different things, splits the same: parts get a chart each, splits share theirs.
    splits = [table.name for table in card.tables] if card.job != "aeb" else []
    yield f"<h1>{escape(title(card))}</h1>"
    made = f"Wordings: {wording(card)} · seed {card.facts['seed']} · holds no text of a corpus"
    yield f'<div class="sub">{escape(made)}</div>'
    yield tiles(summary(card))
    if found := warnings(card):
        yield notes("Know before use", found)
    yield "<h2>Rows</h2>"
    yield html_table(*rows_table(card))
    yield "<h2>Labels</h2>"
    yield '<p class="sub">Share of examples; point at a bar for its count. A regression shows tenths of its range.</p>'
    yield key(splits)
    yield f'<div class="grid">{"".join(map(_label_panel, label_histograms(card)))}</div>'
    yield f"<h2>Lengths in {escape(card.unit)}</h2>"
    yield from _lengths(card, splits)
    yield "<h2>Duplicates and overlap</h2>"
    yield html_table(
        [
            "table",
            "distinct texts",
            "asked the same more than once",
            "labels beyond the first",
            "with different answers",
        ],
        [
            [t.name, t.texts, t.duplicates.texts, t.duplicates.examples, t.duplicates.contradictions]
            for t in card.tables
        ],
    )
    if card.overlaps:
        yield "<br>"
        yield html_table(
            ["texts of", "also in", "of", "letter for letter", "same question too", "alike"],
            [[o.of, o.within, o.texts, o.same, o.same_question, o.alike] for o in card.overlaps],
        )
        yield '<p class="sub">Alike: once case, punctuation, links and user names are set aside.</p>'
    yield "<h2>Input files</h2>"
    yield html_table(["file", "SHA-256"], [[name, f"{sha[:16]}…"] for name, sha in card.facts["files"].items()])


def _label_panel(histogram: Histogram) -> str:
    draw = columns if histogram.upright else bars
    return (
        f'<div class="panel{"" if histogram.upright else " words"}">'
        f"<h3>{escape(histogram.question)} <span>{escape(histogram.examples)}</span></h3>"
        f"{draw(histogram.labels, histogram.series)}</div>"
    )


def _lengths(card: Card, splits: Sequence[str]) -> Iterator[str]:
    labels, series = length_histogram(card)
    if splits:
        yield key(splits)
        yield f'<div class="panel wide">{columns(labels, series, width=560, height=150)}</div>'
    else:
        # Small charts have room for the lower edges only.
        labels = [label.partition("\N{EN DASH}")[0] for label in labels]
        panels = (
            f'<div class="panel"><h3>{escape(s.name)}</h3>{columns(labels, [s], height=80)}</div>' for s in series
        )
        yield f'<div class="grid">{"".join(panels)}</div>'
    yield "<br>"
    yield html_table(
        ["table", "distinct texts", "median text", "longest", "median row", "longest row"],
        [
            [t.name, t.texts, t.lengths.text_median, t.lengths.text_most, t.lengths.row_median, t.lengths.row_most]
            for t in card.tables
        ],
    )
