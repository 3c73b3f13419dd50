"""What a report says of an annotated corpus, as data: page and CSV files show the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emollm.study.beside import Agreement
from emollm.study.correction import Method
from emollm.study.differences import Difference
from emollm.study.estimates import Estimate
from emollm.study.layout import Layout
from emollm.study.options import ReportConfig
from emollm.study.sample import SampledPosts
from emollm.study.source import Measure, QuestionColumn
from emollm.study.words import Word


@dataclass(slots=True)
class Findings:
    """Everything that the page and the CSV files show."""

    config: ReportConfig
    about: dict[str, Any]
    """What the output says of itself: model, tasks, engine."""
    layout: Layout
    questions: list[QuestionColumn]
    measures: list[Measure]
    posts: int
    failed: int
    """Posts without any answer."""
    authors: int | None
    method: Method | None
    labelled: int
    whole: list[Estimate]
    by_group: list[list[Estimate]]
    by_period: list[list[Estimate]]
    by_cell: list[list[Estimate]]
    """Groups x periods, groups outside."""
    volume: NDArray[np.int64]
    """Posts [groups, periods]."""
    differences: list[Difference]
    words: dict[tuple[str, str], list[Word]]
    """By what they go with: ("label", "e_c=joy") or ("group", name)."""
    sample: SampledPosts | None
    agreements: list[Agreement]
    notes: list[str] = field(default_factory=list)
