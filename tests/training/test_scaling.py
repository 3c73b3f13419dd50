"""The page of scale holds what the plan works out, and the plan agrees with what was counted."""

from __future__ import annotations

import re

import pytest

from benchmarks.scaling_table import filled
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "scaling.md"


@pytest.mark.slow
def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page, "run: python -m benchmarks.scaling_table --write docs/scaling.md"


def test_operations_per_post_are_those_that_the_benchmark_counted() -> None:
    # LOG.md, scoring over a trie: 122 and 67 GFLOP per post.
    rows = re.findall(
        r"^\| smollm2-135m-instruct \| constrained[^|]* \| \d+ \| (\d+) \|", PAGE.read_text(), re.MULTILINE
    )
    assert [int(row) for row in rows] == [pytest.approx(122, rel=0.02), pytest.approx(67, rel=0.02)]


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(AssertionError, match="0 places for the table training"):
        filled("# nothing")
