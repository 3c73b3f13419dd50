"""A data card as one HTML file: no script, no font, nothing fetched; light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from emollm.datacard.charts import bars, columns
from emollm.datacard.facts import Card
from emollm.datacard.histograms import Histogram, label_histograms, length_histogram
from emollm.datacard.words import rows_table, summary, title, warnings, wording

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #66717f; --line: #dfe4ea; --paper: #fbfcfd;
  --panel: #fff; --s0: #2f6f9f; --s1: #e2953a; --s2: #5b9a68; --warn: #fff6e3; --warn-line: #e2953a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ef; --soft: #93a0af; --line: #2c3642; --paper: #12181f;
  --panel: #19212a; --s0: #5fa6d8; --s1: #eeaa58; --s2: #7dbd8b; --warn: #2b2416; --warn-line: #b8803a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 40px 0 12px; }
h3 { font-size: 13px; font-weight: 600; margin: 0 0 8px; display: flex; justify-content: space-between;
  gap: 8px; white-space: nowrap; overflow: hidden; }
h3 span, .sub, figcaption { color: var(--soft); font-weight: 400; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 24px 0 0; }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 12px 20px 10px; }
.tile b { display: block; font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.warn { background: var(--warn); border-left: 3px solid var(--warn-line); border-radius: 4px;
  margin: 20px 0 0; padding: 12px 18px; }
.warn h2 { margin: 0 0 4px; font-size: 15px; } .warn ul { margin: 0; padding-left: 18px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 12px;
  align-items: start; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px 8px; }
.wide { max-width: 640px; } .panel.words { grid-column: span 2; }
@media (max-width: 600px) { .panel.words { grid-column: auto; } }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; background: var(--panel); }
th, td { padding: 5px 14px; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
code { font: 12.5px ui-monospace, monospace; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg .grid { stroke: var(--line); } svg text { fill: var(--soft); font-size: 9px; font-family: inherit; }
svg .tick { text-anchor: middle; } svg .scale { text-anchor: end; }
svg .name { text-anchor: end; fill: var(--ink); font-size: 10px; }
.s0 { fill: var(--s0); background: var(--s0); } .s1 { fill: var(--s1); background: var(--s1); }
.s2 { fill: var(--s2); background: var(--s2); }
.key { display: flex; gap: 16px; font-size: 13px; color: var(--soft); margin: 0 0 12px; }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px; }
"""


def page(card: Card) -> str:
    """The whole page. Everything that came from data, names and labels included, is escaped."""
    body = "\n".join(_body(card))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title(card))}</title>\n<style>{_STYLE}</style>\n<main>\n{body}\n</main>\n</html>\n"
    )


def _body(card: Card) -> Iterator[str]:
    # Parts of a benchmark ask different things, splits the same: parts get a chart each, splits share theirs.
    splits = [table.name for table in card.tables] if card.job != "aeb" else []
    yield f"<h1>{escape(title(card))}</h1>"
    made = f"Wordings: {wording(card)} · seed {card.facts['seed']} · holds no text of a corpus"
    yield f'<div class="sub">{escape(made)}</div>'
    tiles = "".join(f'<div class="tile"><b>{n}</b><span>{escape(what)}</span></div>' for n, what in summary(card))
    yield f'<div class="tiles">{tiles}</div>'
    if found := warnings(card):
        items = "".join(f"<li>{escape(warning)}</li>" for warning in found)
        yield f'<div class="warn"><h2>Know before use</h2><ul>{items}</ul></div>'
    yield "<h2>Rows</h2>"
    yield _table(*rows_table(card))
    yield "<h2>Labels</h2>"
    yield '<p class="sub">Share of examples; point at a bar for its count. A regression shows tenths of its range.</p>'
    yield _key(splits)
    yield f'<div class="grid">{"".join(map(_label_panel, label_histograms(card)))}</div>'
    yield f"<h2>Lengths in {escape(card.unit)}</h2>"
    yield from _lengths(card, splits)
    yield "<h2>Duplicates and overlap</h2>"
    yield _table(
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
        yield _table(
            ["texts of", "also in", "of", "letter for letter", "same question too", "alike"],
            [[o.of, o.within, o.texts, o.same, o.same_question, o.alike] for o in card.overlaps],
        )
        yield '<p class="sub">Alike: once case, punctuation, links and user names are set aside.</p>'
    yield "<h2>Input files</h2>"
    yield _table(["file", "SHA-256"], [[name, f"{sha[:16]}…"] for name, sha in card.facts["files"].items()])


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
        yield _key(splits)
        yield f'<div class="panel wide">{columns(labels, series, width=560, height=150)}</div>'
    else:
        # Small charts have room for the lower edges only.
        labels = [label.partition("\N{EN DASH}")[0] for label in labels]
        panels = (
            f'<div class="panel"><h3>{escape(s.name)}</h3>{columns(labels, [s], height=80)}</div>' for s in series
        )
        yield f'<div class="grid">{"".join(panels)}</div>'
    yield "<br>"
    yield _table(
        ["table", "distinct texts", "median text", "longest", "median row", "longest row"],
        [
            [t.name, t.texts, t.lengths.text_median, t.lengths.text_most, t.lengths.row_median, t.lengths.row_most]
            for t in card.tables
        ],
    )


def _key(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    return (
        f'<div class="key">{"".join(f"<span><i class=s{i}></i>{escape(n)}</span>" for i, n in enumerate(names))}</div>'
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    numbers = [all(isinstance(row[i], int) for row in rows) for i in range(len(header))]

    def cell(tag: str, i: int, value: object) -> str:
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        return f"<{tag}{' class=n' if numbers[i] else ''}>{escape(shown)}</{tag}>"

    head = "".join(cell("th", i, name) for i, name in enumerate(header))
    body = "".join(f"<tr>{''.join(cell('td', i, value) for i, value in enumerate(row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
