"""The labels' descriptions and the post as vectors of one encoder: the label is the nearest. The cheap floor.

Shapes: N posts, K statements, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from emollm.core.answers import EMPTY_TEXT, Answer
from emollm.core.ask import labels, statements
from emollm.core.heads_card import FeatureSpec, Prompt
from emollm.core.prompts import Post, Question, notes_of
from emollm.core.tasks import TASKS, Kind, Task
from emollm.models.batching import with_least_padding
from emollm.models.device import pass_tokens
from emollm.models.load import LoadedModel
from emollm.scoring.arrays import Floats
from emollm.scoring.asking.outcome import WITHOUT_CONTENT, answer_of
from emollm.scoring.heads.backbone import Backbone, PostEncoder, pooled_states
from emollm.scoring.safely import TokenLimit, run_safely

_TEMPERATURE = 0.05
"""Divides cosines: .05 had the least log-loss on GoEmotions' training posts among .03, .05, .08 and .12 (LOG.md)."""
_NEARER = 0.08
"""A label of a set is given where its sentence is nearer to the post by so much than those of many emotions are on
average: of 0 to .3 it had the best micro-F1 on the same posts, .197, where a fixed bound had .127."""
_EMOTIONS = labels(*(name for name in TASKS["GoEmotions-28"].labels if name != "neutral"))


class EmbeddingScorer:
    """Reads a post once for all questions about it, and a label's sentence once for all posts."""

    def __init__(self, loaded: LoadedModel, *, device: str = "cpu", batch_tokens: int = 1024) -> None:
        architecture = loaded.card.base.architecture
        self._encode = PostEncoder(loaded, Prompt(emoji="named", beside=("context", "target")))
        self._backbone = Backbone(loaded.model, architecture)
        self._spec = FeatureSpec(layer=len(self._backbone.blocks), pooling="mean")
        self._device, self._limit = device, TokenLimit(batch_tokens)
        self._pass_tokens = pass_tokens(loaded.model, device)
        self._spaces: dict[tuple[Task, str | None], tuple[Floats, Floats]] = {}

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, in order; a text that is empty or cannot be read gets an error."""
        errors: dict[Post, str] = {}
        vectors: dict[Post, Floats] = {}
        flags: dict[Post, tuple[bool, tuple[str, ...]]] = {}
        full = list(dict.fromkeys(Post(q.text, q.context, q.target) for q in questions if q.text.strip()))
        for rows, read, why in run_safely(range(len(full)), lambda rows: self._read([full[n] for n in rows])):
            if read is None:
                errors[full[rows[0]]] = why
            else:
                for n, vector, flag in zip(rows, *read, strict=True):
                    vectors[full[n]], flags[full[n]] = vector, flag
        answers = []
        for question in questions:
            key = Post(question.text, question.context, question.target)
            if key not in vectors:
                answers.append(Answer(value=None, error=errors.get(key, EMPTY_TEXT)))
                continue
            truncated, notes = flags[key]
            probabilities_K = self._probabilities(question, vectors[key])
            answers.append(answer_of(question.task, probabilities_K, truncated=truncated, notes=notes))
        return answers

    def ids(self, text: str) -> list[int]:
        """Tokens of a sentence."""
        return self._encode(text).post

    def embed(self, texts: Sequence[str]) -> Floats:
        """[N, D], each of length one."""
        return np.array(self._read([Post(text) for text in texts])[0])

    @torch.inference_mode()
    def _read(self, posts: Sequence[Post]) -> tuple[list[Floats], list[tuple[bool, tuple[str, ...]]]]:
        prompts = self._encode.posts(posts)
        vectors: list[Any] = [None] * len(prompts)
        lengths = [len(prompt) for prompt in prompts]
        for batch in with_least_padding(lengths, batch_tokens=self._limit.tokens, pass_tokens=self._pass_tokens):
            states = pooled_states(
                self._backbone, self._encode.batch([prompts[i] for i in batch], self._device), [self._spec]
            )
            for i, vector in zip(batch, states[self._spec].astype(np.float64), strict=True):
                vectors[i] = vector / max(float(np.linalg.norm(vector)), 1e-9)
        flags = [(p.truncated, notes_of(key.text, key.target, p)) for key, p in zip(posts, prompts, strict=True)]
        return vectors, flags

    def _probabilities(self, question: Question, vector: Floats) -> Floats:
        statements_KD, prior_K = self._space(question.task, question.emotion)
        # The prior is what a text without content comes near to: a sentence that is near to all says nothing.
        scores_K = (statements_KD @ vector - prior_K) / _TEMPERATURE
        if question.task.kind is Kind.LABEL_SET:
            emotions_ED, prior_E = self._space(_EMOTIONS, None)
            usual = float((emotions_ED @ vector - prior_E).mean())
            return np.asarray(1.0 / (1.0 + np.exp((usual + _NEARER) / _TEMPERATURE - scores_K)))
        exp_K = np.exp(scores_K - scores_K.max())
        return np.asarray(exp_K / exp_K.sum())

    def _space(self, task: Task, emotion: str | None) -> tuple[Floats, Floats]:
        if (task, emotion) not in self._spaces:
            statements_KD = self.embed(statements(task, emotion))
            prior_K = statements_KD @ self.embed(WITHOUT_CONTENT).mean(axis=0)
            self._spaces[task, emotion] = statements_KD, prior_K
        return self._spaces[task, emotion]
