"""Free greedy generation and parsing, the usual method and the reference for other engines.

It is the only engine whose answers can fail to parse; such an answer has an error and keeps its text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from transformers import LogitsProcessorList

from emollm.core.answers import INVALID_ANSWER, Answer, answer_string, parse_answer, unit_of
from emollm.core.card import AffectCard
from emollm.core.encoding import EncodedPrompt
from emollm.core.prompts import Question, notes_of, render
from emollm.core.tasks import Kind, Task
from emollm.models.batching import by_length
from emollm.models.load import LoadedModel, prompt_encoder
from emollm.scoring.safely import TokenLimit, score_safely


class GenerateScorer:
    """Greedy decoding in batches of one task."""

    engine = "generate"

    def __init__(self, loaded: LoadedModel, *, device: str = "cpu", batch_tokens: int = 4096) -> None:
        self._loaded = loaded
        self._device = device
        self._limit = TokenLimit(batch_tokens)
        self._encoder = prompt_encoder(loaded)
        self._answer_tokens: dict[str, int] = {}

    @property
    def card(self) -> AffectCard:
        return self._loaded.card

    @property
    def batch_tokens(self) -> int:
        """Tokens that go through the model at once, as things stand: less where they did not fit."""
        return self._limit.tokens

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        return score_safely(
            questions, encode=self._encode, batches=self._batches, score=self._score_batch, lower=self._limit.lower
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._encoder.count(texts)

    def _encode(self, questions: Sequence[Question]) -> list[EncodedPrompt]:
        return self._encoder.prompts([render(question) for question in questions])

    def _batches(self, questions: Sequence[Question], prompts: Sequence[EncodedPrompt]) -> Iterator[list[int]]:
        # One task per batch: a batch runs until its longest answer ends, and a number is shorter than a label set.
        order = sorted(range(len(questions)), key=lambda i: questions[i].task.name)
        for _, group in groupby(order, key=lambda i: questions[i].task.name):
            indices = list(group)
            for batch in by_length([len(prompts[i].ids) for i in indices], batch_tokens=self._limit.tokens):
                yield [indices[j] for j in batch]

    def _score_batch(self, questions: Sequence[Question], prompts: Sequence[EncodedPrompt]) -> list[Answer]:
        task = questions[0].task
        return [
            replace(
                _read(task, text, probability, prompt.truncated),
                notes=notes_of(question.text, question.target, prompt),
            )
            for question, prompt, (text, probability) in zip(
                questions, prompts, self._generate(prompts, task), strict=True
            )
        ]

    @torch.inference_mode()
    def _generate(self, prompts: Sequence[EncodedPrompt], task: Task) -> list[tuple[str, float]]:
        """The text of each answer and its probability under the model, end token included."""
        loaded = self._loaded
        longest = max(len(prompt.ids) for prompt in prompts)
        ids = torch.full((len(prompts), longest), loaded.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            # A decoder goes on from the last column; an encoder counts positions from the first, masked or not (BART).
            start = 0 if loaded.is_encoder_decoder else longest - len(prompt.ids)
            ids[row, start : start + len(prompt.ids)] = torch.tensor(prompt.ids)
            mask[row, start : start + len(prompt.ids)] = 1
        likeliest = _Likeliest()
        out = loaded.model.generate(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            max_new_tokens=self._longest_answer(task),
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            # BART's own settings force a begin token and would ban repeated label words.
            no_repeat_ngram_size=0,
            suppress_tokens=None,
            begin_suppress_tokens=None,
            bad_words_ids=None,
            forced_bos_token_id=None,
            forced_eos_token_id=None,
            min_length=0,
            eos_token_id=loaded.tokenizer.eos_token_id,
            pad_token_id=loaded.tokenizer.pad_token_id,
            logits_processor=LogitsProcessorList([likeliest]),
        )
        new_ids = out[:, 1:] if loaded.is_encoder_decoder else out[:, longest:]
        chosen = torch.stack(likeliest.log_ps, dim=1)
        results = []
        for row, row_ids in enumerate(new_ids.tolist()):
            eos = loaded.tokenizer.eos_token_id
            end = row_ids.index(eos) + 1 if eos in row_ids else len(row_ids)
            results.append((self._encoder.decode(row_ids[:end]), float(chosen[row, :end].sum().exp())))
        return results

    def _longest_answer(self, task: Task) -> int:
        """Tokens of the longest canonical answer, including the end token: no valid answer is longer."""
        if task.name not in self._answer_tokens:
            self._answer_tokens[task.name] = max(len(self._encoder.answer(text)) for text in _long_answers(task))
        return self._answer_tokens[task.name]


class _Likeliest:
    """Keeps the log-probability of each step's most likely token, which greedy decoding chooses.

    Logits of all steps together would be a gigabyte for 256 rows of 30 tokens and a vocabulary of 32,000.
    """

    def __init__(self) -> None:
        self.log_ps: list[torch.Tensor] = []

    def __call__(self, _ids: torch.Tensor, logits_BV: torch.Tensor) -> torch.Tensor:
        wide = logits_BV.float()
        self.log_ps.append(wide.amax(-1) - wide.logsumexp(-1))
        return logits_BV


def _long_answers(task: Task) -> list[str]:
    match task.kind:
        case Kind.REGRESSION:
            return ["0.123", "0.789", "0.456"]
        case Kind.ORDINAL:
            return [answer_string(task, c.value, key.emotion) for c in task.classes for key in task.keys]
        case Kind.SINGLE_LABEL:
            return [answer_string(task, label) for label in task.labels]
        case Kind.LABEL_SET:
            return [answer_string(task, task.labels), answer_string(task, ())]


def _read(task: Task, text: str, probability: float, truncated: bool) -> Answer:
    value = parse_answer(task, text)
    if value is None:
        return Answer(value=None, truncated=truncated, error=INVALID_ANSWER, text=text[:200])
    return Answer(value=value, unit=unit_of(task, value), mode=value, confidence=probability, truncated=truncated)
