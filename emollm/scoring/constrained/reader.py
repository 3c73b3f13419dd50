"""The interface between searches and a model of any architecture.

Shapes: C chains of tokens, T tokens of all chains, A tokens that may follow chains, P numbers that make up a slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from emollm.core.encoding import EncodedPrompt
from emollm.scoring.arrays import Floats
from emollm.scoring.constrained.ragged import Bools, Ints, lists_of, within


class Chains(NamedTuple):
    """What to read: chains of tokens, each after a prefix that was read, and what may follow each."""

    slot_CP: Ints
    """The model's state after the prefix; only the reader that gave it knows its content."""
    length_C: Ints
    tokens_T: Ints
    num_after_C: Ints
    after_A: Ints
    """The tokens that may follow the last one of each chain."""
    is_read_on_C: Bools
    """Whether anything will be read after the last token."""

    @property
    def counts(self) -> Ints:
        """[C] the number of probabilities of each chain: of its tokens but the first, and of what may follow."""
        return np.maximum(self.length_C - 1, 0) + self.num_after_C

    def split(self) -> tuple[Ints, Bools]:
        """For each of these probabilities its chain, and whether it is that of a token of the chain."""
        chain_N = lists_of(self.counts)
        return chain_N, within(self.counts) < self.length_C[chain_N] - 1


class Reads(NamedTuple):
    slot_CP: Ints
    """The state after each chain."""
    log_ps: Floats
    """Under the full softmax, in the order of `Chains.split`."""


class Reader(Protocol):
    """A model that has read some prompts and continues from there, with many answers at a time."""

    def open(self, prompts: Sequence[EncodedPrompt], num_after_C: Ints, after_A: Ints) -> Reads:
        """Read the prompts, dropping all earlier ones; what may follow them is given as in `Chains`."""

    def read(self, chains: Chains) -> Reads:
        """Read chains after slots that `open` or `read` gave."""
