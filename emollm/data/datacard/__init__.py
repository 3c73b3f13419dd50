"""The card of a data folder, `card.html`: what was built, in counts and plots.

It contains no text of a corpus, so it may be shown even if the corpus may not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from emollm.core.tasks import Task
from emollm.data.datacard.counts import collect
from emollm.data.datacard.page import page


def write_card(
    folder: Path,
    *,
    job: str,
    tables: Mapping[str, pa.Table],
    tasks: Sequence[Task],
    facts: Mapping[str, Any],
    tokenizer: Path | None = None,
    against: Mapping[str, pa.Table] | None = None,
) -> None:
    """Write the card of `tables` (rows by split or part; columns: `instructions.SCHEMA`) into `folder`.

    `facts` are those of the manifest. `tokenizer` is a model folder or tokenizer.json for counting tokens; None
    counts words. `against` are training tables whose texts are searched for in these.
    """
    card = collect(job, tables, tasks, facts, tokenizer=tokenizer, against=against)
    (folder / "card.html").write_text(page(card), encoding="utf-8")
