"""One forward pass per post, up to the deepest feature layer; linear heads then compute every answer.

Shapes: N posts, O outputs of all heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emollm.core.answers import EMPTY_TEXT, SCORING_FAILED, Answer
from emollm.core.calibration import Calibration
from emollm.core.card import AffectCard
from emollm.core.encoding import EncodedPrompt
from emollm.core.errors import ModelError
from emollm.core.prompts import CONTEXT_NOT_READ, TARGET_NOT_READ, Post, Question, notes_of
from emollm.models.batching import with_least_padding
from emollm.models.device import pass_tokens
from emollm.models.load import LoadedModel
from emollm.scoring.arrays import AnswerArrays, Floats, PostAnswers
from emollm.scoring.calibrated import calibrated_arrays
from emollm.scoring.heads.backbone import Backbone, PostEncoder
from emollm.scoring.heads.weights import HeadWeights, answers, load_bank
from emollm.scoring.safely import Rows, TokenLimit, run_safely

_POSTS_AHEAD = 8192
"""Posts that are tokenised on a thread while a GPU processes the previous ones. Of more posts, more have like lengths:
beside 100 tokens of SmolLM2 28 are padding with 2,048 posts, 21 with 4,096 and 14 with 8,192 (LOG.md)."""


@dataclass(slots=True)
class _Scores:
    """The scores of N posts."""

    scores_NO: Floats
    errors: list[str | None]
    truncated_N: NDArray[np.bool_]
    prompts: dict[Post, EncodedPrompt]
    """Of posts that have a context or a target, and could be read."""


class HeadsScorer:
    """Drops unneeded layers from the loaded model, which then cannot be used for anything else."""

    engine = "heads"

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        device: str = "cpu",
        batch_tokens: int = 1024,
        head_weights: HeadWeights | None = None,
        backbone: Backbone | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """`head_weights` None: those in the model's folder. A given `backbone` is used, and the model stays complete.

        Answers go through `calibration`, if any. Raises ModelError if the weights do not fit the card.
        """
        assert loaded.card.heads is not None  # `open_scorer` has seen to it
        self._card = loaded.card
        self._heads = loaded.card.heads
        if head_weights is None:
            assert loaded.folder is not None  # a card with heads comes from a folder
            head_weights = load_bank(loaded.folder, self._heads)
        self._head_weights = head_weights
        self._device = device
        self._limit = TokenLimit(batch_tokens)
        self._encode = PostEncoder(loaded, self._heads.prompt)
        self._backbone = backbone or Backbone(loaded.model, loaded.card.base.architecture, depth=self._heads.depth)
        self._pass_tokens = pass_tokens(loaded.model, device)
        features = len(self._heads.feature_specs) * self._backbone.hidden_size
        if head_weights.weight_OF.shape[1] != features:
            raise ModelError(
                f"head weights of {loaded.card.name} expect {head_weights.weight_OF.shape[1]} features but the base "
                f"model has {features}: they were trained for another base model"
            )
        self._tasks = {task.name: task for task in loaded.card.tasks}
        self._maps = {q.key: q for q in calibration.questions} if calibration else {}

    @property
    def card(self) -> AffectCard:
        return self._card

    @property
    def batch_tokens(self) -> int:
        """Tokens that go through the model at once, as things stand: less where they did not fit."""
        return self._limit.tokens

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        # A post is processed once for all its questions; posts with the same questions go through each head together.
        about: dict[Post, list[int]] = {}
        for number, question in enumerate(questions):
            about.setdefault(Post(question.text, question.context, question.target), []).append(number)
        read = self._read(list(about))
        alike: dict[tuple[str, ...], list[int]] = {}
        numbers = list(about.values())
        for post, mine in enumerate(numbers):
            alike.setdefault(tuple(questions[n].column for n in mine), []).append(post)
        found: dict[int, Answer] = {}
        for posts in alike.values():
            asked = [questions[n] for n in numbers[posts[0]]]
            for place, each in enumerate(self._answers(read, posts, asked).answers()):
                found.update(zip((numbers[post][place] for post in posts), each, strict=True))
        return [
            replace(found[n], notes=notes) if (notes := self._notes(question, read)) else found[n]
            for n, question in enumerate(questions)
        ]

    def score_posts(self, texts: Sequence[str], questions: Sequence[Question]) -> PostAnswers:
        """The answers of every text to every question; the texts of the questions are ignored."""
        return self._answers(self._read([Post(text) for text in texts]), slice(None), questions)

    def _notes(self, question: Question, read: _Scores) -> tuple[str, ...]:
        """How context and target of a question were read, of one that has any."""
        beside, context, target = self._heads.prompt.beside, question.context, question.target
        if not (context or target):
            return ()
        prompt = read.prompts.get(Post(question.text, context, target))
        notes = notes_of(question.text, target, prompt) if prompt else ()
        unread = {
            CONTEXT_NOT_READ: context and "context" not in beside,
            TARGET_NOT_READ: target and "target" not in beside,
        }
        return (*notes, *(note for note, holds in unread.items() if holds))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._encode.count(texts)

    def encode(self, text: str) -> EncodedPrompt:
        return self._encode(text)

    @torch.inference_mode()
    def scores(self, prompts: Sequence[EncodedPrompt]) -> Floats:
        """[posts, outputs] of the heads. Raises ModelError if the backbone gives no finite numbers."""
        batch = self._encode.batch(prompts, self._device)
        features = self._backbone.features(batch, self._heads.feature_specs).cpu().numpy()
        if not np.isfinite(features).all():
            raise ModelError("the hidden states are not finite; try --precision float32")
        return self._head_weights.scores(features)

    def _read(self, posts: Sequence[Post]) -> _Scores:
        count = len(posts)
        read = _Scores(np.zeros((count, len(self._head_weights.bias_O))), [None] * count, np.zeros(count, bool), {})
        rows = []
        for n, (text, _, _) in enumerate(posts):
            if text and not text.isspace():
                rows.append(n)
            else:
                read.errors[n] = EMPTY_TEXT
        on_gpu = self._device != "cpu"
        parts = [rows[i : i + _POSTS_AHEAD] for i in range(0, len(rows), _POSTS_AHEAD)] if on_gpu else [rows]
        for prompts in _ahead(lambda part: self._tokenised(posts, part, read), parts, on_thread=on_gpu):
            self._read_part(prompts, read)
        return read

    def _tokenised(self, posts: Sequence[Post], rows: Rows, read: _Scores) -> dict[int, EncodedPrompt]:
        prompts: dict[int, EncodedPrompt] = {}
        for part, encoded, why in run_safely(rows, lambda part: self._encode.posts([posts[n] for n in part])):
            if encoded is None:
                read.errors[part[0]] = why
            else:
                prompts.update(zip(part, encoded, strict=True))
        read.prompts.update({posts[n]: prompt for n, prompt in prompts.items() if posts[n].context or posts[n].target})
        return prompts

    def _read_part(self, prompts: dict[int, EncodedPrompt], read: _Scores) -> None:
        lengths = {n: len(prompt) for n, prompt in prompts.items()}

        def batches(rows: Rows) -> Iterator[Rows]:
            of_rows = [lengths[n] for n in rows]
            for batch in with_least_padding(of_rows, batch_tokens=self._limit.tokens, pass_tokens=self._pass_tokens):
                yield [rows[i] for i in batch]

        scored = run_safely(
            list(prompts),
            lambda rows: self.scores([prompts[n] for n in rows]),
            batches=batches,
            too_large=lambda rows: self._limit.lower(len(rows) * max(lengths[n] for n in rows)),
        )
        for rows, scores_NO, why in scored:
            if scores_NO is None:
                read.errors[rows[0]] = why
            else:
                read.scores_NO[rows] = scores_NO
        truncated = [n for n, prompt in prompts.items() if prompt.truncated and read.errors[n] is None]
        read.truncated_N[truncated] = True

    def _answers(self, read: _Scores, posts: Any, questions: Sequence[Question]) -> PostAnswers:
        """The scores of some of the posts."""
        chosen = range(len(read.errors))[posts] if isinstance(posts, slice) else posts
        scores_NO = read.scores_NO[posts]
        each = [self._answer(question, scores_NO) for question in questions]
        return PostAnswers(each, [read.errors[n] for n in chosen], read.truncated_N[posts])

    def _answer(self, question: Question, scores_NO: Floats) -> AnswerArrays | str:
        head = self._heads.head(question.key)
        if head is None:
            return f"{SCORING_FAILED}: no head for {question.column}"
        found = answers(head, self._heads, self._tasks, scores_NO)
        maps = self._maps.get(question.key)
        return calibrated_arrays(found, maps) if maps else found


def _ahead(make: Any, parts: Iterable[Any], *, on_thread: bool) -> Iterator[Any]:
    """The result of `make` for each part; on a thread, the next one is computed while the caller uses one."""
    if not on_thread:
        yield from map(make, parts)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as pool:
        waiting: Future[Any] | None = None
        for part in parts:
            now, waiting = waiting, pool.submit(make, part)
            if now is not None:
                yield now.result()
        if waiting is not None:
            yield waiting.result()
