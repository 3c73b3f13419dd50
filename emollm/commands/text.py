"""Show the affect of a text in the terminal: emollm text "what a day :)" """

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from emollm.core.english import looks_english
from emollm.core.errors import DataError
from emollm.core.options import read_config
from emollm.scoring.options import ExtrasConfig

if TYPE_CHECKING:
    from emollm.core.answers import Answer
    from emollm.core.prompts import Question

_BAR = 30
_TASKS = ("V-reg", "E-c")
_LIKELY = 0.15
"""Labels outside the answer are shown, dimmed, from this probability on."""


class TextConfig(ExtrasConfig):
    """Show the affect of one text, or without a text of every line of the standard input."""

    text: str | None = None
    """The text, in quotes. If it begins with a dash: --text=-_-"""
    tasks: tuple[str, ...] | None = None
    """Tasks to ask, or a .toml file of tasks of your own. None: intensities in any post (else EI-reg), V-reg and E-c
    where the model knows them, else all."""
    labels: tuple[str, ...] = ()
    """Labels of your own, joined by commas: which of them fits? The model need not know them; docs/ask.md."""
    context: str = ""
    """What comes before the text, such as the post that it answers."""
    target: str = ""
    """The name or aspect that is asked about."""
    format: Literal["picture", "json"] = "picture"
    """picture: bars. json: one JSON object per text and line; --json for short."""


def main(argv: Sequence[str]) -> None:
    words = ["--format=json" if word == "--json" else word for word in argv]
    config = read_config(TextConfig, words, prog="text", bare=("text",))
    texts = [config.text] if config.text is not None else _lines()

    from emollm.core.ask import asked_tasks
    from emollm.core.ask import labels as labels_task
    from emollm.core.prompts import Question, questions_for
    from emollm.core.tasks import ANY_POST, select_tasks
    from emollm.scoring.explain import explain
    from emollm.scoring.extras import Extras
    from emollm.scoring.open import open_scorer
    from emollm.scoring.scorer import prepare

    scorer = open_scorer(config.model, **config.scorer_options())
    known = [task.name for task in scorer.card.tasks]
    own = [labels_task(*config.labels)] if config.labels else []
    intensity = ANY_POST if ANY_POST in known else "EI-reg"
    usual = [name for name in (intensity, *_TASKS) if name in known] or known
    named = config.tasks or ([] if own else usual)
    chosen = select_tasks([*asked_tasks(named), *own], scorer.card.tasks)
    prepare(scorer, chosen)
    asked = questions_for("", chosen)
    extras = Extras.of(scorer.card, getattr(scorer, "engine", "auto"), chosen, **config.asked_extras())
    if extras.never:
        print(extras.never_line(config.abstain), file=sys.stderr)
    for text in texts:
        questions = [Question(q.task, text, q.emotion, config.context, config.target) for q in asked]
        answers = scorer.score(questions)
        if config.explain:
            effects = explain(scorer, [text], asked, beside=[(config.context or "", config.target or "")])[0]
            answers = [replace(answer, words=mine) for answer, mine in zip(answers, effects, strict=True)]
        beside: dict[str, Any] = {}
        for i, question in enumerate(asked):
            (value,), found = extras.beside(question, answers[i : i + 1])
            answers[i] = replace(answers[i], value=value)
            beside |= {name: each[0] for name, each in found.items()}
        if config.format == "json":
            print(json.dumps({"text": text, **_values(questions, answers), **beside}, ensure_ascii=False))
        else:
            _print(text, questions, answers, beside)


def _lines() -> Iterable[str]:
    if sys.stdin.isatty():
        raise DataError('no text given; for example: emollm text "what a day :)"')
    return (line.rstrip("\r\n") for line in sys.stdin if line.strip())


def _values(questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, Any]:
    from emollm.core.prompts import column_name

    found: dict[str, Any] = {}
    for question, answer in zip(questions, answers, strict=True):
        name = column_name(question)
        found[name] = answer.value
        if answer.confidence is not None:
            found[f"{name}_confidence"] = round(answer.confidence, 4)
        if answer.probabilities and question.task.labels:
            found[f"{name}_probabilities"] = {k: round(p, 4) for k, p in answer.probabilities.items()}
        if answer.way:
            found |= {f"{name}_way": answer.way, f"{name}_valid_mass": answer.valid_mass}
        if answer.error:
            found["error"] = answer.error
    if notes := list(dict.fromkeys(note for answer in answers for note in answer.notes)):
        found["notes"] = notes
    return found | {
        "truncated": any(answer.truncated for answer in answers),
        "not_english": not looks_english(questions[0].text),
    }


def _print(text: str, questions: Sequence[Question], answers: Sequence[Answer], beside: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from emollm.core.answers import to_unit
    from emollm.core.prompts import column_name

    table = Table.grid(padding=(0, 2))
    for question, answer in zip(questions, answers, strict=True):
        task, name = question.task, question.emotion or _title(question.task.name)
        if answer.error:
            table.add_row(name, Text(answer.error, style="red"))
        elif answer.value is None:
            table.add_row(
                name, Text(f"too uncertain; best guess {_told(beside[f'{column_name(question)}_best'])}", "dim")
            )
        elif task.low is not None and task.high is not None:
            assert isinstance(answer.value, float | int)
            share = to_unit(task, answer.value)
            spread = "" if answer.std is None else f"± {answer.std:.2f}"
            table.add_row(name, _bar(share, _colour(name, share)), f"{answer.value:.2f}", Text(spread, style="dim"))
        else:
            table.add_row(name, _labels(answer))
        for line in _beside_lines(column_name(question), beside):
            table.add_row("", Text(line, style="dim"))
    console = Console(highlight=False)
    console.print(Text(text, style="bold"))
    if not looks_english(text):
        console.print(Text("this seems not to be English, which is all that the bundled models learnt", style="yellow"))
    console.print(table)
    ways = dict.fromkeys(a.way for a in answers if a.way)
    for said in (*(f"answered as {way}" for way in ways), *dict.fromkeys(note for a in answers for note in a.notes)):
        console.print(Text(said.replace("_", " "), style="dim"))
    console.print()


def _beside_lines(name: str, beside: Mapping[str, Any]) -> Iterable[str]:
    """The requested additions to an answer, in words."""
    if f"{name}_second" in beside:
        yield f"second answer: {_told(beside[f'{name}_second'])}"
    if f"{name}_set" in beside:
        yield f"may be: {_told(beside[f'{name}_set'])}"
    if beside.get(f"{name}_low") is not None:
        yield f"between {beside[f'{name}_low']:.2f} and {beside[f'{name}_high']:.2f}"
    by_label: dict[str | None, list[str]] = {}
    for word in beside.get(f"{name}_words") or ():
        by_label.setdefault(word["about"], []).append(f"{word['word']} {word['effect']:+.2f}")
    for about, words in by_label.items():
        yield f"{f'{about}: ' if about else ''}{', '.join(words)}"


def _told(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _title(task: str) -> str:
    return {"V-reg": "valence", "V-oc": "valence", "E-c": "emotions"}.get(task, task)


def _colour(name: str, share: float) -> str:
    if name == "valence":
        return "green" if share > 0.57 else "red" if share < 0.43 else "yellow"
    return {"anger": "red", "fear": "magenta", "joy": "green", "sadness": "blue"}.get(name, "cyan")


def _bar(share: float, colour: str) -> Any:
    from rich.text import Text

    filled = round(min(1.0, max(0.0, share)) * _BAR)
    return Text.assemble(("━" * filled, colour), ("·" * (_BAR - filled), "dim"))


def _labels(answer: Answer) -> Any:
    """The answered labels with their probabilities, then, dimmed, other likely labels."""
    from rich.text import Text

    chosen = [str(v) for v in answer.value] if isinstance(answer.value, tuple) else [str(answer.value)]
    likely = answer.probabilities or {}

    def told(label: str) -> str:
        return f"{label} {likely[label]:.0%}" if label in likely else label

    rest = sorted((k for k, p in likely.items() if p >= _LIKELY and k not in chosen), key=lambda k: -likely[k])
    parts: list[Any] = [", ".join(map(told, chosen)) or "none"]
    if rest:
        parts.append((f"   perhaps {', '.join(map(told, rest))}", "dim"))
    return Text.assemble(*parts)
