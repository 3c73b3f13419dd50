"""The search over one question's answers: which prefixes the model reads next, and the result.

A search knows the probability of every prefix that is one token longer than a read prefix. Reading a prefix gives the
probabilities of its continuations. Every search ends, since tries are finite and each reading goes deeper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from emollm.scoring.constrained.trie import Node, Trie

TOLERANCE = 5e-4
"""Largest share of all answers' probability that may stay unread where a distribution counts as exact."""
A = TypeVar("A")
Slot = Any
"""The model's state after a prefix; only the reader that created it knows its content."""


# Not frozen, as these two are made by the dozen for each prefix that is read: it would take twice as long.
@dataclass(slots=True, eq=False)
class Frontier(Generic[A]):
    """A prefix whose probability is known and whose last token the model has not read."""

    node: Node[A]
    parent: Slot
    log_p: float


@dataclass(slots=True)
class Hypothesis(Generic[A]):
    """A complete answer and its probability."""

    answer: A
    log_p: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How much of a question's answers is read. More is more exact and slower; docs/scoring.md has the figures."""

    exact: bool = True
    """Whether an answer is read to its end token. False: only as far as it differs from the others."""
    tolerance: float = TOLERANCE
    """Ordinals and single labels: largest share of all answers' probability that may stay unread."""
    digits: int = 2
    """Decimal places of a number that are read, 1 to 3; the remaining probability is spread evenly."""
    min_error: float = 1e-3
    """A decimal prefix is read only if it could move the expectation by more, in 0..1."""
    beam: int = 3
    """Label sets: prefixes read at a time in the search for the most likely set."""
    min_share: float = 0.02
    """Label sets: a prefix with a larger share of the probability is always read, for the labels' marginals."""
    max_reads: int = 48
    """Label sets: largest number of prefixes read, in addition to the greedy path."""


READ_ALL = SearchOptions(tolerance=0.0, digits=3, min_error=0.0, beam=64, min_share=0.0, max_reads=1_000_000)
"""Reads everything: for tests, and for measuring the error of the defaults."""


@dataclass(slots=True)
class TrieSearch(Generic[A]):
    trie: Trie[A]
    options: SearchOptions
    open: list[Frontier[A]] = field(default_factory=list)
    found: list[Hypothesis[A]] = field(default_factory=list)
    reads: int = 0
    _greedy: Frontier[A] | None = None
    greedy: Hypothesis[A] | None = None
    """The answer of greedy decoding within the answers."""

    def start(self, root: Slot, log_ps: Sequence[float]) -> None:
        """`log_ps` of the root's children, in their order."""
        self._branch(self.trie.root, root, 0.0, log_ps, on_greedy_path=True)

    def take(self, item: Frontier[A], read: Sequence[tuple[Slot, Sequence[float]]]) -> None:
        """The model's output for `item`: for each node of its chain the slot after it and its children's log_ps."""
        self.open.remove(item)
        self.reads += 1
        log_p = item.log_p
        for _, log_ps in read[:-1]:
            log_p += log_ps[0]
        slot, log_ps = read[-1]
        self._branch(self.trie.chain(item.node).nodes[-1], slot, log_p, log_ps, on_greedy_path=item is self._greedy)

    def _branch(
        self, node: Node[A], slot: Slot, log_p: float, log_ps: Sequence[float], *, on_greedy_path: bool
    ) -> None:
        best = max(log_ps) if on_greedy_path else math.inf
        for (child, answer), child_log_p in zip(self._answers_of(node), log_ps, strict=True):
            if answer is None:
                item = Frontier(child, slot, log_p + child_log_p)
                self.open.append(item)
                if child_log_p >= best:
                    self._greedy, best = item, math.inf
            else:
                found = Hypothesis(answer, log_p + child_log_p)
                self.found.append(found)
                if child_log_p >= best:
                    self._greedy, self.greedy, best = None, found, math.inf

    def _answers_of(self, node: Node[A]) -> list[tuple[Node[A], A | None]]:
        """The children of a node, each with the answer that it stands for, if for one alone."""
        if not self.options.exact:  # as sets are added to a trie, a child may come to stand for more
            return [(child, self._answer(child)) for child in node.children.values()]
        ends = self.options.min_error > 0
        if ends not in node.answers:
            node.answers[ends] = [(child, self._answer(child)) for child in node.children.values()]
        return node.answers[ends]

    def _answer(self, node: Node[A]) -> A | None:
        if node.is_leaf:
            return node.answer
        if node.low == node.high < 1.0 and self.options.min_error > 0:
            # Three decimals: the number is known, only its end token is not read.
            return next(iter(node.below())).answer
        if self.options.exact or node.count > 1:
            return None
        # A single answer is left: its continuation is treated as certain.
        last = node
        while last.children:
            self.trie.grow(last)
            if len(last.children) > 1:
                return None
            last = next(iter(last.children.values()))
        return last.answer

    @property
    def unfinished(self) -> list[Frontier[A]]:
        """The last prefix of the greedy path, if it has not ended: always read, so that `greedy` is known."""
        return [self._greedy] if self._greedy is not None else []

    @property
    def best_log_p(self) -> float:
        return max((f.log_p for f in self.found), default=-math.inf)

    @property
    def reference(self) -> float:
        """The largest known log_p. Probabilities are relative to it, since those of an untrained model underflow."""
        return self._log_ps()[2]

    def masses(self) -> tuple[list[float], list[float]]:
        """The probabilities of `open` and of `found`, relative to `reference`."""
        (unread, read, reference), exp = self._log_ps(), math.exp
        return [exp(log_p - reference) for log_p in unread], [exp(log_p - reference) for log_p in read]

    def _log_ps(self) -> tuple[list[float], list[float], float]:
        unread, read = [item.log_p for item in self.open], [item.log_p for item in self.found]
        return unread, read, max(max(unread, default=-math.inf), max(read, default=-math.inf))


def next_closed(search: TrieSearch[A]) -> list[Frontier[A]]:
    """Read until the unread share cannot exceed the tolerance."""
    unread, read = search.masses()
    total, left = sum(read), sum(unread)
    chosen: list[Frontier[A]] = []
    for mass, i in sorted(zip(unread, range(len(unread)), strict=True), reverse=True):
        # A prefix's own probability bounds that of its answers. Chosen prefixes count with all their probability; if
        # less of it belongs to answers, the next round reads on.
        if left <= search.options.tolerance * total:
            break
        chosen.append(search.open[i])
        total += mass
        left -= mass
    return _with_greedy(chosen, search)


def next_decimals(search: TrieSearch[float]) -> list[Frontier[float]]:
    """Read prefixes up to the wanted decimals if they could move the expectation."""
    options, (unread, read) = search.options, search.masses()
    least = options.min_error * (sum(unread) + sum(read))
    chosen = []
    for item, mass in zip(search.open, unread, strict=True):
        if mass < least:  # whatever the spread, which is 1 at most
            continue
        # "1" is a number already, but with further digits it may not be an answer.
        spread = 1.0 if item.node.low == 1.0 else (item.node.high - item.node.low) / 2
        wanted = item.node.places < options.digits or spread == 1.0
        if (wanted and mass * spread > least) or options.min_error == 0.0:
            chosen.append(item)
    return _with_greedy(chosen, search)


def next_label_sets(search: TrieSearch[tuple[str, ...]]) -> list[Frontier[tuple[str, ...]]]:
    """Best first: read the most likely prefixes until none can lead to a more likely set than the best one found.

    A prefix is never less likely than its continuations, so a search that ends by itself has found the most likely set
    of all; one that ends at `max_reads` has found a set at least as likely as the greedy one.
    """
    if search.reads >= search.options.max_reads:
        return search.unfinished
    bound, share = search.best_log_p, search.options.min_share
    unread, read = search.masses()
    likeliest = sorted(range(len(unread)), key=unread.__getitem__, reverse=True)[: search.options.beam]
    chosen = [item for i in likeliest if (item := search.open[i]).log_p > bound]
    large = share * (sum(unread) + sum(read)) if share > 0 else -math.inf
    chosen += [
        item for item, mass in zip(search.open, unread, strict=True)
        if mass > large and not any(item is other for other in chosen)
    ]  # fmt: skip
    return _with_greedy(chosen, search)


def _with_greedy(chosen: list[Frontier[A]], search: TrieSearch[A]) -> list[Frontier[A]]:
    return chosen + [item for item in search.unfinished if not any(item is other for other in chosen)]
