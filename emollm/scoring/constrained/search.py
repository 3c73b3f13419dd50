"""The searches for the answers of a batch of questions: which prefixes the model reads next, and what they found.

A search knows the probability of every prefix that is one token longer than a read prefix. Reading a prefix gives the
probabilities of its continuations. Every search ends, since tries are finite and each reading goes deeper. All searches
of a batch go on together: their prefixes lie in the same arrays, those of one search in the order of their finding.

Shapes: S searches, N prefixes, C prefixes that are read together, A continuations of them, P numbers of a slot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emollm.core.tasks import Kind, Task, Value
from emollm.scoring.arrays import Floats
from emollm.scoring.constrained.ragged import Bools, Ints, within
from emollm.scoring.constrained.reader import Chains, Reads
from emollm.scoring.constrained.table import NodeTable

TOLERANCE = 5e-4
"""Largest share of all answers' probability that may stay unread where a distribution counts as exact."""


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


class Prefixes(NamedTuple):
    """Prefixes of answers whose probabilities are known, and complete answers."""

    search_N: Ints
    node_N: Ints
    """The node of the last token, by its number in the table."""
    log_p_N: Floats
    slot_NP: Ints
    """The model's state before the last token, which it has not read."""
    is_greedy_N: Bools
    """Whether greedy decoding within the answers has come here last."""

    def at(self, index: Any) -> Prefixes:
        return Prefixes(*(column[index] for column in self))


def joined(parts: Sequence[Prefixes]) -> Prefixes:
    return Prefixes(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class Searched(NamedTuple):
    """What one search is for."""

    root: int
    """The node of the table from which it begins."""
    task: Task
    values: tuple[Value, ...]
    """`Task.answer_values`."""


class TrieSearches:
    def __init__(self, table: NodeTable, searched: Sequence[Searched], options: SearchOptions) -> None:
        count, kinds = len(searched), [each.task.kind for each in searched]
        self.table, self.searched, self.options = table, searched, options
        self.reads_S = np.full(count, -1)  # the prompt is none
        self.best_S = np.full(count, -np.inf)
        """The log-probability of the most likely answer found."""
        self._found_S = np.full(count, -np.inf)
        """The log-probability of all answers found together."""
        self._found: list[Prefixes] = []
        self._left: list[Prefixes] = []
        self._kinds = [(choose, np.array([kind in its for kind in kinds])) for its, choose in _CHOOSERS]
        root_S, slot_SP = np.array([each.root for each in searched]), np.zeros((count, 0), int)
        self.open = Prefixes(np.arange(count), root_S, np.zeros(count), slot_SP, np.ones(count, dtype=bool))

    def roots(self) -> Chains:
        """The roots' chains: no tokens, and those that may follow the prompts."""
        return self._ask(np.arange(len(self.reads_S)))

    def next(self) -> Chains:
        """The chains to read next, none if all searches have ended. A search that asks for nothing has ended."""
        chosen_C = self._chosen()
        asks_S = np.zeros(len(self.reads_S), dtype=bool)
        asks_S[self.open.search_N[chosen_C]] = True
        goes_on_N = asks_S[self.open.search_N]
        self._left.append(self.open.at(~goes_on_N))
        self.open = self.open.at(goes_on_N)
        return self._ask(goes_on_N.cumsum()[chosen_C] - 1)

    def take(self, read: Reads) -> None:
        """What the model gave for the chains last asked for."""
        asked, chains, table = self._asked, self._chains, self.table
        self.reads_S += np.bincount(asked.search_N, minlength=len(self.reads_S))
        chain_N, is_inner_N = chains.split()
        inner_C = np.bincount(chain_N[is_inner_N], read.log_ps[is_inner_N], minlength=len(asked.node_N))
        of_A, log_p_A = chain_N[~is_inner_N], read.log_ps[~is_inner_N]
        _, (_, node_A) = table.children.take(table.chains(asked.node_N))
        new = Prefixes(
            asked.search_N[of_A], node_A, (asked.log_p_N + inner_C)[of_A] + log_p_A, read.slot_CP[of_A],
            _likeliest(log_p_A, of_A, chains.num_after_C) & asked.is_greedy_N[of_A],
        )  # fmt: skip
        is_answer_A = table.is_answer(node_A)
        found, unread = new.at(is_answer_A), new.at(~is_answer_A)
        np.maximum.at(self.best_S, found.search_N, found.log_p_N)
        np.logaddexp.at(self._found_S, found.search_N, found.log_p_N)
        self._found.append(found)
        self.open = joined([self.open, unread]) if len(self.open.node_N) else unread

    @property
    def found(self) -> Prefixes:
        """The complete answers."""
        return joined(self._found)

    @property
    def left(self) -> Prefixes:
        """The prefixes that ended searches have not read."""
        return joined(self._left)

    def masses(self) -> Masses:
        search_N, log_p_N = self.open.search_N, self.open.log_p_N
        reference_S = self.best_S.copy()
        np.maximum.at(reference_S, search_N, log_p_N)
        mass_N = np.exp(log_p_N - reference_S[search_N])
        open_S = np.asarray(np.bincount(search_N, mass_N, minlength=len(reference_S)), dtype=np.float64)
        return Masses(mass_N, open_S, np.exp(self._found_S - reference_S))

    def _chosen(self) -> Ints:
        masses = self.masses()
        chosen = [
            choose(self, np.flatnonzero(is_one_S[self.open.search_N]), masses) for choose, is_one_S in self._kinds
        ]
        # The last prefix of the greedy path is always read, so that the greedy answer is known.
        greedy = np.flatnonzero(self.open.is_greedy_N)
        return np.concatenate([*chosen, np.setdiff1d(greedy, np.concatenate(chosen))])

    def _ask(self, chosen_C: Ints) -> Chains:
        """The chains of these prefixes, which are open no longer."""
        self._asked = self.open.at(chosen_C)
        self.open = self.open.at(np.delete(np.arange(len(self.open.node_N)), chosen_C))
        chain_C = self.table.chains(self._asked.node_N)
        length_C, (tokens,) = self.table.tokens.take(chain_C)
        num_after_C, (after, _) = self.table.children.take(chain_C)
        is_read_on_C = self.table.is_read_on(chain_C)
        self._chains = Chains(self._asked.slot_NP, length_C, tokens, num_after_C, after, is_read_on_C)
        return self._chains


class Masses(NamedTuple):
    """Probabilities relative to the largest known of each search, since those of an untrained model underflow."""

    open_N: Floats
    open_S: Floats
    found_S: Floats
    """Of all answers that were found."""

    @property
    def all(self) -> Floats:
        """[S] of everything that is known."""
        return self.open_S + self.found_S


def _likeliest(log_p_A: Floats, of_A: Ints, count_C: Ints) -> Bools:
    """Whether each continuation is the most likely one of its prefix, the first of equals."""
    best_C = np.maximum.reduceat(log_p_A, count_C.cumsum() - count_C)
    best = np.flatnonzero(log_p_A == best_C[of_A])
    _, firsts = np.unique(of_A[best], return_index=True)
    is_first_A = np.zeros(len(of_A), dtype=bool)
    is_first_A[best[firsts]] = True
    return is_first_A


def _ranks(search_N: Ints) -> Ints:
    """The place of each prefix in its search; those of a search are side by side."""
    _, count = np.unique(search_N, return_counts=True)
    return within(count)


def next_closed(searches: TrieSearches, items: Ints, masses: Masses) -> Ints:
    """Read until the unread share cannot exceed the tolerance."""
    search_N, mass_N = searches.open.search_N, masses.open_N
    # The most likely first, and of equals the last.
    items = items[np.lexsort((-items, -mass_N[items], search_N[items]))]
    search, rank = search_N[items], _ranks(search_N[items])
    mass_SR = np.zeros((len(masses.found_S), rank.max(initial=0) + 1))
    mass_SR[search, rank] = mass_N[items]
    # A prefix's own probability bounds that of its answers. Chosen prefixes count with all their probability; if less
    # of it belongs to answers, the next round reads on.
    left_SR = mass_SR[:, ::-1].cumsum(1)[:, ::-1]
    total_SR = masses.found_S[:, None] + mass_SR.cumsum(1) - mass_SR
    is_read_SR: Bools = left_SR > searches.options.tolerance * total_SR
    is_read: Bools = is_read_SR[search, rank]
    return items[is_read]


def next_decimals(searches: TrieSearches, items: Ints, masses: Masses) -> Ints:
    """Read prefixes up to the wanted decimals if they could move the expectation."""
    options, mass = searches.options, masses.open_N[items]
    least = options.min_error * masses.all[searches.open.search_N[items]]
    spread, places = searches.table.decimals(searches.open.node_N[items])
    is_wanted: Bools = (places < options.digits) | (spread == 1.0)
    is_read: Bools = (is_wanted & (mass * spread > least)) | (options.min_error == 0.0)
    return items[is_read]


def next_label_sets(searches: TrieSearches, items: Ints, masses: Masses) -> Ints:
    """Best first: read the most likely prefixes until none can lead to a more likely set than the best one found.

    A prefix is never less likely than its continuations, so a search that ends by itself has found the most likely set
    of all; one that ends at `max_reads` has found a set at least as likely as the greedy one.
    """
    options, search_N, mass_N = searches.options, searches.open.search_N, masses.open_N
    items = items[searches.reads_S[search_N[items]] < options.max_reads]
    better = items[searches.open.log_p_N[items] > searches.best_S[search_N[items]]]
    better = better[np.lexsort((-mass_N[better], search_N[better]))]
    likeliest = better[_ranks(search_N[better]) < options.beam]
    large_S = options.min_share * masses.all if options.min_share > 0 else np.full(len(masses.all), -np.inf)
    large = items[mass_N[items] > large_S[search_N[items]]]
    return np.concatenate([likeliest, np.setdiff1d(large, likeliest)])


_CHOOSERS: list[tuple[tuple[Kind, ...], Callable[[TrieSearches, Ints, Masses], Ints]]] = [
    ((Kind.ORDINAL, Kind.SINGLE_LABEL), next_closed),
    ((Kind.REGRESSION,), next_decimals),
    ((Kind.LABEL_SET,), next_label_sets),
]
