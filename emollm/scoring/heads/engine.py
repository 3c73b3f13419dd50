"""One forward pass a post, up to the deepest layer that the heads read; every answer from linear heads on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from emollm.core.answers import SCORING_FAILED, Answer
from emollm.core.card import AffectCard
from emollm.core.encoding import EncodedPrompt
from emollm.core.errors import ModelError
from emollm.core.prompts import Question
from emollm.models.batching import by_length
from emollm.models.load import LoadedModel
from emollm.scoring.heads.backbone import Backbone, PostEncoder
from emollm.scoring.heads.weights import HeadWeights, answers, load_bank
from emollm.scoring.safely import score_safely


class HeadsScorer:
    """Drops the layers it does not need from the loaded model, which is then good for nothing else."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        device: str = "cpu",
        batch_tokens: int = 1024,
        head_weights: HeadWeights | None = None,
        backbone: Backbone | None = None,
    ) -> None:
        """`head_weights` None: those in the model's folder. A given `backbone` is read, and the model stays whole.

        Raises ModelError if the weights do not fit the card.
        """
        assert loaded.card.heads is not None  # `open_scorer` has seen to it
        self._card = loaded.card
        self._heads = loaded.card.heads
        if head_weights is None:
            assert loaded.folder is not None  # a card with heads comes from a folder
            head_weights = load_bank(loaded.folder, self._heads)
        self._bank = head_weights
        self._device = device
        self._batch_tokens = batch_tokens
        self._encode = PostEncoder(loaded, self._heads.prompt)
        self._trunk = backbone or Backbone(loaded.model, loaded.card.base.architecture, depth=self._heads.depth)
        features = len(self._heads.feature_specs) * self._trunk.hidden_size
        if head_weights.weight_OF.shape[1] != features:
            raise ModelError(
                f"head weights of {loaded.card.name} expect {head_weights.weight_OF.shape[1]} features but the base "
                f"model has {features}: they were trained for another base model"
            )
        self._tasks = {task.name: task for task in loaded.card.tasks}

    @property
    def card(self) -> AffectCard:
        return self._card

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        found: dict[int, Answer] = {}
        # A post is read once for all its questions: those about it share a place in `posts`.
        posts: dict[str, list[int]] = {}
        for number, question in enumerate(questions):
            if self._heads.head(question.key) is None:
                found[number] = Answer(value=None, error=f"{SCORING_FAILED}: no head for {question.column}")
            else:
                posts.setdefault(question.text, []).append(number)
        about = [[questions[n] for n in numbers] for numbers in posts.values()]
        rows = _Rows(self, {mine[0].text: mine for mine in about})
        firsts = score_safely([mine[0] for mine in about], encode=rows.encode, batches=rows.batches, score=rows.score)
        for first, mine, numbers in zip(firsts, about, posts.values(), strict=True):
            each = rows.answers.get(mine[0].text, [first] * len(mine))
            found.update(zip(numbers, each, strict=True))
        return [found[number] for number in range(len(questions))]

    def encode(self, text: str) -> EncodedPrompt:
        return self._encode(text)

    def batches(self, prompts: Sequence[EncodedPrompt]) -> Iterator[list[int]]:
        return by_length([len(prompt.ids) for prompt in prompts], batch_tokens=self._batch_tokens)

    @torch.inference_mode()
    def scores(self, prompts: Sequence[EncodedPrompt]) -> np.ndarray:
        """[posts, outputs] of the head_weights. Raises ModelError if the backbone gives no finite numbers."""
        batch = self._encode.batch(prompts, self._device)
        features = self._trunk.features(batch, self._heads.feature_specs).cpu().numpy()
        if not np.isfinite(features).all():
            raise ModelError("the hidden states are not finite; try --precision float32")
        return self._bank.scores(features)

    def answer(self, question: Question, scores_NO: np.ndarray) -> list[Answer]:
        head = self._heads.head(question.key)
        assert head is not None
        return answers(head, self._heads, self._tasks, scores_NO)


class _Rows:
    """The posts of one call, and the answers to all questions about each as they are found."""

    def __init__(self, scorer: HeadsScorer, questions: dict[str, list[Question]]) -> None:
        self._scorer = scorer
        self._questions = questions
        self.answers: dict[str, list[Answer]] = {}

    def encode(self, question: Question) -> EncodedPrompt:
        return self._scorer.encode(question.text)

    def batches(self, _questions: Sequence[Question], prompts: Sequence[EncodedPrompt]) -> Iterator[list[int]]:
        return self._scorer.batches(prompts)

    def score(self, firsts: Sequence[Question], prompts: Sequence[EncodedPrompt]) -> list[Answer]:
        scores_NO = self._scorer.scores(prompts)
        texts = [first.text for first in firsts]
        # The posts that are asked the same go through each head together.
        asked: dict[tuple[str, ...], list[int]] = {}
        for n, text in enumerate(texts):
            asked.setdefault(tuple(q.column for q in self._questions[text]), []).append(n)
        for rows in asked.values():
            per_question = [self._scorer.answer(q, scores_NO[rows]) for q in self._questions[texts[rows[0]]]]
            for n, mine in zip(rows, zip(*per_question, strict=True), strict=True):
                self.answers[texts[n]] = [replace(a, truncated=prompts[n].truncated) for a in mine]
        return [self.answers[text][0] for text in texts]
