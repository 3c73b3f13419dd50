"""Trie-constrained scoring of a question's closed answers: always valid, with exact probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from emollm.core.answers import Answer
from emollm.core.card import AffectCard
from emollm.core.encoding import EncodedPrompt
from emollm.core.prompts import Question, notes_of, render
from emollm.core.tasks import Kind, Task
from emollm.models.device import cache_bytes, free_bytes
from emollm.models.load import LoadedModel, prompt_encoder
from emollm.scoring.constrained.causal import CausalReader
from emollm.scoring.constrained.outcome import answers_of
from emollm.scoring.constrained.reader import Reader
from emollm.scoring.constrained.search import Searched, SearchOptions, TrieSearches
from emollm.scoring.constrained.seq2seq import Seq2SeqReader
from emollm.scoring.constrained.table import NodeTable
from emollm.scoring.constrained.trie import ClosedTrie, DecimalTrie, LabelSetTrie, Trie
from emollm.scoring.safely import TokenLimit, score_safely

_HELD = 16
"""Prompt tokens in the cache at once, in units of `batch_tokens`: the rows of many batches are scored together for
answers, a token or two each."""
_CACHE_SHARE = 0.35
"""Share of a GPU's free memory for the cache: it is copied when its rows grow, and in part for each pass."""


def _held_tokens(model: Any, device: str, batch_tokens: int) -> int:
    """Prompt tokens in the cache at once: on a GPU at most what fits into its free memory."""
    held = batch_tokens * _HELD
    if device == "cpu":
        return held
    return max(batch_tokens, min(held, int(free_bytes(device) * _CACHE_SHARE) // cache_bytes(model)))


class ConstrainedScorer:
    engine = "constrained"

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        device: str = "cpu",
        batch_tokens: int = 1024,
        options: SearchOptions | None = None,
    ) -> None:
        self._loaded = loaded
        self._limit = TokenLimit(batch_tokens)
        self._held = TokenLimit(_held_tokens(loaded.model, device, batch_tokens))
        self._options = options or SearchOptions()
        self._encoder = prompt_encoder(loaded)
        self._reader: Reader
        if loaded.is_encoder_decoder:
            pad = loaded.tokenizer.pad_token_id
            self._reader = Seq2SeqReader(loaded.model, pad=pad, device=device, limit=self._limit)
        else:
            self._reader = CausalReader(loaded.model, device=device, limit=self._limit)
        self._table = NodeTable(exact=self._options.exact, all_ends=self._options.min_error == 0)
        self._roots: dict[tuple[Task, str | None] | None, int] = {}

    @property
    def card(self) -> AffectCard:
        return self._loaded.card

    @property
    def batch_tokens(self) -> int:
        """Tokens that go through the model at once, as things stand: less where they did not fit."""
        return self._limit.tokens

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        return score_safely(
            questions, encode=self._encode, batches=self._batches, score=self._score_batch, lower=self._lower
        )

    def _lower(self, tried: int) -> None:
        """A batch of this many prompt tokens did not fit: use fewer at once, in the cache and per pass."""
        self._held.lower(tried)
        self._limit.lower(self._limit.tokens)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._encoder.count(texts)

    def _encode(self, questions: Sequence[Question]) -> list[EncodedPrompt]:
        return self._encoder.prompts([render(question) for question in questions])

    def _batches(self, questions: Sequence[Question], prompts: Sequence[EncodedPrompt]) -> Iterator[list[int]]:
        """Questions about the same post stay together, and similar lengths too."""
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i].post), questions[i].text))
        batch: list[int] = []
        tokens = 0
        for i in order:
            if batch and tokens + len(prompts[i]) > self._held.tokens:
                yield batch
                batch, tokens = [], 0
            batch.append(i)
            tokens += len(prompts[i])
        if batch:
            yield batch

    def _score_batch(self, questions: Sequence[Question], prompts: Sequence[EncodedPrompt]) -> list[Answer]:
        searches = TrieSearches(self._table, self._searched(questions), self._options)
        begins = searches.roots()
        searches.take(self._reader.open(prompts, begins.num_after_C, begins.after_A))
        while len((chains := searches.next()).length_C):
            searches.take(self._reader.read(chains))
        return [
            _noted(answer, question, prompt)
            for answer, question, prompt in zip(answers_of(searches), questions, prompts, strict=True)
        ]

    def _searched(self, questions: Sequence[Question]) -> list[Searched]:
        # By identity, since to compare tasks takes long beside all else that a question costs.
        known: dict[tuple[int, str | None], Searched] = {}
        found = []
        for question in questions:
            key = id(question.task), question.emotion
            if key not in known:
                root, values = self._root(question.task, question.emotion), question.task.answer_values
                known[key] = Searched(root, question.task, values)
            found.append(known[key])
        return found

    def _root(self, task: Task, emotion: str | None) -> int:
        """The node at which the search for a question's answer begins."""
        # All regressions are asked for the same numbers.
        key = None if task.kind is Kind.REGRESSION else (task, emotion)
        if key not in self._roots:
            encode = self._encoder.answer
            match task.kind:
                case Kind.REGRESSION:
                    trie: Trie[Any] = DecimalTrie(encode)
                case Kind.LABEL_SET:
                    trie = LabelSetTrie(task, encode)
                case _:
                    trie = ClosedTrie(task, emotion, encode)
            self._roots[key] = self._table.root(trie)
        return self._roots[key]


def _noted(answer: Answer, question: Question, prompt: EncodedPrompt) -> Answer:
    notes = notes_of(question.text, question.target, prompt)
    return replace(answer, truncated=prompt.truncated, notes=notes) if prompt.truncated or notes else answer
