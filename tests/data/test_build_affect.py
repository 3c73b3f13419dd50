"""One training folder from several corpora: what teaches what, and which texts are kept out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emollm.core.errors import ConfigError
from emollm.core.tasks import TASKS, QuestionKey
from emollm.data.affect import AffectConfig, any_post_intensities, build_affect, words_of
from emollm.data.corpora.example import Example
from emollm.scoring.heads.labels import read_labels


def corpora(folder: Path) -> AffectConfig:
    """Three small corpora in their official forms; two training texts stand in a test or dev file as well."""
    go, sst = folder / "goemotions", folder / "sst"
    go.mkdir()
    sst.mkdir()
    (go / "train.tsv").write_text("what a day\t17\tg1\nSee YOU, @sam!\t27\tg2\nso it goes\t25,27\tg3\n")
    (go / "dev.tsv").write_text("so it goes ...\t25\tg4\nnever again\t2\tg5\n")
    (go / "test.tsv").write_text("see you\t17\tg6\n")
    (sst / "train.txt").write_text("(4 (2 a) (4 joy))\n(0 (2 a) (0 bore))\n")
    (sst / "dev.txt").write_text("(2 (2 a) (2 film))\n")
    (folder / "emobank.csv").write_text(
        "id,split,V,A,D,text\ne1,train,3.0,2.0,3.5,He left early.\ne2,dev,4.0,3.0,3.0,She came.\n"
    )
    return AffectConfig(goemotions=go, sst=sst, emobank=folder / "emobank.csv", out=folder / "data")


def test_training_texts_of_dev_and_test_files_are_left_out_whatever_their_spelling(tmp_path: Path) -> None:
    tables = build_affect(corpora(tmp_path))
    train = set(tables["train"]["text"].to_pylist())
    assert train == {"what a day", "a joy", "a bore", "He left early."}
    assert set(tables["validation"]["text"].to_pylist()) == {"so it goes ...", "never again", "a film", "She came."}
    assert words_of("See you, @sam!") == words_of("see YOU https://t.co/x")


def test_a_text_has_the_labels_of_its_own_corpus_and_gaps_elsewhere(tmp_path: Path) -> None:
    table = build_affect(corpora(tmp_path))["train"]
    labelled = read_labels(table, [TASKS[name] for name in ("GoEmotions-28", "SST", "SST5", "EmoBank-A")])
    known = {key[0]: {labelled.texts[n] for n in labelled.known(key)} for key in labelled.golds}
    films = {"a joy", "a bore"}
    assert known == {"GoEmotions-28": {"what a day"}, "SST": films, "SST5": films, "EmoBank-A": {"He left early."}}
    sst = QuestionKey("SST")
    scores = {labelled.texts[n]: labelled.golds[sst][n, 0] for n in labelled.known(sst)}
    # The middles of the first and the last of five equal bins.
    assert scores == pytest.approx({"a joy": 0.9, "a bore": 0.1})


def test_an_intensity_is_zero_where_the_emotion_is_absent_and_a_gap_where_it_was_not_rated() -> None:
    def example(task: str, value: object, emotion: str | None = None) -> Example:
        return Example(
            id="1", text="a post", task=task, emotion=emotion, value=value,  # type: ignore[arg-type]
            source="semeval2018", split="train", path="f", line=1,
        )  # fmt: skip

    golds = any_post_intensities(
        [example("E-c", ("joy", "fear")), example("EI-reg", 0.7, "joy"), example("EI-reg", 0.4, "anger")]
    )
    # Joy is there and was rated; anger was rated but is not there; fear is there and was not rated.
    assert {e.emotion: e.value for e in golds} == {"joy": 0.7, "anger": 0.0, "sadness": 0.0}


def test_max_texts_limits_the_texts_of_each_corpus(tmp_path: Path) -> None:
    config = corpora(tmp_path)
    table = build_affect(config.model_copy(update={"max_texts": 1}))["train"]
    sources = np.unique([row["source"] for row in table.select(["source", "text"]).to_pylist()])
    assert sources.tolist() == ["emobank", "goemotions", "sst"]
    assert len(set(table["text"].to_pylist())) == 3


def test_no_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no corpus given; give at least one of: --semeval"):
        build_affect(AffectConfig(vader=tmp_path, out=tmp_path / "data"))
