"""report.html: one self-contained page. Everything that came from data, names and texts included, is escaped.

It shows texts of the rows (the worst mistakes): whoever may not show the corpus may not show the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from emollm.core.tasks import Kind, Task
from emollm.evaluation.measured import Evaluation, Measured
from emollm.evaluation.options import EvaluateConfig
from emollm.evaluation.published import SOURCE
from emollm.evaluation.report.facts import cost_table, invalid_answers, invalid_table, mistakes, notes
from emollm.evaluation.report.main_table import DERIVED, Cell, Line, main_columns, main_table
from emollm.evaluation.report.terminal import format_score
from emollm.metrics.predictions import PREDICTIONS_FILE, Prediction
from emollm.metrics.reliability import Reliability
from emollm.metrics.scores import TaskResult, resolve_invalid, split_tasks
from emollm.reports import charts
from emollm.reports.page import html_page, html_table, tiles
from emollm.reports.page import notes as notes_box

_STYLE = """
main { max-width: 1360px; }
table.heat td, table.heat th { padding: 3px 5px; font-size: 12.5px; text-align: center; position: relative; }
table.heat th { white-space: normal; vertical-align: bottom; max-width: 74px; line-height: 1.2; font-size: 11.5px; }
table.heat td:first-child, table.heat th:first-child { text-align: left; position: sticky; left: 0; z-index: 1;
  background: var(--panel); white-space: nowrap; max-width: 230px; overflow: hidden; text-overflow: ellipsis; }
table.heat tr.first td { border-top: 2px solid var(--soft); }
table.heat tr.main td:first-child { font-weight: 600; }
table.heat .best { font-weight: 700; }
table.heat .best::after { content: "\\2022"; color: var(--s1); margin-left: 2px; }
table.heat small { display: block; color: var(--soft); font-size: 10px; white-space: nowrap; font-weight: 400; }
table.heat i { position: absolute; inset: 1px; background: var(--s0); z-index: 0; border-radius: 3px; }
table.heat b { position: relative; font-weight: inherit; font-variant-numeric: tabular-nums; }
table.text td { white-space: normal; max-width: 520px; vertical-align: top; overflow-wrap: anywhere; }
svg .diagonal { stroke: var(--soft); stroke-dasharray: 3 3; }
svg .curve { fill: none; stroke: var(--s0); stroke-width: 1.6; }
svg .cell { text-anchor: middle; fill: var(--ink); }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--soft); }
.grid.plots { grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); }
"""


def page(config: EvaluateConfig, evaluation: Evaluation) -> str:
    title = f"{evaluation.measured[0].system.name}, measured"
    return html_page(title, "\n".join(_body(title, config, evaluation)), style=_STYLE)


def _body(title: str, config: EvaluateConfig, evaluation: Evaluation) -> Iterator[str]:
    main = evaluation.measured[0]
    yield f"<h1>{escape(title)}</h1>"
    yield f'<div class="sub">{escape(_subtitle(evaluation))}</div>'
    yield tiles(_figures(evaluation))
    yield notes_box("Read this with the table", notes(config, evaluation))
    yield "<h2>Systems and tasks</h2>"
    yield (
        '<p class="sub">The stronger the colour, the nearer to the best of the column. A dot: the best measured, and '
        "the best quoted. Small: 95% interval.</p>"
    )
    columns = main_columns(evaluation.tasks)
    yield _heat(main_table(evaluation, columns), [column.title for column in columns], columns)
    yield "<h2>Tasks</h2>"
    yield from _tasks(evaluation)
    yield f"<h2>Gold and predicted: {escape(main.system.name)}</h2>"
    yield '<p class="sub">Invalid answers counted as set by --invalid; those left out are not drawn.</p>'
    yield from _pictures(config, main)
    if main.reliability:
        yield "<h2>Can its confidence be believed?</h2>"
        yield from _reliability(config, main)
    header, rows = invalid_table(evaluation)
    yield "<h2>Invalid answers</h2>"
    yield html_table(header, rows) if rows else '<p class="sub">None: every answer is a value of its task.</p>'
    for measured in evaluation.measured:
        if bad := invalid_answers(measured):
            count = sum(sum(result.errors.values()) for result in measured.results)
            part = (
                f"{count:,}" if count == len(bad) else f"the first {len(bad)} of {count:,}, all in {PREDICTIONS_FILE}"
            )
            yield f"<details><summary>{escape(measured.system.name)}: {part}</summary>"
            yield _text_table(["task", "reason", "what was written"], bad) + "</details>"
    yield f"<h2>Worst mistakes: {escape(main.system.name)}</h2>"
    yield _text_table(["task", "text", "gold", "predicted", "confidence"], mistakes(main))
    yield "<h2>Cost</h2>"
    yield html_table(*cost_table(evaluation))
    yield "<h2>Sources</h2>"
    yield _sources(evaluation)


def _subtitle(evaluation: Evaluation) -> str:
    named = ", ".join(m.system.name for m in evaluation.measured[1:])
    return f"Measured beside {named}" if named else "Measured alone"


def _figures(evaluation: Evaluation) -> list[tuple[str, str]]:
    main = evaluation.measured[0]
    rows = sum(result.rows for result in main.results)
    valid = sum(result.rows * result.valid for result in main.results) / rows
    facts = main.system.facts
    figures = [(f"{len(main.results)}", "tasks"), (f"{rows:,}", "questions"), (f"{valid:.1%}", "valid answers")]
    if facts.get("questions_per_s"):
        figures.append((f"{facts['questions_per_s']:,.0f}", "questions a second"))
    if facts.get("bytes"):
        figures.append((f"{facts['bytes'] / 1e6:,.1f} MB", "model directory"))
    return figures


def _heat(lines: Sequence[Line], titles: Sequence[str], columns: Sequence[Any]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in ["", *titles])
    body = []
    role = None
    for i, line in enumerate(lines):
        kind = "main" if i == 0 else ""
        if role is not None and line.role != role:
            kind += " first"
        role = line.role
        name = f"{escape(line.name)} <small>quoted</small>" if line.role == "quoted" else escape(line.name)
        cells = "".join(_heat_cell(line.cells.get(column)) for column in columns)
        body.append(f'<tr class="{kind.strip()}"><td title="{escape(line.name)}">{name}</td>{cells}</tr>')
    return f'<div class="scroll"><table class="heat"><tr>{head}</tr>{"".join(body)}</table></div>'


def _heat_cell(cell: Cell | None) -> str:
    if cell is None:
        return "<td></td>"
    interval = (
        f"<small>{format_score(cell.interval.low)}\N{EN DASH}{format_score(cell.interval.high)}</small>"
        if cell.interval
        else ""
    )
    # Squared: the upper half of a column is where the differences are of interest.
    shade = f'<i style="opacity:{0.45 * cell.shade**2:.2f}"></i>'
    best = " class=best" if cell.best else ""
    return f"<td{_rows(cell)}>{shade}<b{best}>{cell.shown}</b><b>{interval}</b></td>"


def _rows(cell: Cell) -> str:
    return "" if cell.rows is None else f' title="{cell.rows:,} rows"'


def _tasks(evaluation: Evaluation) -> Iterator[str]:
    for task in evaluation.tasks:
        found = [(m, r) for m in evaluation.measured for r in m.results if r.task == task.name]
        metrics = list(dict.fromkeys(name for _, result in found for name in result.scores))
        emotions = list(dict.fromkeys(e for _, result in found for e in result.by_emotion))
        rows = [
            [
                measured.system.name + (DERIVED if task.name in measured.system.facts.get("derived", ()) else ""),
                f"{result.rows:,}",
                f"{result.valid:.1%}",
                *(_with_interval(result, name) for name in metrics),
                *(format_score(result.by_emotion[e]) if e in result.by_emotion else "" for e in emotions),
            ]
            for measured, result in found
        ]
        where = evaluation.rows_from.get(task.name, "")
        yield f"<details><summary>{escape(task.name)}: {escape(task.title.lower())} ({escape(where)})</summary>"
        header = ["system", "rows", "valid", *metrics, *(f"{metrics[0]}, {e}" for e in emotions)]
        yield html_table(header, rows)
        yield f'<p class="sub">{escape(task.source)}</p></details>'


def _with_interval(result: TaskResult, name: str) -> str:
    interval = result.intervals.get(name)
    shown = format_score(result.scores[name])
    return f"{shown} ({format_score(interval.low)} to {format_score(interval.high)})" if interval else shown


def _pictures(config: EvaluateConfig, main: Measured) -> Iterator[str]:
    panels, tables = [], []
    for predictions in split_tasks(main.system.predictions).values():
        task = predictions[0].question.task
        pairs = [(p.question.gold, v) for p in predictions if (v := resolve_invalid(p, config.invalid)) is not None]
        gold: list[Any] = [g for g, _ in pairs]
        predicted: list[Any] = [v for _, v in pairs]
        if task.kind is Kind.REGRESSION:
            assert task.low is not None and task.high is not None
            panels.append(_panel(task.name, len(pairs), charts.scatter(gold, predicted, low=task.low, high=task.high)))
        elif task.kind is Kind.ORDINAL:
            classes = [c.value for c in task.classes]
            panels.append(_panel(task.name, len(pairs), charts.confusion(gold, predicted, classes)))
        else:
            tables.append(_label_table(task, predictions))
    if panels:
        yield f'<div class="grid plots">{"".join(panels)}</div>'
    yield from tables


def _label_table(task: Task, predictions: Sequence[Prediction]) -> str:
    """Hits, wrong and missed of each label, with its F1."""
    rows: list[list[object]] = []
    for label in task.labels:
        pairs = [(label in _labels(p.question.gold), label in _labels(p.value)) for p in predictions]
        hits, wrong, missed = (pairs.count(pair) for pair in ((True, True), (False, True), (True, False)))
        f1 = 2 * hits / (2 * hits + wrong + missed) if hits else 0.0
        rows.append([label, hits + missed, hits + wrong, hits, wrong, missed, format_score(f1)])
    header = ["label", "gold", "predicted", "right", "wrong", "missed", "F1"]
    return f"<h3>{escape(task.name)}</h3>{html_table(header, rows)}"


def _labels(value: Any) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (value,) if isinstance(value, str) else ()


def _reliability(config: EvaluateConfig, main: Measured) -> Iterator[str]:
    yield (
        '<p class="sub">A point is a tenth of the probabilities, the larger the more of them; on the diagonal they '
        "come true as often as they say. Events are answers, of label sets each label; a number is right within a "
        "tenth of its range.</p>"
    )
    panels = [_panel(name, found.events, charts.reliability(found.bins)) for name, found in main.reliability.items()]
    panels += [
        _panel(f"{name}, risk", found.events, charts.risk(found.risk))
        for name, found in main.reliability.items()
        if found.risk
    ]
    yield f'<div class="grid plots">{"".join(panels)}</div><br>'
    header = [
        "task",
        "events",
        "ECE",
        "Brier",
        "risk area",
        f"{config.right_share:.0%} right above",
        "kept",
    ]
    header += ["50% interval holds", "80%", "90%", "95%"]
    yield html_table(header, [_reliability_row(name, found) for name, found in main.reliability.items()])


def _reliability_row(name: str, found: Reliability) -> list[object]:
    return [
        name,
        f"{found.events:,}",
        format_score(found.ece),
        format_score(found.brier),
        "" if found.risk_area is None else format_score(found.risk_area),
        f"{found.abstain.threshold:.2f}" if found.abstain else "not reached",
        f"{found.abstain.coverage:.0%}" if found.abstain else "",
        *(f"{share:.0%}" for share in found.coverage.values()),
        *([""] * (4 - len(found.coverage))),
    ]


def _panel(name: str, count: int, picture: str) -> str:
    return f'<div class="panel"><h3>{escape(name)} <span>{count:,}</span></h3>{picture}</div>'


def _text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return html_table(header, rows).replace("<table>", '<table class="text">')


def _sources(evaluation: Evaluation) -> str:
    items = [f"{task.name}: {task.source}" for task in evaluation.tasks]
    items.append(f"Quoted: tables of {SOURCE}. All else was measured by this run; run.json tells with which versions.")
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
