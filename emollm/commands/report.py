"""Report on an annotated corpus by group and time: emollm report OUTPUT --by lang --over created_at"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from emollm.core.options import read_config


def main(argv: Sequence[str]) -> None:
    from emollm.study.options import ReportConfig

    config = read_config(ReportConfig, argv, prog="report", bare=("output",))

    from emollm.core.progress import progress_bar
    from emollm.study.report import PAGE_FILE, report

    with progress_bar("reading", None, "posts") as advance:
        found = report(config, lexicons=lexicons(config.beside), on_posts=lambda new, total: advance(new, total=total))
    for note in found.notes:
        print(f"- {note}")
    holding = sum(one.holds for one in found.differences)
    if found.differences:
        print(f"{holding:,} of {len(found.differences):,} differences hold after Holm's correction")
    print(f"page: {config.out_folder / PAGE_FILE}")


def lexicons(names: Sequence[str]) -> dict[str, Callable[[str], float]]:
    """The polarity functions of these names. Raises ConfigError naming the package that is missing."""
    from emollm.evaluation.baselines.polarity import textblob_polarity, vader_polarity

    openers = {"vader": vader_polarity, "textblob": textblob_polarity}
    return {name: functools.lru_cache(maxsize=100_000)(openers[name]()) for name in names}
