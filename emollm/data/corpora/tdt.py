"""Target-dependent Twitter sentiment (Dong et al., 2014): tweets about a named person or thing.

Format page: the release of "Adaptive Recursive Neural Network for Target-dependent Twitter Sentiment
Classification" (ACL 2014), `train.raw` and `test.raw`: three lines per row, the text with `$T$` where the target
stood, the target, and -1, 0 or 1.

Traps: train has CRLF, test does not; a missing or extra line shifts all rows after it, so each group of three lines is
checked. The benchmark puts the target back and does not say which it was, so for a tweet that praises one
thing and blames another the target of the question is unknown.
"""

from __future__ import annotations

from pathlib import Path

from emollm.core.tasks import TASKS
from emollm.data.corpora.example import BadRow, Example, hand_over
from emollm.data.corpora.rows import Label, Rows, find_file, integer

SOURCE = "tdt"
_MARK = "$T$"


def read_tdt(folder: Path, split: str, *, with_target: bool = False, bad: list[BadRow] | None = None) -> list[Example]:
    """All examples of "train" or "test", with the target put back into the text.

    `with_target` says it beside the text, too, as the published benchmark does not.
    Bad rows are added to `bad`, or refused together where it is None. Raises DataError if the file is missing.
    """
    collected: list[BadRow] = []
    path = find_file(folder, f"{split}.raw")
    rows = Rows(path, source=SOURCE, split=split, bad=collected)
    waiting: list[tuple[int, str]] = []
    for line, raw in rows.lines():
        # A text marks its target; if it comes too early, the lines before it are left over.
        if waiting and _MARK in raw:
            rows.reject(waiting[0][0], waiting[0][1], f"{len(waiting)} lines before the next text, expected three")
            waiting = []
        waiting.append((line, raw))
        if _MARK not in waiting[0][1]:
            rows.reject(line, raw, f"expected a text with {_MARK} here")
            waiting = []
        elif len(waiting) == 3:
            (first, text), (_, target), (_, label) = waiting
            labels = [Label(TASKS["TDT"], label, integer)]
            # Rows have no ids; like others, we use their number in the file.
            rows.add(line=first, id=f"{split}-{first}", text=text.replace(_MARK, target), labels=labels,
                     target=target if with_target else "")  # fmt: skip
            waiting = []
    if waiting:
        rows.reject(waiting[0][0], waiting[0][1], f"{len(waiting)} lines at the end, expected three")
    hand_over(collected, bad)
    return rows.examples
