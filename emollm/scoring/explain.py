"""Occlusion: each word of a post is removed in turn, and the answers are compared with those to the whole post.

Zeiler and Fergus 2014; Li et al. 2016. It shows what changed this model's answer, not what the writer felt or why.
Words with the same meaning may both have a small effect, since only one is removed at a time.
All texts of a post go through the engine in one batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from emollm.core.answers import Answer, WordEffect
from emollm.core.prompts import Question
from emollm.core.tasks import Kind, Task
from emollm.scoring.arrays import ArrayScorer
from emollm.scoring.scorer import Scorer

_WORD = re.compile(r"[@#]?\w+(?:['’-]\w+)*|[^\w\s]+")
MOST_WORDS = 200
"""Of a longer post only the first words are removed in turn."""
SHOWN_WORDS = 5
"""Words per question, those with the largest effects."""
_VARIANTS_AT_ONCE = 512
_NOTHING = "…"
"""Replaces a post whose only word is removed, since no engine answers an empty text."""


def explain(
    scorer: Scorer,
    texts: Sequence[str],
    questions: Sequence[Question],
    *,
    beside: Sequence[tuple[str, str]] | None = None,
    most: int | None = SHOWN_WORDS,
) -> list[list[tuple[WordEffect, ...]]]:
    """For each text and question, the words whose removal changes the answer most, the largest effect first.

    An effect is the answer to the whole text minus that without the word: positive where the word raises it. It is of
    the value of a number, the expected class, the probability of the label given; of a label set, of each label given,
    or of the likeliest where none is. Empty where there is no answer. `beside` are the context and target of each text,
    which stay as they are. `most` None: all words.
    """
    found: list[list[tuple[WordEffect, ...]]] = []
    for first, part in _parts(texts):
        variants = [(text, *(_without(text, span) for span in words_of(text))) for text in part]
        besides = beside[first : first + len(part)] if beside else [("", "")] * len(part)
        by_question = _asked(scorer, variants, besides, questions)
        start = 0
        for text in part:
            spans = words_of(text)
            rows = slice(start, start + 1 + len(spans))
            start = rows.stop
            found.append(
                [
                    _effects(question.task, text, spans, answers[rows], most)
                    for question, answers in zip(questions, by_question, strict=True)
                ]
            )
    return found


def explained(
    scorer: Scorer,
    texts: Sequence[str],
    beside: Sequence[tuple[str, str]] | None,
    questions: Sequence[Question],
    answers: Sequence[Answer],
) -> list[Answer]:
    """The answers, those of a text together, with the words that `explain` finds."""
    words = [each for post in explain(scorer, texts, questions, beside=beside) for each in post]
    return [replace(answer, words=mine) for answer, mine in zip(answers, words, strict=True)]


def words_of(text: str) -> list[tuple[int, int]]:
    """Start and end of each word, number, name, emoji or run of punctuation."""
    return [match.span() for match in _WORD.finditer(text)][:MOST_WORDS]


def occluded(task: Task, answer: Answer, about: str | None) -> float | None:
    """The number that is compared: the probability of the label `about`, or else the value or the expected class."""
    if answer.value is None:
        return None
    if about is not None:
        given = answer.value if isinstance(answer.value, tuple) else (answer.value,)
        return answer.probabilities.get(about, float(about in given))
    if task.kind is Kind.ORDINAL and answer.probabilities:
        return sum(float(name) * p for name, p in answer.probabilities.items())
    return float(answer.value)  # type: ignore[arg-type]


def _effects(
    task: Task, text: str, spans: Sequence[tuple[int, int]], answers: Sequence[Answer], most: int | None
) -> tuple[WordEffect, ...]:
    whole, *without = answers
    found = []
    for about in _abouts(task, whole):
        base = occluded(task, whole, about)
        if base is None:
            continue
        mine = [
            WordEffect(about, base, text[start:end], start, end, base - left)
            for (start, end), answer in zip(spans, without, strict=True)
            if (left := occluded(task, answer, about)) is not None
        ]
        found += sorted(mine, key=lambda word: -abs(word.effect))[:most]
    return tuple(found)


def _abouts(task: Task, whole: Answer) -> tuple[str | None, ...]:
    if whole.value is None or not task.labels:
        return (None,)
    given = whole.value if isinstance(whole.value, tuple) else (str(whole.value),)
    if given or not whole.probabilities:
        return given
    return (max(whole.probabilities, key=lambda label: whole.probabilities[label]),)


def _asked(
    scorer: Scorer, variants: Sequence[Sequence[str]], besides: Sequence[tuple[str, str]], questions: Sequence[Question]
) -> list[list[Answer]]:
    """Of each question, the answers to all variants of all texts."""
    alone = not any(any(beside) for beside in besides) and all(q.task.way is None for q in questions)
    if alone and isinstance(scorer, ArrayScorer):
        return scorer.score_posts([text for each in variants for text in each], questions).answers()
    answers = scorer.score(
        [
            Question(q.task, text, q.emotion, context, target)
            for each, (context, target) in zip(variants, besides, strict=True)
            for text in each
            for q in questions
        ]
    )
    return [answers[i :: len(questions)] for i in range(len(questions))]


def _parts(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Texts whose variants go through the engine together, and the index of the first."""
    part: list[str] = []
    first = variants = 0
    for n, text in enumerate(texts):
        count = 1 + len(words_of(text))
        if part and variants + count > _VARIANTS_AT_ONCE:
            yield first, part
            first, part, variants = n, [], 0
        part.append(text)
        variants += count
    if part:
        yield first, part


def _without(text: str, span: tuple[int, int]) -> str:
    """The text without a word and without the second blank that this would leave."""
    before, after = text[: span[0]], text[span[1] :]
    if before[-1:].isspace() and not after[:1].strip():
        before = before[:-1]
    elif not before and after[:1].isspace():
        after = after[1:]
    left = before + after
    return left if left.strip() else _NOTHING
