"""The report as a folder: page, CSV files and the record of the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from emollm.core.folders import check_new, new_folder, write_run
from emollm.study.findings import Polarity, find
from emollm.study.found import Findings
from emollm.study.options import ReportConfig
from emollm.study.page import page
from emollm.study.tables import write_tables

PAGE_FILE = "report.html"


def report(
    config: ReportConfig,
    *,
    lexicons: Mapping[str, Polarity] | None = None,
    on_posts: Callable[[int, int], None] = lambda _new, _total: None,
) -> Findings:
    """Write `config.out_folder`. `lexicons` are the functions behind `config.beside`, text to polarity in -1..1.

    Raises ConfigError or DataError, before anything is written, for what does not fit.
    """
    check_new(config.out_folder, overwrite=config.overwrite)
    found = find(config, lexicons=lexicons, on_posts=on_posts)
    with new_folder(config.out_folder, overwrite=config.overwrite) as folder:
        (folder / PAGE_FILE).write_text(page(found), encoding="utf-8")
        write_tables(folder, found)
        write_run(folder, job="report", config=config.model_dump(mode="json"), summary=summary(found))
    return found


def summary(found: Findings) -> dict[str, Any]:
    """Counts of what was read and found."""
    return {
        "posts": found.posts,
        "failed": found.failed,
        "groups": len(found.layout.sizes),
        "periods": len(found.layout.period_names),
        "authors": found.authors,
        "method": found.method,
        "labelled": found.labelled,
        "differences": len(found.differences),
        "differences_that_hold": sum(one.holds for one in found.differences),
        "notes": found.notes,
    }
