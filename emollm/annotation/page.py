"""The report of an annotated corpus as one HTML file: no script, no font, nothing fetched; light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from emollm.annotation.facts import CONFIDENCE_BINS, VALUE_BINS, Column, Extreme, Facts
from emollm.annotation.identity import Identity
from emollm.annotation.monitor import left_in_words
from emollm.core.tasks import Kind
from emollm.reports.charts import Series, bars, columns
from emollm.reports.page import html_page, html_table, tiles

_STYLE = """
.grid { grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
.panel p { margin: 10px 0 2px; color: var(--soft); font-size: 12px; }
details { border-top: 1px solid var(--line); padding: 8px 0; } summary { cursor: pointer; }
details table { width: 100%; background: none; } details td { vertical-align: top; }
td.post { white-space: normal; overflow-wrap: anywhere; min-width: 260px; width: 100%; unicode-bidi: isolate; }
"""


def page(facts: Facts, summary: dict[str, Any], identity: Identity) -> str:
    """The whole page. Posts stand in it, so it goes where the corpus may go and nowhere else; all text is escaped."""
    body = "\n".join(_body(facts, summary, identity))
    return html_page(f"{facts.posts:,} annotated posts", body, style=_STYLE)


def _body(facts: Facts, summary: dict[str, Any], identity: Identity) -> Iterator[str]:
    yield f"<h1>{facts.posts:,} annotated posts</h1>"
    made = f"{', '.join(identity['tasks'])} · engine {identity['engine']} · model {identity['model']}"
    yield f'<div class="sub">{escape(made)} · holds texts of posts</div>'
    yield tiles([(shown, what) for what, shown in _tiles(facts, summary)])
    if facts.errors:
        yield "<h2>Errors</h2>"
        rows = [[code, count, f"{count / facts.posts:.2%}"] for code, count in facts.errors.most_common()]
        yield html_table(["a post's first error", "posts", "share"], rows)
    yield "<h2>Answers</h2>"
    yield '<p class="sub">Shares of the posts that have an answer; point at a bar for its count.</p>'
    yield f'<div class="grid">{"".join(map(_panel, facts.columns))}</div>'
    numbers = [column for column in facts.columns if column.is_number and column.answered]
    if numbers:
        yield "<h2>Most extreme posts</h2>"
        yield "".join(_extremes(column) for column in numbers)


def _tiles(facts: Facts, summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "posts", f"{facts.posts:,}"
    yield "with an error", f"{facts.failed:,}"
    yield "cut at the model's limit", f"{facts.truncated:,}"
    if summary.get("repeated"):
        yield "answered by an equal text", f"{summary['repeated']:,}"
    if summary.get("posts_per_second"):
        yield "posts a second", f"{summary['posts_per_second']:,.1f}"
    if summary.get("seconds"):
        yield "last run", left_in_words(summary["seconds"])
    if summary.get("padding"):
        yield "padding", f"{summary['padding']:.0%}"


def _panel(column: Column) -> str:
    labels, counts = _answers(column)
    series = [_series(column.name, counts, column.answered)]
    answers = columns(labels, series) if column.is_number else bars(labels, series, width=300, label_width=118)
    mean = f", mean {column.total / column.answered:.3f}" if column.answered and column.task.low is not None else ""
    edges = [f"{i / CONFIDENCE_BINS:.1f}" for i in range(CONFIDENCE_BINS)]
    return (
        f'<div class="panel"><h3>{escape(column.name)} <span>{column.answered:,}{mean}</span></h3>'
        f"{answers}<p>confidence</p>"
        f"{columns(edges, [_series('confidence', column.confidence.tolist(), column.answered)], height=44)}</div>"
    )


def _answers(column: Column) -> tuple[list[str], list[int]]:
    task = column.task
    match task.kind:
        case Kind.REGRESSION:
            assert task.low is not None and task.high is not None
            step = (task.high - task.low) / VALUE_BINS
            # Every fourth edge: twenty labels would run into each other.
            labels = [f"{task.low + i * step:.3g}" if i % 4 == 0 else "" for i in range(VALUE_BINS)]
            return labels, [column.counts[str(i)] for i in range(VALUE_BINS)]
        case Kind.ORDINAL:
            return list(task.answer_names), [column.counts[name] for name in task.answer_names]
        case _:
            known = [*task.labels, ""] if task.kind is Kind.LABEL_SET else list(task.labels)
            known.sort(key=lambda label: -column.counts[label])
            return [label or task.no_label or "none" for label in known], [column.counts[label] for label in known]


def _series(name: str, counts: Sequence[int], total: int) -> Series:
    shares = [n / total if total else 0.0 for n in counts]
    return Series(name, shares, [f"{n:,} ({share:.1%})" for n, share in zip(counts, shares, strict=True)])


def _extremes(column: Column) -> str:
    def rows(posts: Sequence[Extreme]) -> str:
        return "".join(
            f'<tr><td class="n">{post.value:.3g}</td><td class="n">{post.confidence:.2f}</td>'
            f'<td class="post" dir="auto">{escape(post.text)}</td><td>{escape(post.id)}</td></tr>'
            for post in posts
        )

    head = '<tr><th class="n">value</th><th class="n">confidence</th><th>post</th><th>id</th></tr>'
    return (
        f"<details><summary>{escape(column.name)}</summary>"
        f'<div class="scroll"><p class="sub">Highest</p><table>{head}{rows(column.highest)}</table>'
        f'<p class="sub">Lowest</p><table>{head}{rows(column.lowest)}</table></div></details>'
    )
