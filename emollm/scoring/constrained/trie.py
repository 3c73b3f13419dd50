"""The answers of a question as a trie of tokens: every path from the root to a leaf spells one answer.

There are three tries, one per kind of answer space: a few complete answers; decimals, with the range of numbers below
each node; and label sets, which are too many (2^28 for GoEmotions) and grow during the search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from emollm.core.answers import answer_string
from emollm.core.tasks import Task

Encode = Callable[[str], list[int]]
"""Token ids of an answer, including the end token: `PromptEncoder.answer`."""

A = TypeVar("A")


class Node(Generic[A]):
    """A token of an answer, and the tokens that may follow it."""

    __slots__ = ("answer", "children", "common", "count", "high", "low", "pending", "token")

    def __init__(self, token: int) -> None:
        self.token = token
        self.children: dict[int, Node[A]] = {}
        self.answer: A | None = None
        """The answer that ends here; only a leaf, whose token is the end token, has one."""
        self.count = 0
        """Number of answers at or below this node."""
        self.low, self.high = 1000, 0
        """Decimals only: smallest and largest number at or below this node, in thousandths."""
        self.common: frozenset[str] | None = None
        """Label sets only: labels shared by all sets at or below this node."""
        self.pending: list[tuple[str, ...]] = []
        """Label sets only: sets whose path runs through this node and that have not been extended."""

    @property
    def is_leaf(self) -> bool:
        return not self.children

    def below(self) -> Iterable[Node[A]]:
        """The leaves at or below this node."""
        if self.is_leaf:
            yield self
        for child in self.children.values():
            yield from child.below()


class Trie(Generic[A]):
    """A trie of all answers."""

    def __init__(self, answers: Iterable[tuple[A, str]], encode: Encode) -> None:
        self.root: Node[A] = Node(-1)
        for answer, text in answers:
            self._insert(answer, encode(text))

    def grow(self, node: Node[A]) -> None:
        """Create missing children of `node`."""

    def shares(self, node: Node[A]) -> dict[int, float]:
        """For each outcome of the task, by its number, the part of the node's probability that counts towards it."""
        raise NotImplementedError

    def chain(self, node: Node[A]) -> list[Node[A]]:
        """The node and those that must follow it; the last one's children are all there, and are none or several, or
        an end.
        """
        nodes = [node]
        while True:
            self.grow(nodes[-1])
            children = list(nodes[-1].children.values())
            if len(children) != 1 or children[0].is_leaf:
                return nodes
            nodes.append(children[0])

    def only_leaf(self, node: Node[A]) -> Node[A] | None:
        """The leaf below a node, if there is one alone."""
        last = self.chain(node)[-1] if node.children else node
        leaves = list(last.children.values()) or [last]
        return leaves[0] if node.count == 1 and len(leaves) == 1 else None

    def _insert(self, answer: A, ids: Sequence[int]) -> list[Node[A]]:
        """The nodes of the path, root first."""
        path = [self.root]
        for token in ids:
            node = path[-1]
            if token not in node.children:
                node.children[token] = Node(token)
            path.append(node.children[token])
        if path[-1].answer is None:
            # Two answers with the same tokens cannot be distinguished; the first is kept.
            path[-1].answer = answer
            for node in path:
                node.count += 1
        return path


class ClosedTrie(Trie[int]):
    """The answers of an ordinal or single-label task, by their numbers among its values."""

    def __init__(self, task: Task, emotion: str | None, encode: Encode) -> None:
        strings = (answer_string(task, value, emotion) for value in task.answer_values)
        super().__init__(enumerate(strings), encode)

    def shares(self, node: Node[int]) -> dict[int, float]:
        return {number: 1 / node.count for leaf in node.below() if (number := leaf.answer) is not None}


class DecimalTrie(Trie[int]):
    """Every spelling of a number in [0, 1] with at most three decimals; an answer is a number of thousandths.

    "0.5", "0.50" and "0.500" are three paths to one number: a trained model writes the first, an untrained one
    any, and all of them count.
    """

    def __init__(self, encode: Encode) -> None:
        super().__init__((), encode)
        for text in decimal_spellings():
            number = round(float(text) * 1000)
            for node in self._insert(number, encode(text)):
                node.low, node.high = min(node.low, number), max(node.high, number)

    def shares(self, node: Node[int]) -> dict[int, float]:
        return dict.fromkeys(range(node.low, node.high + 1), 1 / (node.high + 1 - node.low))


def decimal_spellings() -> list[str]:
    """All decimals from 0 to 1 with at most three places, with and without trailing zeros; canonical ones first."""
    spellings = ["0", "1"]
    for places in (1, 2, 3):
        spellings += [f"0.{digits:0{places}d}" for digits in range(10**places)] + ["1." + "0" * places]
    return sorted(spellings, key=lambda text: (text != canonical_decimal(float(text)), text))


def canonical_decimal(number: float) -> str:
    """The spelling of AAID: at most three decimals, without trailing zeros."""
    return f"{number:.3f}".rstrip("0").rstrip(".")


class LabelSetTrie(Trie[tuple[str, ...]]):
    """Canonical answers that name a set: labels in the task's order, or the text for the empty set.

    Grown on demand: a set is extended by one more label when the search comes near its end. Every path is tokenised as
    a whole. The only assumption about the tokenizer is that a further label does not change tokens earlier than
    `_MARGIN` before the end.
    """

    _MARGIN = 4

    def __init__(self, task: Task, encode: Encode) -> None:
        super().__init__((), encode)
        self._task, self._encode = task, encode
        self._numbers = {label: number for number, label in enumerate(task.labels)}
        self._extended: set[tuple[str, ...]] = set()
        self._add(())
        for label in task.labels:
            self._add((label,))
        # A search starts from the root's children without growing it: "anger," may be one token, unlike "anger".
        self.grow(self.root)

    def grow(self, node: Node[tuple[str, ...]]) -> None:
        while node.pending:
            labels = node.pending.pop()
            if labels in self._extended:
                continue
            self._extended.add(labels)
            later = self._task.labels[self._numbers[labels[-1]] + 1 :]
            for label in later:
                self._add((*labels, label))

    def shares(self, node: Node[tuple[str, ...]]) -> dict[int, float]:
        named = (node.common or ()) if node.answer is None else node.answer
        return {self._numbers[label]: 1.0 for label in named}

    def _add(self, labels: tuple[str, ...]) -> None:
        path = self._insert(labels, self._encode(answer_string(self._task, labels)))
        named = frozenset(labels)
        for node in path:
            node.common = named if node.common is None else node.common & named
        if labels:
            # Whichever of the last nodes the search meets first extends the set.
            for node in path[max(0, len(path) - 1 - self._MARGIN) : -1]:
                node.pending.append(labels)
