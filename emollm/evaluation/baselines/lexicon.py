"""A user's own emotion word list, in the form of the NRC Word-Emotion Association Lexicon (Mohammad and Turney, 2013).

A line a word and emotion, `word <tab> emotion <tab> 0 or 1`; or JSON, `{"word": ["anger", ...]}`. No list is part of
this project or of its extras: the terms of the NRC lexicon allow research and forbid passing it on, and a Python
package that holds a copy cannot give another licence than its makers did.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from emollm.core.answers import from_unit
from emollm.core.errors import DataError
from emollm.core.tasks import Kind, Value
from emollm.evaluation.baselines.polarity import VALENCE, binned, valence_value
from emollm.metrics.predictions import Prediction
from emollm.metrics.questions import GoldQuestion

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_FULL = 0.25
"""A text in which a quarter of the words carry an emotion has it to the full; it sets a level and no order."""


def read_lexicon(path: Path) -> dict[str, frozenset[str]]:
    """Emotions by word; raises DataError for a file of another form."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"lexicon {path} cannot be read: {error}") from None
    words: dict[str, set[str]] = {}
    if path.suffix == ".json":
        try:
            found = json.loads(text)
            words = {str(word).lower(): set(map(str, emotions)) for word, emotions in found.items()}
        except (ValueError, AttributeError, TypeError):
            raise DataError(f"lexicon {path}: expected an object of lists, word by word") from None
    else:
        for line, raw in enumerate(text.splitlines(), start=1):
            cells = raw.split("\t")
            if not raw.strip():
                continue
            if len(cells) != 3 or cells[2].strip() not in ("0", "1"):
                raise DataError(f"lexicon {path}:{line}: {raw[:60]!r} is not `word <tab> emotion <tab> 0 or 1`")
            if cells[2].strip() == "1":
                words.setdefault(cells[0].lower(), set()).add(cells[1])
    if not words:
        raise DataError(f"lexicon {path} holds no word")
    return {word: frozenset(emotions) for word, emotions in words.items()}


def predict_lexicon(lexicon: Mapping[str, frozenset[str]], questions: Sequence[GoldQuestion]) -> list[Prediction]:
    """Answers from the emotions of the words: shares for intensities, presence for label sets, polarity for valence.

    Questions on emotions that the lexicon does not have are left out.
    """
    emotions = frozenset[str]().union(*lexicon.values())

    @cache
    def shares(text: str) -> Counter[str]:
        tokens = _WORD.findall(text.lower())
        counts = Counter(emotion for token in tokens for emotion in lexicon.get(token, ()))
        return Counter({emotion: count / len(tokens) for emotion, count in counts.items()})

    found = []
    for question in questions:
        value = _value(question, shares(question.text), emotions)
        if value is not None:
            found.append(Prediction(question=question, value=value))
    return found


def _value(question: GoldQuestion, shares: Mapping[str, float], emotions: frozenset[str]) -> Value | None:
    task = question.task
    if question.emotion in emotions:
        unit = min(shares[question.emotion] / _FULL, 1.0)
        if task.kind is Kind.REGRESSION:
            return from_unit(task, unit)
        return task.classes[binned(unit, len(task.classes))].value if task.kind is Kind.ORDINAL else None
    if task.kind is Kind.LABEL_SET and emotions & set(task.labels):
        named = tuple(label for label in task.labels if shares[label] > 0)
        return named or (("neutral",) if "neutral" in task.labels else ())
    if task.name in VALENCE and {"positive", "negative"} <= emotions:
        good, bad = shares["positive"], shares["negative"]
        return valence_value(task, (good - bad) / (good + bad) if good + bad else 0.0)
    return None
