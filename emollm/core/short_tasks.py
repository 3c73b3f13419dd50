"""A short description of a task, as users write it, to a whole Task: what it leaves out has a default by kind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from emollm.core.errors import ConfigError
from emollm.core.tasks import TASKS, Kind, Task, fold_name

# `{title}` and `{no_label}` are filled in here; `{classes}` and `{labels}` when a prompt is made, as in tasks.toml.
_TEMPLATES = {
    (Kind.REGRESSION, False): (
        "Rate the text for {title} with a number from 0 (lowest) to 1 (highest).",
        "Give the text a score for {title}: 0 for the least, 1 for the most.",
        "Which number between 0 (least) and 1 (most) fits the text when it is judged for {title}?",
    ),
    (Kind.REGRESSION, True): (
        "Say how strongly the writer of the text feels emotion E, from 0 (not at all) to 1 (as strongly as can be).",
        "Score emotion E in the text: 0 if it is absent, 1 if it could not be stronger.",
        "Which number between 0 and 1 fits the strength of emotion E in the text?",
    ),
    (Kind.ORDINAL, False): (
        "Choose the class of {title} that fits the text. {classes}",
        "Sort the text by {title}. {classes}",
        "Which level of {title} does the text show? {classes}",
    ),
    (Kind.ORDINAL, True): (
        "Choose the class that says how much of emotion E the writer of the text feels. {classes}",
        "Sort the text by the strength of emotion E in it. {classes}",
        "Which level of emotion E does the text show? {classes}",
    ),
    (Kind.SINGLE_LABEL, False): (
        "Choose the one label for {title} that fits the text, out of {labels}.",
        "Which of these fits the text best as its {title}: {labels}?",
        "Sort the text by {title} into one of {labels}.",
    ),
    (Kind.LABEL_SET, False): (
        "Name every label for {title} that fits the text, out of {labels}; say '{no_label}' if none does.",
        "Which of these fit the text as its {title}: {labels}? Answer '{no_label}' if none fits.",
        "Mark the text with all fitting labels for {title} from {labels}, or with '{no_label}'.",
    ),
}

_QUESTIONS = {
    Kind.REGRESSION: "Score: ",
    Kind.ORDINAL: "Class: ",
    Kind.SINGLE_LABEL: "Label: ",
    Kind.LABEL_SET: "Labels: ",
}
_METRICS = {
    Kind.REGRESSION: "pearson",
    Kind.ORDINAL: "pearson",
    Kind.SINGLE_LABEL: "accuracy",
    Kind.LABEL_SET: "jaccard",
}


def complete_task(entry: Mapping[str, Any], columns: Mapping[str, str]) -> Task:
    """The Task of a `[[task]]`, with defaults for what it leaves out.

    A name alone is a task of emollm's own. Raises ConfigError, or pydantic's ValidationError, which names the
    field.
    """
    name = str(entry.get("name", ""))
    if set(entry) == {"name"} and name in TASKS:
        return TASKS[name]
    if name in TASKS:
        raise ConfigError(f"{name!r} is a task of emollm; leave the rest out to label for it, or choose another name")
    if ours := next((task for task in TASKS if fold_name(task) == fold_name(name)), None):
        raise ConfigError(f"name {name!r} gives the column of {ours}, a task of emollm; choose another name")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ConfigError(f"name {name!r}: use letters, digits, - and _ only; answers are columns of that name")
    try:
        kind = Kind(entry.get("kind", ""))
    except ValueError:
        raise ConfigError(f"kind {entry.get('kind')!r}; choose from: {', '.join(Kind)}") from None
    task: dict[str, Any] = {
        "title": name.replace("-", " ").replace("_", " ").lower(),
        "source": "own labels",
        "metric": _METRICS[kind],
        "text_name": "Text",
        "full_stop": False,
        "question": _QUESTIONS[kind],
        **entry,
    }
    if kind is Kind.LABEL_SET:
        task = {"no_label": "none", "labels": list(columns), **task}
    elif columns:
        task = {"emotions": list(columns), **task}
    if kind is Kind.ORDINAL and all(isinstance(c, str) for c in task.get("classes", ())):
        task["classes"] = [{"value": i, "phrase": phrase} for i, phrase in enumerate(task.get("classes", ()))]
    if "templates" not in task:
        wordings = _TEMPLATES.get((kind, bool(task.get("emotions"))))
        if wordings is None:
            raise ConfigError(f"a task of kind {kind} with emotions has no wording of ours; give `templates`")
        fill = {"{title}": task["title"], "{no_label}": task.get("no_label") or ""}
        task["templates"] = [_fill(wording, fill) for wording in wordings]
    return Task.model_validate(task)


def _fill(wording: str, words: Mapping[str, str]) -> str:
    for slot, word in words.items():
        wording = wording.replace(slot, str(word))
    return wording
