"""The page of scale holds what the script works out, and the script agrees with what was measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.scaling import Annotation, Training, body, filled
from emollm.core.bases import BASES, SERIES
from emollm.core.errors import DataError
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "scaling.md"


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text()
    assert filled(text) == text, "run: python -m cluster.scaling --write docs/scaling.md"


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(DataError, match="0 places for the table training"):
        filled("# nothing")


def test_operations_a_post_are_those_that_the_benchmark_counted() -> None:
    # LOG.md, scoring over a trie: 122 and 67 GFLOP a post.
    for engine, counted in (("exact", 122e9), ("quick", 67e9)):
        job = Annotation(base="smollm2-135m-instruct", engine=engine, posts=1)
        assert job.flops_a_post == pytest.approx(counted, rel=0.01)
    exact = Annotation(base="smollm2-135m-instruct", engine="exact", posts=1)
    slow, fast = (0.52 * peak / exact.flops_a_post for peak in (131e9, 160e9))
    assert slow < 0.58 < fast


@pytest.mark.parametrize("base", sorted({model.base for model in SERIES.values()}))
def test_parameters_add_up(base: str) -> None:
    assert 0.8 < body(base) / BASES[base].parameters < 1


def test_memory_and_time_go_the_way_they_must() -> None:
    two, eight, many = (Training(base="llama-2-7b", gpus=gpus) for gpus in (2, 8, 64))
    # 2 bytes of weights a parameter on each GPU, 14 of the rest over all, by hand: 13.5 + 47.2 GB, and activations.
    assert two.memory == pytest.approx(13.5e9 + 47.2e9 + 3.7e9, rel=0.01)
    assert (two.card, eight.card, Training(base="llama-2-13b-chat", gpus=2).card) == (80, 40, None)
    assert two.compute_s == pytest.approx(4 * eight.compute_s)
    assert many.exchange_s(link=50e9) > many.compute_s  # what the page says of 64 GPUs


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text().replace("emollama-7b", "gone"))
    command = [sys.executable, "-m", "cluster.scaling"]
    subprocess.run([*command, "--write", str(page)], cwd=ROOT, check=True)
    assert page.read_text() == PAGE.read_text()
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert printed.count("\n| --- |") == 3
