"""The readers of TDT (three lines a row) and VADER (odd bytes)."""

from pathlib import Path

import pytest

from emollm.core.errors import DataError
from emollm.core.tasks import TASKS
from emollm.data.corpora.example import BadRow
from emollm.data.corpora.tdt import read_tdt
from emollm.data.corpora.vader import FILES as VADER_FILES
from emollm.data.corpora.vader import read_vader

FILES = Path(__file__).parent / "files"


def test_tdt_puts_the_target_back_wherever_it_stood() -> None:
    assert [(e.id, e.line, e.text, e.value) for e in read_tdt(FILES / "tdt", "test")] == [
        ("test-1", 1, "i like the red lamp , really", 1),
        ("test-4", 4, "old soup ? no . old soup !", -1),
        ("test-7", 7, "saw a chair today", 0),
    ]


def test_tdt_train_has_crlf() -> None:
    assert [e.text for e in read_tdt(FILES / "tdt", "train")] == ["i like the blue lamp , really"]


def test_tdt_falls_back_into_step_after_a_lost_line(tmp_path: Path) -> None:
    (tmp_path / "test.raw").write_text("i see $T$\na lamp\nand $T$\na chair\n1\nstray\n$T$ !\nsoup\n2\n$T$\nend\n")
    bad: list[BadRow] = []
    assert [e.text for e in read_tdt(tmp_path, "test", bad=bad)] == ["and a chair"]
    assert [(row.line, row.reason) for row in bad] == [
        (1, "2 lines before the next text, expected three"),
        (6, "expected a text with $T$ here"),
        (7, "2 is not a class of TDT; choose from: [-1, 0, 1]"),
        (10, "2 lines at the end, expected three"),
    ]


def test_vader_decodes_windows_bytes_and_keeps_tabs_and_quotes() -> None:
    texts = [e.text for e in read_vader(FILES / "vader", "VADER-Amazon")]
    assert texts == ["it\u2019s a lamp \u2013 no more", "a chair\twith a tab", "good\u00a0chair"]
    assert [e.text for e in read_vader(FILES / "vader", "VADER-Tweets")] == ['lovely "lamp" :)', "meh &amp; worse"]


def test_vader_has_four_sets_in_the_benchmarks_order() -> None:
    assert list(VADER_FILES) == ["VADER-Amazon", "VADER-Movie", "VADER-NYT", "VADER-Tweets"]
    for name in VADER_FILES:
        assert (TASKS[name].low, TASKS[name].high) == (-4.0, 4.0)
        assert all(e.split == "test" for e in read_vader(FILES / "vader", name))


def test_vader_rating_out_of_range_and_missing_file(tmp_path: Path) -> None:
    (tmp_path / "tweets_GroundTruth.txt").write_text("1\t4.5\ttoo good\n2\t1.0\n")
    with pytest.raises(DataError, match=r"2 bad rows:\n.*'4\.5': 4\.5 is not a number in \[-4, 4\]"):
        read_vader(tmp_path, "VADER-Tweets")
    with pytest.raises(DataError, match=r"no nytEditorialSnippets_GroundTruth\.txt under"):
        read_vader(tmp_path, "VADER-NYT")
