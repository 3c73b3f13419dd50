"""The SST reader: trees, and the distribution that has the score."""

from pathlib import Path

import pytest

from emollm.core.errors import DataError
from emollm.data.corpora.example import BadRow
from emollm.data.corpora.sst import brackets, has_scores, read_sst

TREES = Path(__file__).parent / "files" / "sst_trees"
DISTRIBUTION = Path(__file__).parent / "files" / "sst_distribution"


def test_trees_give_the_root_label_and_the_words() -> None:
    assert [(e.id, e.value, e.text) for e in read_sst(TREES, "test")] == [
        ("test-1", 3, "A lovely lamp\\/chair"),
        ("test-2", 1, "-LRB- my café -RRB- closes"),
        # A no-break space is part of a word; three official training sentences have one.
        ("test-3", 4, "2\u00a01\\/2 stars"),
    ]
    assert brackets("-LRB- my café -RRB-") == "( my café )"


def test_distribution_gives_the_score_of_whole_sentences() -> None:
    assert has_scores(DISTRIBUTION)
    assert not has_scores(TREES)
    examples = read_sst(DISTRIBUTION, "test", task_name="SST")
    # The second one is UTF-8 read as Latin-1 in datasetSentences.txt, and spelled with ( ) in dictionary.txt.
    assert [(e.id, e.value, e.text) for e in examples] == [
        ("sentence-1", 0.79167, "A lovely lamp\\/chair"),
        ("sentence-2", 0.2, "-LRB- my café -RRB- closes"),
    ]
    assert [e.value for e in read_sst(DISTRIBUTION, "train", task_name="SST")] == [0.0]


def test_classes_are_five_bins_closed_above() -> None:
    # 0.2 is still class 0, 0 too; 0.61 is 3.
    assert [e.value for e in read_sst(DISTRIBUTION, "test")] == [3, 0]
    assert [e.value for e in read_sst(DISTRIBUTION, "train")] == [0]
    assert [e.value for e in read_sst(DISTRIBUTION, "dev")] == [3]


def test_score_cannot_come_from_trees() -> None:
    with pytest.raises(DataError, match=r"lacks datasetSentences\.txt.*stanfordSentimentTreebank\.zip"):
        read_sst(TREES, "test", task_name="SST")


@pytest.mark.parametrize(
    "tree",
    ["(3 (2 a) (2 lamp)", "3 a lamp", "(3 (2 a) (2 lamp)))", "(3 (2 a) lamp)", "(3 )", "(3 (2 a)) (2 b)"],
)
def test_broken_tree_is_a_bad_row(tmp_path: Path, tree: str) -> None:
    (tmp_path / "dev.txt").write_text(f"{tree}\n(2 fine)\n")
    bad: list[BadRow] = []
    assert [e.text for e in read_sst(tmp_path, "dev", bad=bad)] == ["fine"]
    assert [row.line for row in bad] == [1]


def test_class_out_of_range_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text("(5 (2 a) (2 lamp))\n")
    with pytest.raises(DataError, match="not a class of SST5"):
        read_sst(tmp_path, "dev")


def test_sentence_without_a_score_is_a_bad_row(tmp_path: Path) -> None:
    for path in DISTRIBUTION.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "dictionary.txt").write_text("A lovely lamp/chair|10\n")
    bad: list[BadRow] = []
    assert len(read_sst(tmp_path, "test", task_name="SST", bad=bad)) == 1
    assert [(row.line, row.value) for row in bad] == [(3, "-LRB- my cafÃ© -RRB- closes")]
