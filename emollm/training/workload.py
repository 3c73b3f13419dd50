"""The workload of a run: rows, texts and their tokens, counted on a sample.

Shapes: N rows or texts of the sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from emollm.core.bases import Architecture
from emollm.core.card import AffectCard, BaseModelInfo
from emollm.core.errors import ModelError
from emollm.core.heads_card import Prompt
from emollm.core.prompts import Post
from emollm.core.tasks import Kind
from emollm.data.instructions import PIECES, pieces_of
from emollm.models.load import LoadedModel, locate_base, prompt_encoder
from emollm.models.tokenizer import load_tokenizer
from emollm.scoring.heads.backbone import PostEncoder, prompt_pieces
from emollm.scoring.heads.labels import LabelledText, read_labels, subset
from emollm.training.frozen import calibration_tenth, prompt_of
from emollm.training.options import TrainConfig
from emollm.training.row_tokens import encode_rows
from emollm.training.rows import training_rows, training_tasks

_SAMPLE = 500
_CHARACTERS_A_TOKEN = 3.5
"""Used without a tokenizer: the average for English tweets in the tokenizers of the series."""

Lengths = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    rows: int
    """Rows trained in steps: instruction rows, or texts if only heads are trained. 0 for a frozen base."""
    lengths_N: Lengths
    """Tokens of a row that pass through the whole model, prompt and answer; 0 if only heads are trained."""
    answers_N: Lengths
    """Tokens of the answer."""
    texts: int = 0
    """Texts that are read once, before any step, to fit heads on the frozen base."""
    held_out: int = 0
    """Texts that are held out to calibrate the heads at the end."""
    text_lengths_N: Lengths
    """Tokens of a text with its prompt for the heads; 0 without heads."""
    outputs: int = 0
    """Largest number of outputs of the heads: ordinals may share those of regressions."""
    are_counted: bool
    """Whether tokens were counted with a tokenizer; otherwise they are estimated."""


def workload(config: TrainConfig, architecture: Architecture) -> Workload:
    """Raises DataError if there is nothing to train on."""
    table = training_rows(config)
    measure = _Measure(config, architecture)
    if config.objective == "generate":
        lengths_N, answers_N = measure.rows(table)
        return Workload(
            rows=table.num_rows, lengths_N=lengths_N, answers_N=answers_N, text_lengths_N=np.zeros(1),
            are_counted=measure.is_exact,
        )  # fmt: skip
    labelled = read_labels(table, training_tasks(config))
    held_out_N = calibration_tenth(labelled) & (not config.freeze)
    learnt = subset(labelled, np.flatnonzero(~held_out_N))
    texts = learnt.texts
    prompt = prompt_of(config, architecture, labelled.pieces)
    rows, lengths_N, answers_N = 0 if config.freeze else len(texts), np.zeros(1), np.zeros(1)
    if config.objective == "both":
        table = table.filter(pc.is_in(table["text"], pa.array(texts)))
        rows = table.num_rows
        lengths_N, answers_N = measure.rows(table)
    return Workload(
        rows=rows, lengths_N=lengths_N, answers_N=answers_N, texts=len(texts), held_out=int(held_out_N.sum()),
        text_lengths_N=measure.posts(learnt.posts, prompt), outputs=_outputs(config, labelled),
        are_counted=measure.is_exact,
    )  # fmt: skip


def _outputs(config: TrainConfig, labelled: LabelledText) -> int:
    kinds = {task.name: task.kind for task in training_tasks(config)}
    return sum(1 if kinds[key[0]] is Kind.ORDINAL else gold.shape[1] for key, gold in labelled.golds.items())


class _Measure:
    """Lengths in tokens of evenly drawn rows and texts."""

    def __init__(self, config: TrainConfig, architecture: Architecture) -> None:
        card = AffectCard(
            name="plan",
            base=BaseModelInfo(name=config.base, architecture=architecture, licence="", fingerprint=""),
            max_post_tokens=config.max_post_tokens,
        )
        tokenizer = _tokenizer_here(config.base, architecture)
        self._loaded = LoadedModel(None, tokenizer, card)
        self.is_exact = tokenizer is not None

    def rows(self, table: pa.Table) -> tuple[Lengths, Lengths]:
        """[N] tokens of prompt and answer together, and [N] of the answer."""
        table = table.take(_drawn(table.num_rows))
        if not self.is_exact:
            rows = table.select([*PIECES, "answer"]).to_pylist()
            sizes = np.array([[len(pieces_of(r).text) + len(r["answer"]), len(r["answer"])] for r in rows])
            sizes = sizes / _CHARACTERS_A_TOKEN
            return sizes[:, 0], sizes[:, 1]
        lengths_N2 = encode_rows(table, prompt_encoder(self._loaded)).lengths.astype(np.float64)
        return lengths_N2.sum(axis=1), lengths_N2[:, 1]

    def posts(self, posts: Sequence[Post], prompt: Prompt) -> Lengths:
        """[N] tokens with the prompt for the heads, and what it reads beside a post."""
        drawn = [posts[i] for i in _drawn(len(posts))]
        if not self.is_exact:
            return np.array([len(prompt_pieces(prompt, post).text) for post in drawn]) / _CHARACTERS_A_TOKEN
        encode = PostEncoder(self._loaded, prompt)
        return np.array([float(len(encoded.ids)) for encoded in encode.posts(drawn)])


def _tokenizer_here(base: str, architecture: Architecture) -> Any:
    """None if it would have to be downloaded."""
    where = locate_base(base)
    try:
        return load_tokenizer(where, base, architecture, local_files_only=True)
    except ModelError:
        if Path(where).is_dir():
            raise
        return None


def _drawn(count: int) -> Any:
    return np.linspace(0, count - 1, min(_SAMPLE, count)).astype(int)
