"""Stanford Sentiment Treebank: review sentences, as bracketed trees or as the original distribution.

Format page: nlp.stanford.edu/sentiment. Trees (`trainDevTestTrees_PTB.zip`): `train.txt`, `dev.txt`, `test.txt`,
one tree per line, each node `(label children-or-word)`; the root's label 0..4 is the sentence's class. Distribution
(`stanfordSentimentTreebank.zip`): `datasetSentences.txt` and `datasetSplit.txt` (sentence index, text or split;
split 1 train, 2 test, 3 dev), `dictionary.txt` (`phrase|id`), `sentiment_labels.txt` (`id|score`, 0..1).

Traps: the score is only in the distribution, and is found by the sentence's text, which `dictionary.txt`
spells with `( )` and `datasetSentences.txt` with `-LRB- -RRB-`, and there with UTF-8 read as Latin-1 ("cafÃ©").
The classes are five equal bins of the score that include their upper bound: 0.2 is still "very negative".
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from emollm.core.errors import DataError
from emollm.core.tasks import TASKS
from emollm.data.corpora.example import BadRow, Example, hand_over
from emollm.data.corpora.rows import Label, Rows, find_file, integer, number

SOURCE = "sst"
DISTRIBUTION = ("datasetSentences.txt", "datasetSplit.txt", "dictionary.txt", "sentiment_labels.txt")
_SPLIT_NUMBERS = {"train": "1", "test": "2", "dev": "3"}
# Blanks, not \s: three training sentences contain a no-break space inside a word.
_LEAF = re.compile(r"\(\d+ ([^() ]+)\)")
_NODE = re.compile(r"\(\d+ (?:[^() \x00]+|\x00(?: ?\x00)*)\)")


def read_sst(folder: Path, split: str, *, task_name: str = "SST5", bad: list[BadRow] | None = None) -> list[Example]:
    """All sentences of a split: `SST5` (class, from either form) or `SST` (score, from the distribution only).

    Texts are the words separated by blanks, spelled as in the corpus, including brackets (`-LRB-`: see `brackets`).
    Bad rows are added to `bad`, or refused together where it is None. Raises DataError if files are missing.
    """
    collected: list[BadRow] = []
    if has_scores(folder):
        examples = _read_distribution(folder, split, task_name, collected)
    elif task_name == "SST":
        raise DataError(
            f"{folder} lacks {', '.join(n for n in DISTRIBUTION if not list(folder.rglob(n)))}: the score of SST is "
            "not in the trees; give the folder of stanfordSentimentTreebank.zip"
        )
    else:
        examples = _read_trees(find_file(folder, f"{split}.txt"), split, collected)
    hand_over(collected, bad)
    return examples


def has_scores(folder: Path) -> bool:
    """Whether all four files of the distribution are under `folder`."""
    return folder.is_dir() and all(list(folder.rglob(name)) for name in DISTRIBUTION)


def brackets(text: str) -> str:
    """Replace `-LRB-` and `-RRB-` with brackets."""
    return text.replace("-LRB-", "(").replace("-RRB-", ")")


def _read_trees(path: Path, split: str, bad: list[BadRow]) -> list[Example]:
    rows = Rows(path, source=SOURCE, split=split, bad=bad)
    for line, raw in rows.lines():
        tree = raw.strip()
        if not _is_tree(tree):
            rows.reject(line, raw, "not one bracketed tree such as (3 (2 a) (4 word))")
            continue
        label = Label(TASKS["SST5"], tree[1:].split(" ", 1)[0], integer)
        # The trees have no ids; like others, we use the position in the split.
        rows.add(line=line, id=f"{split}-{line}", text=" ".join(_LEAF.findall(tree)), labels=[label])
    return rows.examples


def _is_tree(text: str) -> bool:
    """Whether brackets match and every node is a word or nodes: inner nodes are folded until one is left."""
    while "(" in text:
        folded = _NODE.sub("\0", text)
        if folded == text:
            return False
        text = folded
    return text == "\0"


def _read_distribution(folder: Path, split: str, task_name: str, bad: list[BadRow]) -> list[Example]:
    sentences, splits, dictionary, labels = (find_file(folder, name) for name in DISTRIBUTION)
    in_split = {a for _, a, b in _pairs(splits, ",", "splitset_label", bad) if b == _SPLIT_NUMBERS[split]}
    # "|" occurs in a line only before the id; split at the last one.
    phrase_ids = {_plain(phrase): phrase_id for _, phrase, phrase_id in _pairs(dictionary, "|", None, bad)}
    scores = {a: b for _, a, b in _pairs(labels, "|", "sentiment values", bad)}
    rows = Rows(sentences, source=SOURCE, split=split, bad=bad)
    parse = number if task_name == "SST" else _score_class
    for line, index, text in _pairs(sentences, "\t", "sentence", bad):
        if index not in in_split:
            continue
        mended = _mend(text)
        score = scores.get(phrase_ids.get(_plain(mended), ""))
        if score is None:
            rows.reject(
                line, text, "no score: the sentence is not in dictionary.txt or its id not in sentiment_labels.txt"
            )
            continue
        rows.add(line=line, id=f"sentence-{index}", text=mended, labels=[Label(TASKS[task_name], score, parse)])
    return rows.examples


def _pairs(path: Path, separator: str, header: str | None, bad: list[BadRow]) -> Iterator[tuple[int, str, str]]:
    """Line and two cells of each row; a missing `header` or another number of cells is a bad row."""
    rows = Rows(path, source=SOURCE, split="", bad=bad)
    lines = rows.lines()
    if header is not None and (first := next(lines, (1, ""))[1].split(separator))[-1] != header:
        rows.reject_file(first, f"the header does not end in {header!r}", rows=sum(1 for _ in lines))
        return
    for line, raw in lines:
        left, found, right = raw.rpartition(separator) if separator == "|" else raw.partition(separator)
        if found:
            yield line, left, right
        else:
            rows.reject(line, raw, f"no {separator!r} between two cells")


def _plain(text: str) -> str:
    """A common spelling for both files: plain brackets, and slashes without the trees' backslash."""
    return brackets(text).replace("\\/", "/").replace("\\*", "*")


def _mend(text: str) -> str:
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:  # it was correct already
        return text


def _score_class(raw: str) -> int:
    return max(0, math.ceil(round(number(raw) * 5, 9)) - 1)
