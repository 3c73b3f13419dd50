"""VADER's four human-rated sets: snippets of Amazon and film reviews, NYT editorials, and tweets.

Format page: github.com/cjhutto/vaderSentiment, `additional_resources/hutto_ICWSM_2014.tar.gz`:
`amazonReviewSnippets_GroundTruth.txt`, `movieReviewSnippets_...`, `nytEditorialSnippets_...` and
`tweets_GroundTruth.txt`, without header: `id <tab> mean of some twenty ratings, -4..4 <tab> text`.

Traps: some lines contain bytes of Windows-1252, which are decoded; quotes have no meaning (a CSV reader
loses 13 of 1,854 Amazon rows); an id is unique only within its file. There are no splits: all rows are test rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from emollm.core.tasks import TASKS
from emollm.data.corpora.example import BadRow, Example, hand_over
from emollm.data.corpora.rows import Label, Rows, find_file, number

SOURCE = "vader"

# In the order of the published benchmark file.
FILES: Mapping[str, str] = {
    "VADER-Amazon": "amazonReviewSnippets_GroundTruth.txt",
    "VADER-Movie": "movieReviewSnippets_GroundTruth.txt",
    "VADER-NYT": "nytEditorialSnippets_GroundTruth.txt",
    "VADER-Tweets": "tweets_GroundTruth.txt",
}


def read_vader(folder: Path, task_name: str, *, bad: list[BadRow] | None = None) -> list[Example]:
    """All examples of one of the four sets, named by its task.

    Bad rows are added to `bad`, or refused together where it is None. Raises DataError if the file is missing.
    """
    collected: list[BadRow] = []
    rows = Rows(find_file(folder, FILES[task_name]), source=SOURCE, split="test", bad=collected)
    for line, raw in rows.lines(mend=True):
        cells = raw.split("\t", 2)
        if len(cells) == 3:
            row_id, rating, text = cells
            rows.add(line=line, id=row_id, text=text, labels=[Label(TASKS[task_name], rating, number)])
        else:
            rows.reject(line, raw, f"{len(cells)} columns, expected id, mean rating, text")
    hand_over(collected, bad)
    return rows.examples
