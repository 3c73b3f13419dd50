"""One polarity a text, -1 to 1, as the answer to every task of valence.

VADER and TextBlob know nothing else; a word list with positive and negative words knows it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from emollm.core.answers import from_unit
from emollm.core.errors import ConfigError
from emollm.core.tasks import Kind, Task, Value
from emollm.metrics.predictions import Prediction
from emollm.metrics.questions import GoldQuestion

Polarity = Callable[[str], float]

VALENCE = frozenset(
    ("V-reg", "V-oc", "SST", "SST5", "TDT", "EmoBank-V", "VADER-Amazon", "VADER-Movie", "VADER-NYT", "VADER-Tweets")
)
NEUTRAL = 0.05
"""VADER's own bound: a compound score between -.05 and .05 is neutral (github.com/cjhutto/vaderSentiment)."""


def vader_polarity() -> Polarity:
    """VADER's compound score. Raises ConfigError if the package is missing."""
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise _missing("vaderSentiment") from None
    analyzer = SentimentIntensityAnalyzer()
    return lambda text: float(analyzer.polarity_scores(text)["compound"])


def textblob_polarity() -> Polarity:
    """TextBlob's polarity, by its default analyzer. Raises ConfigError if the package is missing."""
    try:
        from textblob import TextBlob
    except ImportError:
        raise _missing("textblob") from None
    return lambda text: float(TextBlob(text).sentiment.polarity)


def predict_polarity(polarity: Polarity, questions: Sequence[GoldQuestion]) -> list[Prediction]:
    """Answers to the questions of valence; the others are left out."""
    cached = cache(polarity)
    return [
        Prediction(question=q, value=valence_value(q.task, cached(q.text))) for q in questions if q.task.name in VALENCE
    ]


def valence_value(task: Task, polarity: float) -> Value:
    """Polarity as a value of a task of valence: numbers scaled, three classes at `NEUTRAL`, others as equal bins."""
    unit = (polarity + 1) / 2
    if task.kind is Kind.REGRESSION:
        return from_unit(task, unit)
    if len(task.classes) == 3:
        return task.classes[0 if polarity <= -NEUTRAL else 2 if polarity >= NEUTRAL else 1].value
    return task.classes[binned(unit, len(task.classes))].value


def binned(unit: float, count: int) -> int:
    """Which of `count` equal bins of 0..1 a number is in."""
    return min(int(unit * count), count - 1)


def _missing(package: str) -> ConfigError:
    return ConfigError(f"this baseline needs {package}; run: pip install 'emollm[baselines]'")
