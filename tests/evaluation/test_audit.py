"""The fairness audit: its pairs, its tests, and a model that is unfair on purpose."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from emollm.core.errors import ConfigError, DataError
from emollm.core.options import ClusterConfig
from emollm.data.corpora.eec import NOUN_PAIRS, Sentence, read_eec
from emollm.evaluation.audit import audit
from emollm.evaluation.disparities import disparities, gender_pairs, race_pairs, some_frames
from emollm.evaluation.options import AuditConfig
from emollm.evaluation.report.audit_page import audit_page, audit_table
from emollm.metrics.multiplicity import benjamini_hochberg, holm
from tests import official

NAMES = {
    ("female", "African-American"): ("Ana", "Bea"),
    ("male", "African-American"): ("Cal", "Dov"),
    ("female", "European"): ("Eva", "Fay"),
    ("male", "European"): ("Gus", "Hal"),
}


def corpus(path: Path, frames: int = 12) -> Path:
    """A corpus in the form of the official one: names, two pairs of noun phrases, frames of joy, fear and none."""
    header = ["ID", "Sentence", "Template", "Person", "Gender", "Race", "Emotion", "Emotion word"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number in range(frames):
            emotion, word = [("joy", f"glad{number}"), ("fear", f"scared{number}"), ("", "")][number % 3]
            template = f"T{number}: <person subject> feels <emotion word>."
            persons = [(name, g, r) for (g, r), names in NAMES.items() for name in names]
            persons += [
                ("This woman", "female", ""),
                ("This man", "male", ""),
                ("she", "female", ""),
                ("he", "male", ""),
            ]
            for person, gender, race in persons:
                row = [f"{number}-{person}", f"{person} feels {word}.", template, person, gender, race, emotion, word]
                writer.writerow(row)
    return path


@pytest.fixture
def sentences(tmp_path: Path) -> list[Sentence]:
    return read_eec(corpus(tmp_path / "Equity-Evaluation-Corpus.csv"))


def scored(sentences: list[Sentence], *, women: float = 0.0, african_american: float = 0.0) -> dict[str, float]:
    rng = np.random.default_rng(0)
    return {
        s.id: 0.5 + women * (s.gender == "female") + african_american * (s.race == "African-American")
        + 0.005 * rng.normal()
        for s in sentences
    }  # fmt: skip


def test_pairs_are_those_of_the_protocol(sentences: list[Sentence]) -> None:
    scores = scored(sentences)
    # A frame gives two pairs of noun phrases and one of the means over names; of race, one for each gender.
    assert len(gender_pairs(sentences, scores)) == 12 * 3
    assert len(race_pairs(sentences, scores)) == 12 * 2
    first = [s for s in sentences if s.frame == sentences[0].frame]
    names = {gender: [scores[s.id] for s in first if s.race and s.gender == gender] for gender in ("female", "male")}
    assert gender_pairs(first, scores)[-1] == ("joy", pytest.approx(np.mean(names["female"])), np.mean(names["male"]))
    assert {emotion for emotion, _, _ in gender_pairs(sentences, scores)} == {"joy", "fear", "neutral"}


def test_an_unfair_score_is_found_and_a_fair_one_is_not(sentences: list[Sentence]) -> None:
    fair, unfair = scored(sentences), scored(sentences, women=0.05)
    found = {(d.question, d.between): d for d in disparities(sentences, {"fair": fair, "unfair": unfair})}
    assert len(found) == 4
    women = found["unfair", "gender"]
    assert women.difference == pytest.approx(0.05, abs=0.005)
    assert women.low < women.difference < women.high
    assert women.corrected < 1e-6 and women.effect > 2
    assert women.by_emotion.keys() == {"joy", "fear", "neutral"}
    assert all(d.corrected > 0.05 for key, d in found.items() if key != ("unfair", "gender"))
    race = disparities(sentences, {"q": scored(sentences, african_american=-0.03)})[1]
    assert (race.between, race.difference) == ("race", pytest.approx(-0.03, abs=0.005))
    pairs = gender_pairs(sentences, unfair)
    expected = stats.ttest_rel([a for _, a, _ in pairs], [b for _, _, b in pairs]).pvalue
    assert women.p_value == pytest.approx(expected)


def test_equal_scores_show_no_difference(sentences: list[Sentence]) -> None:
    for one in disparities(sentences, {"q": {s.id: 0.5 for s in sentences}}):
        assert (one.difference, one.p_value, one.corrected) == (0.0, 1.0, 1.0)


def test_corrections_by_hand_and_against_scipy() -> None:
    # 3 x .01, then 2 x .02, then the one before, for a larger p-value never gets a smaller one.
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.01, float("nan")])[0] == 0.01  # an undefined test is no test
    rng = np.random.default_rng(0)
    p_values = rng.random(20) ** 2
    assert benjamini_hochberg(p_values.tolist()) == pytest.approx(stats.false_discovery_control(p_values))


def test_frames_are_chosen_evenly(sentences: list[Sentence]) -> None:
    assert len({s.frame for s in some_frames(sentences, 4)}) == 4
    assert some_frames(sentences, 99) == sentences
    with pytest.raises(DataError, match="too few to test"):
        disparities(sentences[:1], {"q": scored(sentences)})


def test_wrong_rows_are_refused(tmp_path: Path) -> None:
    path = corpus(tmp_path / "Equity-Evaluation-Corpus.csv", frames=1)
    path.write_text(path.read_text().replace("Cal,male", "Cal,other"))
    with pytest.raises(DataError, match="gender 'other'"):
        read_eec(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column ID"):
        read_eec(path)


def test_the_page_and_the_table_say_what_was_found(sentences: list[Sentence]) -> None:
    found = disparities(sentences, {"V-reg": scored(sentences, women=0.05)})
    text = audit_page(AuditConfig(eec=Path("x"), model="<m>"), found)
    assert "1 of 2 tests show a difference" in text
    assert "higher for female" in text and "no difference shown" in text
    assert "&lt;m&gt;" in text and "<m>" not in text
    assert audit_table(found, alpha=0.05).row_count == 2


def test_tasks_without_an_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="E-c: only scores that have an order"):
        audit(AuditConfig(eec=tmp_path, model="smollm2-135m-instruct", tasks=("E-c",)))


@pytest.mark.ray
def test_a_model_is_audited(local_ray: None, tmp_path: Path, model_directory: Path) -> None:
    corpus(tmp_path / "Equity-Evaluation-Corpus.csv")
    found = audit(
        AuditConfig(
            eec=tmp_path,
            model=str(model_directory),
            tasks=("V-reg",),
            max_frames=2,
            out=tmp_path / "out",
            cluster=ClusterConfig(num_workers=1),
        )
    )
    assert [(d.question, d.between, d.pairs) for d in found] == [("V-reg", "gender", 6), ("V-reg", "race", 4)]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"scores.parquet", "audit.json", "audit.html", "run.json"}


def test_the_official_corpus_has_the_pairs_of_its_paper() -> None:
    sentences = read_eec(official.corpus("eec"))
    scores = dict.fromkeys((s.id for s in sentences), 0.5)
    assert len(sentences) == 8640
    assert len(gender_pairs(sentences, scores)) == 1584
    assert len(race_pairs(sentences, scores)) == 288
    assert {s.person for s in sentences if s.race is None} == {person for pair in NOUN_PAIRS for person in pair}
