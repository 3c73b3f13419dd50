"""Tasks that are given where they are asked: in Python, in a TOML file, or in a request over HTTP.

    labels("relief", "dread", "boredom")                one of them
    labels("relief", "dread", many=True)                any of them
    levels("urgency", "can wait", "soon", "now")        ordered classes, numbered from 0
    scale("stress", low=0, high=10)                     a number

Each is a `Task` like those of a model's card; its `way` says how a model that does not know it answers.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from emollm.core.errors import ConfigError
from emollm.core.short_tasks import complete_task
from emollm.core.tasks import WAYS, Kind, Task, Way, problems

About = Literal["writer", "reader"]

_FEELS = {"writer": "what the writer feels", "reader": "what a reader feels"}
_SHORT = {"many", "labels", "classes", "low", "high", "kind", "name", "title", "about", "descriptions", "way"}
_FULL = {"question", "templates", "no_label", "emotions", "text_name", "full_stop", "answer_end", "metric", "source"}


def labels(
    *names: str, name: str | None = None, many: bool = False, describe: Mapping[str, str] | None = None,
    about: About = "writer", title: str | None = None, way: Way = "auto",
) -> Task:  # fmt: skip
    """A task with these labels: one of them is the answer, or any set of them where `many`.

    `describe` gives a label the sentence that is true where it fits; else it is "The writer feels LABEL". `name` is
    that of the column; None: made of the labels. `title` says in a few words what is asked. Raises ConfigError.
    """
    entry = {"labels": list(names), "many": many, "descriptions": describe, "about": about, "way": way}
    return asked_task({**entry, "name": name, "title": title})


def levels(
    name: str, *phrases: str, describe: Sequence[str] = (), about: About = "writer", title: str | None = None,
    way: Way = "auto",
) -> Task:  # fmt: skip
    """A task with ordered classes, numbered from 0; `describe` are their sentences. Raises ConfigError."""
    entry = {"name": name, "classes": list(phrases), "descriptions": list(describe), "about": about, "way": way}
    return asked_task({**entry, "title": title})


def scale(
    name: str, *, low: float = 0.0, high: float = 1.0, describe: Sequence[str] = (), about: About = "writer",
    title: str | None = None, way: Way = "auto",
) -> Task:  # fmt: skip
    """A task with a number in [low, high]; `describe` are the sentences of its two ends. Raises ConfigError."""
    entry = {"name": name, "low": low, "high": high, "descriptions": list(describe), "about": about, "way": way}
    return asked_task({**entry, "title": title})


def asked_task(entry: Mapping[str, Any]) -> Task:
    """The task that a mapping describes, as a `[[task]]` of a TOML file or an object of a request has it.

    `labels` (with `many` for a set), `classes`, or `low` and `high` say the kind; all else has a default. Raises
    ConfigError that names the field.
    """
    given = {key: value for key, value in entry.items() if value is not None}
    many = given.pop("many", False)
    if wrong := next((key for key in ("labels", "classes") if not isinstance(given.get(key, []), list | tuple)), None):
        raise ConfigError(f"{wrong} {given[wrong]!r} is not a list")
    if unknown := sorted(set(given) - _SHORT - _FULL):
        raise ConfigError(f"unknown field {unknown[0]!r} of a task; choose from: {', '.join(sorted(_SHORT))}")
    given["kind"] = given.get("kind") or _kind(given, many=bool(many))
    given.setdefault("way", "auto")
    if given["way"] not in WAYS:
        raise ConfigError(f"way {given['way']!r}; choose from: {', '.join(WAYS)}")
    given["name"] = given.get("name") or _name_of(given.get("labels", ()))
    if given["kind"] in (Kind.SINGLE_LABEL, Kind.LABEL_SET):
        given.setdefault("title", _FEELS.get(given.get("about", "writer"), "its label"))
    if "descriptions" in given:
        given["descriptions"] = _in_order(given["descriptions"], given.get("labels", ()), given.get("about", "writer"))
        if not given["descriptions"]:
            del given["descriptions"]
    given.setdefault("source", "asked at call time")
    try:
        return complete_task(given, {})
    except ValidationError as error:
        raise ConfigError(problems(error)) from None


def asked_tasks(entries: str | Path | Task | Iterable[str | Path | Task | Mapping[str, Any]]) -> list[str | Task]:
    """Names of tasks as they are, and in place of a TOML file or a mapping the tasks that it describes.

    For what a user of this machine says; a request over HTTP names no files. Raises ConfigError.
    """
    found: list[str | Task] = []
    for entry in [entries] if isinstance(entries, str | Path | Task) else entries:
        if isinstance(entry, Mapping):
            found.append(asked_task(entry))
        elif isinstance(entry, Path) or (isinstance(entry, str) and entry.endswith(".toml")):
            found += read_asked(Path(entry))
        else:
            found.append(entry)
    return found


def read_asked(path: Path) -> list[str | Task]:
    """The tasks of a TOML file, a list `[[task]]`; one that has a name alone is that of the model's card.

    Raises ConfigError that names the file and the task.
    """
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("task")
    except OSError as error:
        raise ConfigError(f"no task file at {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a readable TOML file: {error}") from None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path} holds no [[task]]; docs/ask.md has an example")
    found: list[str | Task] = []
    for number, entry in enumerate(entries, start=1):
        try:
            found.append(str(entry["name"]) if set(entry) == {"name"} else asked_task(entry))
        except ConfigError as error:
            raise ConfigError(f"{path}, task {number} ({entry.get('name', 'unnamed')}): {error}") from None
    return found


def statements(task: Task, emotion: str | None = None) -> list[str]:
    """A sentence for each label or class, true where it fits; of a regression for its low end and its high end."""
    if task.descriptions:
        return [text.strip().removesuffix(".").strip() for text in task.descriptions]
    feels = _subject(task.about)
    match task.kind:
        case Kind.REGRESSION:
            what = emotion or task.title
            return [f"{feels} no {what} at all", f"{feels} extreme {what}"]
        case Kind.ORDINAL:
            return [f"The {emotion or task.title} is: {c.phrase.format(emotion=emotion)}" for c in task.classes]
        case _:
            return [f"{feels} {label}" for label in task.labels]


STATEMENT = "Statement"
"""The task of a model that was trained to say whether a sentence about a text is true."""


def statement_task(said: Sequence[str]) -> Task:
    """Whether each of these sentences is true of a text: yes or no."""
    return Task(
        name=STATEMENT,
        kind=Kind.SINGLE_LABEL,
        title="a sentence about the text",
        source="labels as sentences",
        metric="accuracy",
        labels=("yes", "no"),
        emotions=tuple(said),
        text_name="Text",
        full_stop=False,
        question="True? ",
        templates=("Is what E says of the text true?",),
    )


def _kind(given: Mapping[str, Any], *, many: bool) -> Kind:
    shapes = {"labels": "labels" in given, "classes": "classes" in given, "low and high": "high" in given}
    if sum(shapes.values()) != 1:
        had = " and ".join(shape for shape, is_given in shapes.items() if is_given) or "none of them"
        raise ConfigError(f"a task has either labels, or classes, or low and high; this one has {had}")
    if shapes["labels"]:
        return Kind.LABEL_SET if many else Kind.SINGLE_LABEL
    return Kind.ORDINAL if shapes["classes"] else Kind.REGRESSION


def _name_of(names: Any) -> str:
    """A column's name out of the first labels: `relief-dread-boredom`."""
    if not isinstance(names, list | tuple) or not names:
        raise ConfigError("the task has no labels, and no name that its column could have")
    words = [re.sub(r"[^a-z0-9]+", "_", str(label).lower()).strip("_")[:20] for label in names[:3]]
    return "-".join(filter(None, [*words, "etc" if len(names) > 3 else ""])) or "asked"


def _in_order(descriptions: Any, names: Sequence[str], about: str) -> list[Any]:
    """Descriptions by label in the labels' order; a list as it is. A label without one gets the usual sentence."""
    if not isinstance(descriptions, Mapping):
        return list(descriptions) if isinstance(descriptions, list | tuple) else [descriptions]
    if unknown := [label for label in descriptions if label not in names]:
        raise ConfigError(f"a description of {unknown[0]!r}, which is not among the labels: {', '.join(names)}")
    return [descriptions.get(label, f"{_subject(about)} {label}") for label in names] if descriptions else []


def _subject(about: str) -> str:
    return "A reader feels" if about == "reader" else "The writer feels"
