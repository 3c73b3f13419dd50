"""`emollm report` on corpora whose answers are known."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emollm.commands.report import main
from emollm.core.errors import DataError
from emollm.study.found import Findings
from emollm.study.options import ReportConfig
from emollm.study.report import report
from tests.commands import refused
from tests.study.annotated import LABELS, corpus, drawn


def made(path: Path, **options: Any) -> Findings:
    return report(ReportConfig(output=str(path), resamples=200, overwrite=True, **options))


def rows(folder: Path, name: str = "estimates.csv") -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_shares_and_means_are_those_of_the_rows(tmp_path: Path) -> None:
    held = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0]])
    path = corpus(
        tmp_path / "a.parquet", held, numbers=[0.1, 0.9, 0.5, None], lang=["en", "en", "pt", "pt"],  # type: ignore[list-item]
        day=["2026-01-01", "2026-01-01", "2026-01-03", "2026-01-03"],
    )  # fmt: skip
    found = made(path, by=("lang",), over="day", period="day")
    table = {(r["view"], r["group"], r["period"], r["question"], r["label"]): r for r in rows(tmp_path / "a.report")}
    assert float(table["all", "", "", "mood", "joy"]["value"]) == 0.5
    assert (
        float(table["all", "", "", "v_reg", ""]["value"]) == 0.5 and table["all", "", "", "v_reg", ""]["posts"] == "3"
    )
    assert float(table["group", "pt", "", "mood", "sadness"]["value"]) == 0.5
    gap = table["period", "", "2026-01-02", "mood", "joy"]
    assert (gap["posts"], gap["value"], gap["low"]) == ("0", "", "")  # a day without posts is there, and says nothing
    assert float(table["group x period", "en", "2026-01-01", "v_reg", ""]["value"]) == 0.5
    assert found.layout.period_names == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert found.volume.tolist() == [[2, 0, 0], [0, 0, 2]]


def test_a_number_that_is_none_counts_nowhere_and_carried_columns_are_no_answers(tmp_path: Path) -> None:
    path = corpus(tmp_path / "a.parquet", np.eye(3), numbers=[0.2, float("nan"), 0.4], rank=[1, 2, 3],
                  rank_confidence=[0.1, 0.2, 0.3])  # fmt: skip
    about = {"definitions": [{"name": "Mood", "labels": LABELS}, {"name": "V-reg", "low": 0, "high": 1}]}
    table = pq.read_table(path).replace_schema_metadata({"emollm": json.dumps(about)})
    pq.write_table(table, path)
    found = made(path)
    by_name = dict(zip([m.name for m in found.measures], found.whole, strict=True))
    assert "rank" not in by_name and by_name["v_reg"].posts == 2 and by_name["v_reg"].value == pytest.approx(0.3)


def test_posts_between_two_times(tmp_path: Path) -> None:
    path = corpus(tmp_path / "a.parquet", np.eye(3), day=["2026-01-01", "2026-01-02", None])
    for since, until, posts in (("2026-01-02", None, 1), (None, "2026-01-02", 1), ("2026-01-01", "2026-01-03", 2)):
        found = made(path, over="day", period="day", since=since, until=until)
        assert (found.posts, found.layout.left_out) == (posts, 3 - posts)
    with pytest.raises(DataError, match="has no posts between --since and --until"):
        made(path, over="day", since="2026-01-02", until="2026-01-02")


def test_intervals_hold_the_truth_and_are_wider_where_authors_repeat(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    inside, widths = 0, []
    for _ in range(40):
        mood = rng.random(40) < 0.3
        author = rng.integers(0, 40, 400)
        held = np.stack([mood[author]] * 3, axis=1)  # an author is joyful in all posts or in none
        path = corpus(tmp_path / "a.parquet", held, author=[f"u{a}" for a in author])
        one = made(path, author="author", texts=False, sample_posts=0).whole[1]
        inside += one.low <= 0.3 <= one.high
        widths.append(one.high - one.low)
    alone = made(path, texts=False, sample_posts=0).whole[1]
    assert inside >= 34  # of 40: 95% less three standard deviations
    assert np.mean(widths) > 2 * (alone.high - alone.low)


def test_labelled_rows_of_the_corpus_take_the_models_bias_away(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    true = drawn(rng, (0.2, 0.4, 0.1), 4000)
    said = np.where(true, rng.random(true.shape) < 0.6, rng.random(true.shape) < 0.15)
    path = corpus(tmp_path / "a.parquet", said, lang=rng.choice(["en", "pt"], 4000))
    chosen = rng.choice(4000, 400, replace=False)
    with (tmp_path / "gold.csv").open("w", encoding="utf-8") as stream:
        stream.write("id,gold_mood\n")
        for i in chosen:
            names = ", ".join(name for name, h in zip(LABELS, true[i], strict=True) if h) or "none"
            stream.write(f'p{i},"{names}"\n')
    found = made(path, by=("lang",), labelled=str(tmp_path / "gold.csv"))
    assert found.method == "ppi" and found.labelled == 400
    for one, share in zip(found.whole, true.mean(axis=0), strict=True):
        assert one.corrected_low < share < one.corrected_high
    joy = found.whole[1]
    assert not joy.low < true[:, 1].mean() < joy.high  # as the model says it is wrong, and sure of it
    assert all(d.corrected for d in found.differences)


def test_labelled_rows_from_elsewhere_correct_shares_by_hits_and_false_alarms(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)

    def written(name: str, shares: tuple[float, float, float], **more: Any) -> tuple[Path, Any]:
        true = drawn(rng, shares, 3000)
        sure = np.clip(np.where(true, rng.normal(0.65, 0.2, true.shape), rng.normal(0.3, 0.2, true.shape)), 0, 1)
        gold = {"gold_mood": [[k for k, h in zip(LABELS, row, strict=True) if h] for row in true]} if more else {}
        return corpus(tmp_path / name, sure > 0.5, probabilities=sure, **gold), true

    elsewhere, _ = written("elsewhere.parquet", (0.5, 0.3, 0.2), gold=True)
    here, true = written("here.parquet", (0.1, 0.7, 0.02))
    for method in ("adjusted", "pacc"):
        found = made(here, labelled=str(elsewhere), correct=method)
        for one, share in zip(found.whole, true.mean(axis=0), strict=True):
            assert abs(one.value - share) > 0.03 and abs(one.corrected - share) < 0.03
            assert one.corrected_low < share < one.corrected_high
    with pytest.raises(DataError, match="--correct ppi needs labelled rows drawn from this corpus"):
        made(here, labelled=str(elsewhere), correct="ppi")


def test_differences_are_found_where_there_are_some_and_rarely_where_there_are_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    false = 0
    for _ in range(30):
        path = corpus(tmp_path / "a.parquet", drawn(rng, (0.2, 0.4, 0.1), 300), lang=rng.choice(["en", "pt"], 300))
        false += any(d.holds for d in made(path, by=("lang",), texts=False, sample_posts=0).differences)
    assert false <= 5  # 30 families of three tests at 5%: 1.5 expected
    lang = rng.choice(["en", "pt"], 2000)
    held = rng.random((2000, 3)) < np.where(lang == "en", 0.2, 0.3)[:, None] * np.array([1, 0, 0]) + 0.1
    found = made(corpus(tmp_path / "a.parquet", held, lang=lang), by=("lang",))
    by_name = {d.measure.name: d for d in found.differences}
    sign = 1 if by_name["mood=anger"].first == "en" else -1
    assert by_name["mood=anger"].holds and by_name["mood=anger"].difference * sign < 0
    assert not by_name["mood=joy"].holds
    alone = made(tmp_path / "a.parquet", by=("lang",), answers=("mood=anger",)).differences
    assert [d.measure.name for d in alone] == ["mood=anger"] and alone[0].p_holm == alone[0].p_value
    first, second = (by_name["mood=anger"].first_value, by_name["mood=anger"].second_value)
    h = 2 * np.arcsin(np.sqrt(first)) - 2 * np.arcsin(np.sqrt(second))
    assert by_name["mood=anger"].effect == pytest.approx(h)


def test_two_periods_or_two_groups_are_compared_on_request(tmp_path: Path) -> None:
    held = np.array([[1, 0, 0]] * 50 + [[0, 1, 0]] * 50)
    day = ["2026-01-31"] * 50 + ["2026-02-01"] * 50
    path = corpus(tmp_path / "a.parquet", held, day=day, lang=["en", "pt", "de", "fr"] * 25)
    found = made(path, over="day", period="month", compare=("2026-01", "2026-02"))
    assert {(d.first, d.second) for d in found.differences} == {("2026-01", "2026-02")}
    assert found.differences[0].difference == 1.0
    assert {(d.first, d.second) for d in made(path, by=("lang",), compare=("de", "fr")).differences} == {("de", "fr")}
    assert {d.second for d in made(path, by=("lang",)).differences} == {"all others"}
    with pytest.raises(DataError, match="--compare 'se' is neither a group nor a period; there are: de, en, fr, pt"):
        made(path, by=("lang",), compare=("de", "se"))


def test_a_difference_within_the_models_own_bias_is_marked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lang = rng.choice(["en", "pt"], 4000)
    numbers = np.clip(np.where(lang == "en", 0.5, 0.52) + rng.normal(0, 0.05, 4000), 0, 1)
    path = corpus(tmp_path / "a.parquet", drawn(rng, (0.2, 0.2, 0.2), 4000), numbers=numbers.tolist(), lang=lang)
    audit = tmp_path / "audit"
    audit.mkdir()
    (audit / "audit.json").write_text(json.dumps([{"question": "V-reg", "difference": -0.03}]), encoding="utf-8")
    found = made(path, by=("lang",), audit=audit)
    [valence] = [d for d in found.differences if d.measure.question == "v_reg"]
    assert valence.holds and valence.within_bias
    assert any("may be the model's" in note for note in found.notes)
    with pytest.raises(DataError, match=r"holds no audit\.json"):
        made(path, by=("lang",), audit=tmp_path)


def test_words_go_with_labels_and_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    held = drawn(rng, (0.2, 0.4, 0.1), 600)
    lang = rng.choice(["en", "pt"], 600)
    texts = [
        " ".join(
            ["the train", *(["so glad"] if row[1] else ["it rains"]), *(["#porto"] if one == "pt" else ["#leeds"])]
        )
        for row, one in zip(held, lang, strict=True)
    ]
    path = corpus(tmp_path / "a.parquet", held, texts=texts, lang=lang)
    words = made(path, by=("lang",)).words
    assert {w.word for w in words["label", "mood=joy"][:3]} >= {"so", "glad"}
    assert words["group", "pt"][0].word == "#porto"
    assert rows(tmp_path / "a.report", "words.csv")[0].keys() >= {"word", "z"}
    shown = rows(tmp_path / "a.report", "examples.csv")
    assert len(shown) == 2 * 3 * 2 and {(r["group"], r["label"]) for r in shown} == {
        (g, k) for g in ("en", "pt") for k in LABELS
    }
    for row in shown:
        at = int(row["id"][1:])
        assert texts[at] == row["text"] and lang[at] == row["group"] and held[at, LABELS.index(row["label"])]


def test_an_output_of_an_older_version_is_read_by_its_columns(tmp_path: Path) -> None:
    path = corpus(tmp_path / "a.parquet", np.eye(3), numbers=[0.2, 0.4, 0.9])
    table = pq.read_table(path)
    names = [name for name in table.column_names if not name.endswith(("_error", "_probabilities"))]
    pq.write_table(table.select(names).rename_columns([n.replace("mood", "e_c") for n in names]), path)
    glee = table.select(names).rename_columns([n.replace("mood", "e_c") for n in names])
    place = glee.schema.get_field_index("e_c")
    pq.write_table(glee.set_column(place, "e_c", pa.array([["glee"]] * 3)), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"c\.parquet cannot be read: Parquet magic bytes"):
        made(tmp_path / "c.parquet")
    with pytest.raises(DataError, match="column 'e_c' holds 'glee', none of: anger"):
        made(tmp_path / "b.parquet")
    found = made(path)
    assert [m.name for m in found.measures][:2] == ["e_c=anger", "e_c=anticipation"] and len(found.measures) == 12
    assert any("older version" in note for note in found.notes)
    assert any("Never given by the model" in note and "e_c=trust" in note for note in found.notes)


def test_a_label_that_never_occurs_has_an_interval(tmp_path: Path) -> None:
    one = made(corpus(tmp_path / "a.parquet", np.zeros((100, 3)))).whole[0]
    assert one.value == one.low == 0 and one.high == pytest.approx(1 - 0.025 ** (1 / 100))


def test_many_groups_and_groups_of_one_post(tmp_path: Path) -> None:
    names = [f"g{i}" for i in range(50_000)] + ["big"] * 40
    path = corpus(tmp_path / "a.parquet", np.tile([[1, 0, 0]], (len(names), 1)), group=names)
    found = made(path, by=("group",), max_groups=5)
    assert found.layout.groups == ["big", "g0", "g1", "g10", "g100", "(other)"]
    assert [row[0].posts for row in found.by_group] == [40, 1, 1, 1, 1, 49_996]
    assert np.isnan(found.by_group[1][0].low) and not np.isnan(found.by_group[0][0].low)
    assert any("50,000 groups have a single post" in note for note in found.notes)
    assert len(rows(tmp_path / "a.report")) == 3 + 6 * 3
    assert all(np.isnan(d.p_value) for d in found.differences if d.first == "g1")


def test_authors_and_groups_may_be_missing(tmp_path: Path) -> None:
    path = corpus(
        tmp_path / "a.parquet", drawn(np.random.default_rng(0), (0.5, 0.5, 0.5), 60),
        lang=[None, "en", "pt"] * 20, author=["a", None, "b", None, None, "c"] * 10,
    )  # fmt: skip
    found = made(path, by=("lang",), author="author")
    assert "(none)" in found.layout.groups and found.authors == 33
    assert any("30 posts have no author" in note for note in found.notes)


def test_the_page_escapes_texts_and_can_do_without(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> fine"
    path = corpus(tmp_path / "a.parquet", np.ones((10, 3)), texts=[hostile] * 10, lang=["<b>en</b>"] * 10)
    made(path, by=("lang",))
    html = (tmp_path / "a.report" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html and "<b>en" not in html
    made(path, by=("lang",), texts=False)
    assert "alert(1)" not in (tmp_path / "a.report" / "report.html").read_text(encoding="utf-8")
    assert {p.name for p in (tmp_path / "a.report").iterdir()}.isdisjoint({"words.csv", "examples.csv"})


def test_a_report_is_the_same_however_often_it_is_made(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = corpus(tmp_path / "a.parquet", drawn(rng, (0.2, 0.4, 0.1), 500), lang=rng.choice(["en", "pt"], 500))
    made(path, by=("lang",))
    before = {p.name: p.read_bytes() for p in (tmp_path / "a.report").iterdir() if p.name != "run.json"}
    made(path, by=("lang",))
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "a.report").iterdir() if p.name != "run.json"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "nation"], r"has no column 'nation' for --by; it has: id, text, lang, when, mood, .* --carry nation"),
        (["--over", "when"], r"4 of 4 values are no times that can be read, such as 'soon'; give --time-format"),
        (["--author", "who"], "has no column 'who' for --author"),
        (["--compare", "a"], "takes two groups or two periods, not 1"),
        (["--since", "2026-01-01"], "need the column with the times: --over COLUMN"),
        (["--timezone", "Mars"], "unknown zone"),
        (["--author", "mood_probabilities"], "names no groups or authors"),
        (["--over", "when", "--since", "soon"], "--since 'soon' is not a time; write it as 2020-01-31"),
        (["--answers", "mood=fear"], "'mood=fear' is no answer of .*; choose from: mood, mood=anger, mood=joy"),
        (["--beside", "liwc"], "unknown lexicon 'liwc'; choose from: vader, textblob"),
        (["--labelled", "LABELLED"], r"has no gold column; name them after the answers: gold_mood"),
        (["--by", "mood_probabilities"], "names no groups or authors"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    path = corpus(tmp_path / "a.parquet", np.ones((4, 3)), lang=["en"] * 4, when=["soon"] * 4)
    (tmp_path / "labels.csv").write_text("id,mood\np1,joy\n", encoding="utf-8")
    words = [str(tmp_path / "labels.csv") if word == "LABELLED" else word for word in options]
    told = refused(main, str(path), *words)
    assert re.search(message, told), told
    assert not (tmp_path / "a.report").exists()


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ("id,gold_mood\np1,glee\n", r"row 1: 'glee' is no label of mood; choose from: anger, joy, sadness, or none"),
        ("id,gold_mood\np1,joy\np1,joy\n", "id 'p1' occurs twice"),
        ("id,gold_mood\nx1,joy\n", "none of its 1 ids is in"),
        ("gold_mood\njoy\n", "has no column 'id'"),
    ],
)
def test_labelled_rows_are_checked(tmp_path: Path, gold: str, message: str) -> None:
    path = corpus(tmp_path / "a.parquet", np.ones((4, 3)))
    (tmp_path / "gold.csv").write_text(gold, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        made(path, labelled=str(tmp_path / "gold.csv"))


def test_too_few_labelled_rows_correct_nothing_and_say_so(tmp_path: Path) -> None:
    path = corpus(tmp_path / "a.parquet", np.ones((40, 3)))
    (tmp_path / "gold.csv").write_text("id,gold_mood\np1,joy\n", encoding="utf-8")
    found = made(path, labelled=str(tmp_path / "gold.csv"))
    assert np.isnan(found.whole[0].corrected)
    assert any("mood=joy is not corrected: 1 labelled rows, fewer than 30" in note for note in found.notes)


def test_other_files_and_unfinished_outputs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text("text\nhi\n", encoding="utf-8")
    with pytest.raises(DataError, match="is not Parquet; write it so"):
        made(tmp_path / "posts.csv")
    pq.write_table(pa.table({"text": ["hi"]}), tmp_path / "plain.parquet")
    with pytest.raises(DataError, match="no column of answers among text"):
        made(tmp_path / "plain.parquet")
    growing = tmp_path / "growing"
    (growing / "_unfinished").mkdir(parents=True)
    corpus(growing / "part-0.parquet", np.ones((2, 3)))
    with pytest.raises(DataError, match="is not finished; run its emollm annotate command again"):
        made(growing)
    (tmp_path / "a.report").mkdir()
    (tmp_path / "a.report" / "notes.txt").write_text("mine", encoding="utf-8")
    path = corpus(tmp_path / "a.parquet", np.ones((2, 3)))
    with pytest.raises(DataError, match="was not written by emollm"):
        made(path)
