"""What all our reports share: one HTML file each, no script, no font, nothing fetched, light and dark; and Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

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


def html_page(title: str, body: str, *, style: str = "") -> str:
    """The whole page; `body` is HTML and `style` more CSS, both written by us: what they hold of data is escaped."""
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n<main>\n{body}\n</main>\n</html>\n"
    )


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """The numbers at the top: figure and caption."""
    shown = "".join(f'<div class="tile"><b>{escape(n)}</b><span>{escape(what)}</span></div>' for n, what in figures)
    return f'<div class="tiles">{shown}</div>'


def notes(title: str, sentences: Iterable[str]) -> str:
    """A box of sentences that a reader should not miss."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<div class="warn"><h2>{escape(title)}</h2><ul>{items}</ul></div>'


def key(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    return (
        f'<div class="key">{"".join(f"<span><i class=s{i}></i>{escape(n)}</span>" for i, n in enumerate(names))}</div>'
    )


def html_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns of whole numbers stand to the right; every cell is escaped."""
    numbers = [all(isinstance(row[i], int) for row in rows) for i in range(len(header))]

    def cell(tag: str, i: int, value: object) -> str:
        shown = f"{value:,}" if isinstance(value, int) else str(value)
        return f"<{tag}{' class=n' if numbers[i] else ''}>{escape(shown)}</{tag}>"

    head = "".join(cell("th", i, name) for i, name in enumerate(header))
    body = "".join(f"<tr>{''.join(cell('td', i, value) for i, value in enumerate(row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table; whatever a cell holds stays in its cell."""
    yield f"| {' | '.join(map(markdown_cell, header))} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(map(markdown_cell, row))} |"


def markdown_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
