"""The answers of a question as a tree of tokens: every path from the root to a leaf spells one answer.

Three trees, one a shape of answer space: few answers in full, decimals with what numbers lie below each node, and
label sets, which are too many (2 to the 28 for GoEmotions) and grow where the search goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from emollm.core.answers import answer_string
from emollm.core.tasks import Task, Value

Encode = Callable[[str], list[int]]
"""Token ids of an answer, its end token included: `PromptEncoder.answer`."""

A = TypeVar("A")


class Node(Generic[A]):
    """A token of an answer, and what may follow it."""

    __slots__ = (
        "answer",
        "answers",
        "chain",
        "children",
        "common",
        "count",
        "depth",
        "high",
        "low",
        "pending",
        "places",
        "token",
    )

    def __init__(self, token: int, depth: int) -> None:
        self.token = token
        self.depth = depth
        """Tokens up to here, this one included; 0 for the root."""
        self.children: dict[int, Node[A]] = {}
        self.chain: Chain[A] | None = None
        """What is read together with this token; made when it is first read."""
        self.answer: A | None = None
        """The answer that ends here: only a leaf, whose token is the end token, has one."""
        self.answers: dict[bool, list[tuple[Node[A], A | None]]] = {}
        """What each child stands for, as searches keep it, by whether a number is known before its end token."""
        self.count = 0
        """Answers at or below."""
        self.low, self.high = 1.0, 0.0
        """Smallest and largest number at or below; decimals only."""
        self.places = 0
        """Decimal places that all numbers at or below share; decimals only."""
        self.common: frozenset[str] | None = None
        """Labels that all sets at or below share; label sets only."""
        self.pending: list[tuple[str, ...]] = []
        """Label sets whose path runs through here and that have not been extended; label sets only."""

    @property
    def is_leaf(self) -> bool:
        return not self.children

    def below(self) -> Iterable[Node[A]]:
        """The leaves at or below."""
        if self.is_leaf:
            yield self
        for child in self.children.values():
            yield from child.below()


@dataclass(frozen=True, slots=True)
class Chain(Generic[A]):
    """A token and those that must follow it: read in one go."""

    nodes: list[Node[A]]
    tokens: list[int]
    wanted: list[list[int]]
    """Of each token, what may follow it."""
    keep: bool
    """Whether anything is read after the last token."""


class Trie(Generic[A]):
    """All answers, spelled out."""

    def __init__(self, answers: Iterable[tuple[A, str]], encode: Encode) -> None:
        self.root: Node[A] = Node(-1, 0)
        for answer, text in answers:
            self._insert(answer, encode(text))

    def grow(self, node: Node[A]) -> None:
        """Make sure that the children of `node` are all there."""

    def chain(self, node: Node[A]) -> Chain[A]:
        if node.chain is None:
            nodes = [node]
            while True:
                self.grow(nodes[-1])
                children = list(nodes[-1].children.values())
                if len(children) > 1 or children[0].is_leaf:
                    break
                nodes.append(children[0])
            keep = not all(child.is_leaf for child in children)
            node.chain = Chain(nodes, [n.token for n in nodes], [list(n.children) for n in nodes], keep)
        return node.chain

    def _insert(self, answer: A, ids: Sequence[int]) -> list[Node[A]]:
        """The nodes of the path, root first."""
        path = [self.root]
        for token in ids:
            node = path[-1]
            if token not in node.children:
                node.children[token] = Node(token, node.depth + 1)
            path.append(node.children[token])
        if path[-1].answer is None:
            # Two answers that a tokenizer spells alike cannot be told apart; the first stands.
            path[-1].answer = answer
            for node in path:
                node.count += 1
        return path


class DecimalTrie(Trie[float]):
    """Every spelling of a number in [0, 1] with at most three places.

    "0.5", "0.50" and "0.500" are three paths to one number: a trained model writes the first, an untrained one
    any, and all of them count.
    """

    def __init__(self, encode: Encode) -> None:
        super().__init__((), encode)
        for text in decimal_spellings():
            number = float(text)
            for node in self._insert(number, encode(text)):
                node.low, node.high = min(node.low, number), max(node.high, number)
        self._set_places(self.root)

    def _set_places(self, node: Node[float]) -> None:
        for child in node.children.values():
            self._set_places(child)
        # Numbers from 0.72 to 0.729 share two places.
        width = node.high - node.low
        node.places = next((p for p in (3, 2, 1) if width < 10**-p - 1e-9), 0)


def decimal_spellings() -> list[str]:
    """All decimals from 0 to 1 with at most three places, trailing zeros or not; the canonical ones come first."""
    spellings = ["0", "1"]
    for places in (1, 2, 3):
        spellings += [f"0.{digits:0{places}d}" for digits in range(10**places)] + ["1." + "0" * places]
    return sorted(spellings, key=lambda text: (text != canonical_decimal(float(text)), text))


def canonical_decimal(number: float) -> str:
    """As AAID writes it: at most three places, trailing zeros cut."""
    return f"{number:.3f}".rstrip("0").rstrip(".")


class LabelSetTrie(Trie[tuple[str, ...]]):
    """Canonical answers that name a set: labels in the task's order, or the words for none.

    Grown on demand: a set is extended by one more label when the search comes near its end. Every path comes from
    the tokenizer, whole: nothing is assumed about where it cuts, but that a label more changes nothing earlier than
    `_MARGIN` tokens before the end.
    """

    _MARGIN = 4

    def __init__(self, task: Task, encode: Encode) -> None:
        super().__init__((), encode)
        self._task, self._encode = task, encode
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
            later = self._task.labels[self._task.labels.index(labels[-1]) + 1 :]
            for label in later:
                self._add((*labels, label))

    def _add(self, labels: tuple[str, ...]) -> None:
        path = self._insert(labels, self._encode(answer_string(self._task, labels)))
        named = frozenset(labels)
        for node in path:
            node.common = named if node.common is None else node.common & named
        if labels:
            # Whichever of the last nodes the search meets first extends the set.
            for node in path[max(0, len(path) - 1 - self._MARGIN) : -1]:
                node.pending.append(labels)


def closed_answers(task: Task, emotion: str | None) -> list[tuple[Value, str]]:
    """Value and string of every answer of an ordinal or single-label task."""
    return [(value, answer_string(task, value, emotion)) for value in task.answer_values]
