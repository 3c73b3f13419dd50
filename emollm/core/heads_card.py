"""The `heads` section of `affect.json`: which hidden layers are pooled, and how each head maps them to an answer."""

from __future__ import annotations

from functools import cached_property
from typing import Literal, Self

from pydantic import Field, model_validator

from emollm.core.frozen import Frozen
from emollm.core.tasks import QuestionKey

Pooling = Literal["last", "mean", "first"]
Piece = Literal["context", "target"]


class Prompt(Frozen):
    """The text around a post when its hidden states are computed."""

    prefix: str = ""
    suffix: str = ""
    emoji: Literal["kept", "named"] = "kept"
    """named: each emoji is replaced with its Unicode name, for tokenizers without emoji (BERT's gives [UNK])."""
    beside: tuple[Piece, ...] = ()
    """What is read beside the post, where a question has it: the heads were trained with it."""


class FeatureSpec(Frozen):
    """One pooled hidden state; the features of a post are those of all `feature_specs`, concatenated."""

    layer: int = Field(ge=1)
    """Number of layers that are run; the state is that after the last of them, before any final norm."""
    pooling: Pooling
    """last: the prompt's last token. mean: over the tokens of the post. first: the first token, as BERT's [CLS]."""


class Derivation(Frozen):
    """How the answer to a task without a head of its own is derived from another task's."""

    source: str
    """The task from whose answer it is derived."""
    rule: Literal["scale", "bins", "classes", "labels", "gate"]
    """scale: a number times `slope` plus `offset`. bins: a number's share of equal bins. classes: classes summed up.
    labels: the probability of any of some labels. gate: a number where the emotion is present, else 0."""
    gate: str | None = None
    """The label set whose label of the same emotion tells how likely it is present."""
    slope: float = 1.0
    offset: float = 0.0
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """For each class or label of the task, those of the source that count for it; empty: none of the source's."""


class Head(Frozen):
    """How the answer to a question, which is a task and its emotion, is computed from the scores."""

    task: str
    emotion: str | None = None
    origin: Literal["trained", "distilled", "derived"]
    """trained: on gold labels. distilled: on another model's probabilities. derived: from another task's answer."""
    derivation: Derivation | None = None
    outputs: tuple[int, ...] = ()
    """Rows of the weights: one for a number or an ordinal, else one per label. Heads may share a row."""
    slope: tuple[float, ...] = ()
    """Calibration: the factor of each output."""
    offset: tuple[float, ...] = ()
    """Calibration: the offset of each output, added afterwards; for an ordinal the ascending class thresholds."""
    spread: tuple[tuple[float, float], ...] = ()
    """For a number: (prediction, standard deviation) knots, in 0..1; linear in between."""
    thresholds: tuple[float, ...] = ()
    """For a label set: the probability from which a label is answered, one per label."""
    lift: tuple[float, ...] = ()
    """For a label set: added to each label's log-odds before a set is decided; rare labels get more."""
    decision: Literal["likeliest", "expected", "thresholds", "jaccard"] = "likeliest"
    """For an ordinal: the most likely class, or the one nearest to the expected value. For a label set: the labels
    above their thresholds, or the set with the largest expected Jaccard index."""
    rows: int = 0
    """Number of labelled texts that it was fitted on."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """Cross-validated on training texts. The same folds selected the hidden layers, the regularisation and the
    decision, so the figures are somewhat optimistic: evaluate on other rows to know what to expect."""

    @property
    def key(self) -> QuestionKey:
        return QuestionKey(self.task, self.emotion)

    @property
    def sources(self) -> tuple[QuestionKey, ...]:
        """The questions that a derived head's answers are made of; none of a trained one."""
        found = self.derivation
        if found is None:
            return ()
        return (QuestionKey(found.source, self.emotion), *((QuestionKey(found.gate),) if found.gate else ()))

    @model_validator(mode="after")
    def _derived_or_not(self) -> Self:
        if (self.origin == "derived") != (self.derivation is not None):
            raise ValueError(f"head {self.task}: a derived head has a derivation, and no other has")
        if self.derivation and (self.derivation.rule == "gate") != (self.derivation.gate is not None):
            raise ValueError(f"head {self.task}: the rule `gate` names a label set, and no other rule does")
        return self


class HeadsCard(Frozen):
    """What a model directory must record so that its heads are used as they were fitted."""

    prompt: Prompt
    feature_specs: tuple[FeatureSpec, ...] = Field(min_length=1)
    heads: tuple[Head, ...] = Field(min_length=1)
    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of the states that the heads were fitted on: what `--precision auto` reads them in."""
    writes_answers: bool = False
    """Whether the weights were also trained to generate answers, so that the other engines can be used."""

    @property
    def depth(self) -> int:
        """Number of layers that are run."""
        return max(feature_spec.layer for feature_spec in self.feature_specs)

    @cached_property
    def _by_question(self) -> dict[QuestionKey, Head]:
        return {head.key: head for head in reversed(self.heads)}

    def head(self, key: QuestionKey) -> Head | None:
        return self._by_question.get(key)

    def origins(self) -> dict[str, str]:
        """Whether each task's answers are trained, distilled or derived."""
        return {head.task: head.origin for head in self.heads}
