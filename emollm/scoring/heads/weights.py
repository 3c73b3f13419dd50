"""The weights of all heads of a model: one matrix over the features of a post, stored in `heads.safetensors`.

Shapes: N posts, F features, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from emollm.core.errors import ModelError
from emollm.core.heads_card import Derivation, Head, HeadsCard
from emollm.core.tasks import Kind, QuestionKey, Task
from emollm.models.errors import model_errors
from emollm.scoring.arrays import AnswerArrays, Floats
from emollm.scoring.heads import derive, readout

HEADS_FILE = "heads.safetensors"


@dataclass(frozen=True, slots=True)
class HeadWeights:
    """Linear heads: scores = features @ weight.T + bias."""

    weight_OF: NDArray[np.float32]
    bias_O: NDArray[np.float32]

    def scores(self, features_NF: NDArray[np.float32]) -> Floats:
        """[N, O], summed in float64, so that the rest of the batch changes a score by 1e-13 and not by 1e-4."""
        scores_NO: Floats = features_NF.astype(np.float64) @ self.weight_OF.T.astype(np.float64) + self.bias_O
        return scores_NO

    def save(self, folder: Path) -> None:
        # Not save_file, whose file other users cannot read.
        (folder / HEADS_FILE).write_bytes(save({"weight": self.weight_OF, "bias": self.bias_O}))


def load_bank(folder: Path, card: HeadsCard) -> HeadWeights:
    """The weights next to a card; raises ModelError if they are missing or their shapes do not fit the card."""
    path = folder / HEADS_FILE
    with model_errors(f"the heads in {path} do not load"):
        tensors = load_file(path)
        head_weights = HeadWeights(tensors["weight"].astype(np.float32), tensors["bias"].astype(np.float32))
    outputs = 1 + max((o for head in card.heads for o in head.outputs), default=-1)
    if (
        head_weights.weight_OF.ndim != 2
        or head_weights.bias_O.shape != head_weights.weight_OF.shape[:1]
        or len(head_weights.bias_O) != outputs
    ):
        raise ModelError(
            f"{path} has weights {head_weights.weight_OF.shape} and biases {head_weights.bias_O.shape}, but "
            f"affect.json names {outputs} outputs; the two files belong to different models"
        )
    if not (np.isfinite(head_weights.weight_OF).all() and np.isfinite(head_weights.bias_O).all()):
        raise ModelError(f"{path} has weights that are not finite numbers; train the heads again")
    return head_weights


def answers(head: Head, heads: HeadsCard, tasks: dict[str, Task], scores_NO: Floats) -> AnswerArrays:
    """The answers of one head to N posts. `tasks` contains its task, and the source's if it is derived."""
    task = tasks[head.task]
    if head.derivation is None:
        mine = scores_NO[:, list(head.outputs)]
        match task.kind:
            case Kind.REGRESSION:
                return readout.number_answers(task, readout.numbers(head, mine))
            case Kind.ORDINAL:
                return readout.class_answers(task, readout.class_probabilities(head, mine), head.decision)
            case Kind.SINGLE_LABEL:
                return readout.class_answers(task, readout.label_probabilities(head, mine, exclusive=True), "likeliest")
            case Kind.LABEL_SET:
                found = readout.label_probabilities(head, mine, exclusive=False)
                return readout.set_answers(task, found, readout.given_labels(head, found))
    return _derived(head, head.derivation, heads, tasks, scores_NO)


def _derived(
    head: Head, derivation: Derivation, heads: HeadsCard, tasks: dict[str, Task], scores_NO: Floats
) -> AnswerArrays:
    task, source_task = tasks[head.task], tasks[derivation.source]
    source, theirs = _source(heads, QuestionKey(derivation.source, head.emotion), scores_NO)
    match derivation.rule:
        case "scale":
            return readout.number_answers(task, derive.scaled(derivation, readout.numbers(source, theirs)))
        case "gate":
            assert derivation.gate is not None  # checked when the card was read
            gate, labels = _source(heads, QuestionKey(derivation.gate), scores_NO)
            each = readout.label_probabilities(gate, labels, exclusive=False)
            found = readout.numbers(source, theirs)
            return readout.number_answers(task, derive.gated(found, tasks[gate.task], head.emotion, each))
        case "bins":
            return readout.class_answers(task, derive.binned(task, readout.numbers(source, theirs)), head.decision)
        case "classes":
            summed = derive.grouped(task, derivation, source_task, readout.class_probabilities(source, theirs))
            return readout.class_answers(task, summed, head.decision)
        case "labels":
            each = readout.label_probabilities(source, theirs, exclusive=False)
            grouped = derive.grouped(task, derivation, source_task, each)
            return readout.set_answers(task, grouped, readout.given_labels(head, grouped))


def _source(heads: HeadsCard, key: QuestionKey, scores_NO: Floats) -> tuple[Head, Floats]:
    head = heads.head(key)
    assert head is not None  # checked when the card was read
    return head, scores_NO[:, list(head.outputs)]
