"""The closed answers of a question in the four forms that servers and models need.

A regular expression and a grammar describe the answer strings of `core.answers`, which our models generate. A JSON
schema describes the value of one property: such a string, or for a label set an object that decides each label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emollm.core.answers import answer_string
from emollm.core.prompts import Question
from emollm.core.tasks import Kind, Task

_HUNDREDTHS = [f"{n / 100:.2f}" for n in range(101)]
"""A number in JSON is one of these, since servers enforce enumerations but may ignore a minimum."""


def choices(question: Question) -> list[str]:
    """The answer strings of an ordinal or a single label, in the task's order; empty for other kinds."""
    task = question.task
    if task.kind not in (Kind.ORDINAL, Kind.SINGLE_LABEL):
        return []
    return [answer_string(task, value, question.emotion) for value in task.answer_values]


def pattern(question: Question) -> str:
    """A regular expression that matches exactly the answers."""
    task = question.task
    match task.kind:
        case Kind.REGRESSION:
            return r"(0(\.[0-9]{1,3})?|1(\.0{1,3})?)"
        case Kind.LABEL_SET:
            return f"({'|'.join(_sets(task, _escaped, '({})?'))})"
        case _:
            return f"({'|'.join(map(_escaped, choices(question)))})"


def grammar(question: Question) -> str:
    """The same as a GBNF grammar (llama.cpp)."""
    task = question.task
    match task.kind:
        case Kind.REGRESSION:
            return 'root ::= "0" ("." [0-9] [0-9]? [0-9]?)? | "1" ("." "0" "0"? "0"?)?'
        case Kind.LABEL_SET:
            return f"root ::= {' | '.join(_sets(task, _quoted, '({})?'))}"
        case _:
            return f"root ::= {' | '.join(map(_quoted, choices(question)))}"


def _sets(task: Task, write: Any, optional: str) -> list[str]:
    """One alternative per first label, followed by any later ones, and one for no label."""
    found = []
    for i, label in enumerate(task.labels):
        later = [optional.format(write(f", {other}")) for other in task.labels[i + 1 :]]
        end = [write(task.answer_end)] if task.answer_end else []
        found.append(
            " ".join([write(label), *later, *end]) if write is _quoted else "".join([write(label), *later, *end])
        )
    return [*found, write(answer_string(task, ()))]


def schema(question: Question) -> dict[str, Any]:
    """The schema of a JSON property with the answer."""
    task = question.task
    match task.kind:
        case Kind.REGRESSION:
            return {"type": "string", "enum": _HUNDREDTHS}
        case Kind.LABEL_SET:
            return json_object({label: {"type": "boolean"} for label in task.labels})
        case _:
            return {"type": "string", "enum": choices(question)}


def json_object(properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object with exactly these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def longest(question: Question, *, as_json: bool) -> int:
    """Characters of the longest answer, an upper bound of its tokens."""
    task = question.task
    if task.kind is Kind.REGRESSION:
        return 5
    if task.kind is Kind.LABEL_SET:
        return sum(len(label) + (12 if as_json else 2) for label in task.labels) + len(str(task.no_label))
    return max(map(len, choices(question)))


def in_words(question: Question) -> str:
    """The format of an answer string in words, for a model that was not trained on it."""
    task = question.task
    match task.kind:
        case Kind.REGRESSION:
            return "one decimal number between 0 and 1, at most three places"
        case Kind.ORDINAL:
            return f"one class as it is listed, number first, such as: {choices(question)[-1]}"
        case Kind.SINGLE_LABEL:
            return f"one of these labels: {', '.join(task.labels)}"
        case Kind.LABEL_SET:
            return (
                f"labels out of this list, comma-separated: {', '.join(task.labels)}. Where none fits: {task.no_label}"
            )


def json_in_words(question: Question) -> str:
    """The same for the value of a JSON property."""
    task = question.task
    match task.kind:
        case Kind.REGRESSION:
            return 'a number between "0.00" and "1.00" with two places, in quotes'
        case Kind.LABEL_SET:
            return f"an object with true or false for each of: {', '.join(task.labels)}"
        case _:
            return f"one of: {', '.join(map(_quoted, choices(question)))}"


def _escaped(text: str) -> str:
    # Not re.escape: it escapes blanks too, which the regex engines of some servers refuse.
    return "".join(f"\\{c}" if c in r"\.^$*+?{}[]()|" else c for c in text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def structured(kind: str, questions: Sequence[Question], names: Sequence[str]) -> dict[str, Any]:
    """The request options that enforce the answer's format with this kind of structured output (see `detect`).

    `names` are the properties of the questions' answers in a JSON reply; the other kinds have one question.
    """
    match kind:
        case "structured_outputs":
            return {"structured_outputs": {"regex": pattern(questions[0])}}
        case "guided":
            return {"guided_regex": pattern(questions[0])}
        case "regex":
            return {"regex": pattern(questions[0])}
        case "grammar":
            return {"grammar": grammar(questions[0])}
        case "json_schema":
            whole = json_object({name: schema(q) for name, q in zip(names, questions, strict=True)})
            named = {"name": "answers", "strict": True, "schema": whole}
            return {"response_format": {"type": "json_schema", "json_schema": named}}
        case _:
            return {}
