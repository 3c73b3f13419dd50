"""What searches know of their tries, as arrays: nodes by number, and the chains of tokens that are read after them.

Only nodes that a search has come to have a number. Tries are Python objects and grow; each of their parts is put into
the arrays once, when the first search comes to it, and never changes there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emollm.scoring.arrays import Floats
from emollm.scoring.constrained.ragged import Bools, Growing, Ints, Ragged
from emollm.scoring.constrained.trie import Node, Trie

_NOT_READ = -1


class NodeTable:
    """The nodes of all tries of an engine, and for those that were read their chains.

    A chain is the token of a node and those that must follow it. It is read at once, and its children are the nodes of
    the tokens that may come after its last one.
    """

    def __init__(self, *, exact: bool, all_ends: bool) -> None:
        """`exact` is as for `SearchOptions`; `all_ends`: whether it is also read how numbers of three decimals end."""
        self._exact, self._all_ends = exact, all_ends
        self._nodes: list[tuple[Trie[Any], Node[Any]]] = []
        self._chain = Growing(int)
        self._is_answer, self._spread, self._places = Growing(bool), Growing(float), Growing(int)
        self.answers: list[Any] = []
        """The answer that each node stands for, None where there may be several."""
        self.shares = Ragged(int, float)
        """For each node the outcomes that its probability counts towards, and the part of it: `Trie.shares`."""
        self.tokens = Ragged(int)
        """The tokens of each chain."""
        self.children = Ragged(int, int)
        """For each chain the tokens that may follow it, and their nodes."""
        self._is_read_on = Growing(bool)

    def root(self, trie: Trie[Any]) -> int:
        """The node of a trie's root; its chain, which has no tokens, ends at the prompt."""
        self._add_node(trie, trie.root)
        root = len(self._nodes) - 1
        self._add_chain(root, trie.root, [])
        return root

    def chains(self, node_N: Ints) -> Ints:
        """The chains of nodes."""
        chain_N: Ints = self._chain.values[node_N]
        if (chain_N == _NOT_READ).any():
            for node in np.unique(node_N[chain_N == _NOT_READ]).tolist():
                chain = self._nodes[node][0].chain(self._nodes[node][1])
                self._add_chain(node, chain[-1], [each.token for each in chain])
            chain_N = self._chain.values[node_N]
        return chain_N

    def is_answer(self, node_N: Ints) -> Bools:
        """Whether nodes stand for an answer."""
        found_N: Bools = self._is_answer.values[node_N]
        return found_N

    def is_read_on(self, chain_C: Ints) -> Bools:
        """Whether anything is read after the last token of chains."""
        found_C: Bools = self._is_read_on.values[chain_C]
        return found_C

    def decimals(self, node_N: Ints) -> tuple[Floats, Ints]:
        """How far the numbers below nodes are from their middle at most, and the decimal places that they share."""
        return self._spread.values[node_N], self._places.values[node_N]

    def _add_chain(self, node: int, last: Node[Any], tokens: list[int]) -> None:
        trie, children = self._nodes[node][0], list(last.children.values())
        self._chain.values[node] = len(self._is_read_on)
        self.tokens.add(tokens)
        self.children.add(
            [child.token for child in children], range(len(self._nodes), len(self._nodes) + len(children))
        )
        self._is_read_on.add([not all(child.is_leaf for child in children)])
        for child in children:
            self._add_node(trie, child)

    def _add_node(self, trie: Trie[Any], node: Node[Any]) -> None:
        leaf = self._answer(trie, node)
        shares = trie.shares(leaf or node)
        width = node.high - node.low
        self._nodes.append((trie, node))
        self._chain.add([_NOT_READ])
        self._is_answer.add([leaf is not None])
        self.answers.append(leaf.answer if leaf else None)
        self.shares.add(list(shares), list(shares.values()))
        # "1" is a number already, but with further digits it may not be an answer.
        self._spread.add([1.0 if node.low == 1000 else width / 2000])
        # Numbers from 0.72 to 0.729 share two places.
        self._places.add([next((places for places in (3, 2, 1) if width < 10 ** (3 - places)), 0)])

    def _answer(self, trie: Trie[Any], node: Node[Any]) -> Node[Any] | None:
        """The leaf of the answer that a node stands for, if for one alone."""
        if node.is_leaf:
            return node
        if node.low == node.high < 1000 and not self._all_ends:
            # Three decimals: the number is known, only its end token is not read.
            return next(iter(node.below()))
        # A single answer is left: its continuation is treated as certain.
        return None if self._exact else trie.only_leaf(node)
