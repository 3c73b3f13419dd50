"""Words and word pairs that go with a label or a group: log-odds ratios with an informative Dirichlet prior.

Monroe, Colaresi and Quinn, Political Analysis 16, 2008, equations 15 to 22: the log-odds of a word on one side less
that on the other, both smoothed by the word's share of the whole sample, over its standard error. A post counts a word
once, however often it repeats it.

Shapes: N posts, V words and word pairs.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emollm.study.source import Floats

PRIOR_WORDS = 500.0
"""How many words of prior are spread over the vocabulary: few against a side of thousands, many against one of ten."""
_WORD = re.compile(r"https?://\S+|[@#]?\w+(?:['’]\w+)*", re.UNICODE)
_FEWEST_POSTS = 5
_MOST_WORDS = 200_000
_EMOJI = re.compile("[☀-➿\U0001f300-\U0001faff]")


@dataclass(frozen=True, slots=True)
class Word:
    word: str
    z: float
    """Standard errors from 0; above 2 is worth a look, and thousands of words were looked at."""
    log_odds: float
    posts: int
    """Posts with it on this side."""
    posts_other: int


def words_of(text: str) -> set[str]:
    """The words, word pairs and emoji of a text in lower case; addresses and names of users stand for themselves."""
    words = ["@user" if w[0] == "@" else "http" if "://" in w else w.lower() for w in _WORD.findall(text)]
    pairs = (f"{a} {b}" for a, b in itertools.pairwise(words))
    return {*words, *pairs, *_EMOJI.findall(text)}


class WordCounts:
    """Which of N posts holds which word, as a sparse matrix."""

    def __init__(self, texts: Sequence[str]) -> None:
        from scipy.sparse import csr_matrix

        posts = Counter[str]()
        for start in range(0, len(texts), 5000):
            for text in texts[start : start + 5000]:
                posts.update(words_of(text))
            if len(posts) > 10 * _MOST_WORDS:  # rare ones of a long sample go: memory is bounded
                posts = Counter({word: n for word, n in posts.items() if n > 1})
        kept = sorted((w for w, n in posts.items() if n >= _FEWEST_POSTS), key=lambda w: (-posts[w], w))[:_MOST_WORDS]
        self.words = kept
        places = {word: i for i, word in enumerate(kept)}
        columns: list[int] = []
        ends = [0]
        for text in texts:
            columns += sorted(places[word] for word in words_of(text) if word in places)
            ends.append(len(columns))
        self._held: Any = csr_matrix(
            (np.ones(len(columns), np.float32), np.array(columns, np.int64), np.array(ends, np.int64)),
            shape=(len(texts), len(kept)),
        )

    def posts_with(self, mask_N: NDArray[np.bool_]) -> Floats:
        """[V] posts of a side that hold each word."""
        return np.asarray(self._held.T @ mask_N.astype(np.float64), np.float64)

    def telling(self, side_N: NDArray[np.bool_], other_N: NDArray[np.bool_], *, most: int = 12) -> list[Word]:
        """The words that speak most for one side against the other, strongest first."""
        if not self.words or not side_N.any() or not other_N.any():
            return []
        mine, theirs = self.posts_with(side_N), self.posts_with(other_N)
        log_odds, z = log_odds_ratios(mine, theirs, mine + theirs)
        order = [int(v) for v in np.argsort(-z, kind="stable") if z[v] > 0 and mine[v] >= _FEWEST_POSTS]
        chosen = _without_echoes((self.words[v] for v in order), most)
        found = []
        for v in order:
            if self.words[v] in chosen:
                found.append(Word(self.words[v], float(z[v]), float(log_odds[v]), int(mine[v]), int(theirs[v])))
        return found


def log_odds_ratios(mine_V: Floats, theirs_V: Floats, background_V: Floats) -> tuple[Floats, Floats]:
    """(log-odds ratio [V], the same over its standard error [V])."""
    prior = PRIOR_WORDS * background_V / max(float(background_V.sum()), 1.0)
    total = float(prior.sum())
    odds = []
    for side in (mine_V, theirs_V):
        held = side + prior
        odds.append(np.log(held / np.maximum(side.sum() + total - held, 1e-9) + 1e-300))
    apart = odds[0] - odds[1]
    error = np.sqrt(1 / np.maximum(mine_V + prior, 1e-9) + 1 / np.maximum(theirs_V + prior, 1e-9))
    return apart, apart / error


def _without_echoes(words: Iterator[str], most: int) -> set[str]:
    """The first `most`, without pairs both of whose words stand there already."""
    chosen: dict[str, None] = {}
    for word in words:
        if len(chosen) == most:
            break
        if not (" " in word and all(part in chosen for part in word.split())):
            chosen[word] = None
    return set(chosen)
