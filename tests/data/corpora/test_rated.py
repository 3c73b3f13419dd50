"""Files with every rater's answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from emollm.core.errors import DataError
from emollm.core.tasks import TASKS
from emollm.data.corpora.example import BadRow
from emollm.data.corpora.rated import read_emobank_raters, read_goemotions_raters

FINE = TASKS["GoEmotions-28"].labels


def raw_row(row_id: str, rater: int, *labels: str, unclear: bool = False) -> str:
    marks = ",".join(str(int(label in labels)) for label in FINE)
    return f'"so, so good",{row_id},author,sub,l,p,1.5,{rater},{unclear},{marks}'


@pytest.fixture
def comments(tmp_path: Path) -> Path:
    head = f"text,id,author,subreddit,link_id,parent_id,created_utc,rater_id,example_very_unclear,{','.join(FINE)}"
    joy, anger = FINE.index("joy"), FINE.index("annoyance")
    (tmp_path / "train.tsv").write_text(f"so, so good\t{joy}\ta1\nno way\t{anger}\ta2\n")
    (tmp_path / "goemotions_1.csv").write_text(
        "\n".join([head, raw_row("a1", 1, "joy"), raw_row("a1", 2, "love", "annoyance"), raw_row("b9", 1, "joy")])
    )
    (tmp_path / "goemotions_2.csv").write_text(
        "\n".join([head, raw_row("a1", 3, "sadness"), raw_row("a2", 3, unclear=True), raw_row("a2", 4)])
    )
    return tmp_path


def test_goemotions_raters(comments: Path) -> None:
    first, second = read_goemotions_raters(comments, "train")
    # Love is joy to Ekman; annoyance anger.
    assert first.id == "a1" and first.ratings == (("joy",), ("anger", "joy"), ("sadness",)) and first.value == ("joy",)
    # Too unclear to say is no rating; nothing marked is the empty set.
    assert second.ratings == ((),) and second.value == ()
    fine = read_goemotions_raters(comments, "train", task_name="GoEmotions-28")
    assert set(fine[0].ratings[1]) == {"love", "annoyance"}


def test_emobank_raters(tmp_path: Path) -> None:
    (tmp_path / "emobank.csv").write_text('id,split,V,A,D,text\ns1,train,3,3,3,"Well, well."\ns2,test,3,3,3,No.\n')
    (tmp_path / "individual_reader_ratings.csv").write_text("id,V,A,D\ns1,4,3,2\ns1,1,1,1\ns2,5,5,5\ns1,2,9,2\n")
    (tmp_path / "individual_writer_ratings.csv").write_text("id,V,A,D\ns1,5,3,2\n")
    bad: list[BadRow] = []
    found = {e.task: e for e in read_emobank_raters(tmp_path, "train", bad=bad)}
    assert found["EmoBank-V"].ratings == (4.0, 5.0) and found["EmoBank-V"].value == 4.5
    assert found["EmoBank-V"].text == "Well, well." and len(found) == 3
    assert [(row.line, row.labels) for row in bad] == [(5, 3)]
    only = read_emobank_raters(tmp_path, "train", perspectives=("writer",))
    assert only[0].ratings == (5.0,)


def test_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("a\t0\tx\n")
    with pytest.raises(DataError, match=r"goemotions_1\.csv"):
        read_goemotions_raters(tmp_path, "train")
