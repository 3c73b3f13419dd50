"""Trie-constrained scoring of a question's closed answers: always valid, with exact probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from emollm.core.answers import Answer
from emollm.core.card import AffectCard
from emollm.core.encoding import EncodedPrompt
from emollm.core.prompts import Question, notes_of, render
from emollm.core.tasks import Kind, Task
from emollm.models.device import cache_bytes, free_bytes
from emollm.models.load import LoadedModel, prompt_encoder
from emollm.scoring.constrained.causal import CausalReader
from emollm.scoring.constrained.outcome import closed_answer, decimal_answer, label_set_answer
from emollm.scoring.constrained.reader import Reader, Request
from emollm.scoring.constrained.search import (
    Frontier,
    SearchOptions,
    TrieSearch,
    next_closed,
    next_decimals,
    next_label_sets,
)
from emollm.scoring.constrained.seq2seq import Seq2SeqReader
from emollm.scoring.constrained.trie import DecimalTrie, LabelSetTrie, Trie, closed_answers
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


@dataclass(frozen=True, slots=True)
class _Space:
    """The answers of a task and emotion, and how they are searched and summarised."""

    trie: Trie[Any]
    choose: Callable[[TrieSearch[Any]], list[Frontier[Any]]]
    sum_up: Callable[[TrieSearch[Any], Task], Answer]


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
        self._spaces: dict[tuple[Task, str | None], _Space] = {}

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
            if batch and tokens + len(prompts[i].ids) > self._held.tokens:
                yield batch
                batch, tokens = [], 0
            batch.append(i)
            tokens += len(prompts[i].ids)
        if batch:
            yield batch

    def _score_batch(self, questions: Sequence[Question], prompts: Sequence[EncodedPrompt]) -> list[Answer]:
        spaces = [self._space(question) for question in questions]
        searches = [TrieSearch(space.trie, self._options) for space in spaces]
        roots = self._reader.open(prompts, [list(search.trie.root.children) for search in searches])
        for search, root in zip(searches, roots, strict=True):
            search.start(root.slot, root.log_ps)
        going = list(zip(searches, spaces, strict=True))
        while True:
            chosen = [(search, space, space.choose(search)) for search, space in going]
            # A search that asks for nothing will not ask again.
            going = [(search, space) for search, space, items in chosen if items]
            if not going:
                break
            items = [(search, item) for search, _, mine in chosen for item in mine]
            reads = self._reader.read([_request(search, item) for search, item in items])
            for (search, item), read in zip(items, reads, strict=True):
                search.take(item, read)
        return [
            replace(
                space.sum_up(search, question.task),
                truncated=prompt.truncated,
                notes=notes_of(question.text, question.target, prompt),
            )
            for space, search, question, prompt in zip(spaces, searches, questions, prompts, strict=True)
        ]

    def _space(self, question: Question) -> _Space:
        task, emotion = question.task, question.emotion
        if (task, emotion) not in self._spaces:
            encode = self._encoder.answer
            match task.kind:
                case Kind.REGRESSION:
                    space = _Space(DecimalTrie(encode), next_decimals, decimal_answer)
                case Kind.LABEL_SET:
                    space = _Space(LabelSetTrie(task, encode), next_label_sets, label_set_answer)
                case _:
                    space = _Space(Trie(closed_answers(task, emotion), encode), next_closed, closed_answer)
            self._spaces[task, emotion] = space
        return self._spaces[task, emotion]


def _request(search: TrieSearch[Any], item: Frontier[Any]) -> Request:
    chain = search.trie.chain(item.node)
    return Request(parent=item.parent, tokens=chain.tokens, wanted=chain.wanted, keep=chain.keep)
