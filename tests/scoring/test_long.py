"""Texts longer than the model reads."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import polars
import pyarrow as pa
import pytest

import emollm
from emollm.core.answers import Answer
from emollm.core.errors import ConfigError, DataError
from emollm.core.prompts import Question
from emollm.core.tasks import TASKS, Kind
from emollm.scoring.columns import OutputColumns
from emollm.scoring.rows import AnnotatePosts
from emollm.scoring.windows import cut_windows
from tests.annotation.cheap import CARD

LABELS = TASKS["E-c"].labels


class Words:
    """Answers that can be worked out by hand: valence is the share of `good` among words; joy is given at half."""

    card = CARD.model_copy(update={"max_post_tokens": 14})

    def __init__(self) -> None:
        self.asked: list[str] = []

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def score(self, questions: Sequence[Question]) -> list[Answer]:
        self.asked += dict.fromkeys(question.text for question in questions)
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> Answer:
        words = question.text.split()
        if not words or "FAIL" in words:
            return Answer(value=None, error="empty_text" if not words else "scoring_failed: told to")
        share = sum(word.startswith("good") for word in words) / len(words)
        truncated = len(words) > self.card.max_post_tokens
        match question.task.kind:
            case Kind.REGRESSION:
                return Answer(value=share, std=0.1, confidence=0.5, truncated=truncated)
            case Kind.ORDINAL:
                value = 1 if share >= 0.5 else 0
                return Answer(value=value, probabilities={str(v): float(v == value) for v in range(-3, 4)})
            case _:
                likely = {name: (share if name == "joy" else 0.1) for name in LABELS}
                return Answer(value=("joy",) if share >= 0.5 else (), probabilities=likely, confidence=0.5)


def scored(texts: list[str | None], tasks: tuple[str, ...] = ("V-reg", "V-oc", "E-c"), **options: Any) -> pa.Table:
    posts = pa.table({"id": [str(n) for n in range(len(texts))], "text": pa.array(texts, pa.string())})
    scorer = options.pop("scorer", None) or Words()
    run = AnnotatePosts(tasks=tasks, model="m", engine="e", opener=lambda *_, **__: scorer, windows=True, **options)
    return run(posts)


LONG = "good good good good good. bad bad bad bad bad. good bad bad bad bad. bad bad bad bad bad."


def test_a_long_text_is_the_mean_of_its_windows() -> None:
    [row] = scored([LONG]).to_pylist()
    # Ten words each of two sentences; no overlap, for a sentence is more than a quarter of a window.
    assert row["v_reg_trajectory"] == pytest.approx([0.5, 0.1])
    assert row["v_reg"] == pytest.approx(0.3) and not row["truncated"] and row["error"] is None
    assert row["v_reg_std"] == pytest.approx((0.1**2 + 0.2**2) ** 0.5)  # within windows and between them
    assert (row["windows"], row["tokens"], row["tokens_cut"]) == (2, 20, 0)
    assert row["v_reg_peak"] == 1.0 and row["v_reg_peak_sentence"] == "good good good good good."
    assert row["v_oc"] == 0 and row["v_oc_trajectory"] == [1.0, 0.0] and row["v_oc_window_shares"]["1"] == 0.5
    assert row["e_c"] == ["joy"] and row["e_c_window_shares"]["joy"] == 0.5
    assert row["e_c_probabilities"]["joy"] == pytest.approx(0.3)
    assert row["e_c_trajectory"]["joy"] == pytest.approx([0.5, 0.1])
    assert row["e_c_peak_sentence"]["joy"] == "good good good good good." and row["e_c_peak_sentence"]["fear"] is None


def test_windows_overlap_by_whole_sentences_and_go_on() -> None:
    text = " ".join(f"w{i} a b." for i in range(12))
    [found] = cut_windows([text], Words().count_tokens, limit=16)
    spans = [text[w.start : w.stop] for w in found.windows]
    assert spans[0].startswith("w0") and spans[0].endswith("w3 a b.") and spans[1].startswith("w3 a b. w4")
    assert spans[-1].endswith("w11 a b.") and all(len(span.split()) <= 12 for span in spans)


def test_a_sentence_longer_than_a_window_is_cut_between_words() -> None:
    text = " ".join(["word"] * 100)
    [found] = cut_windows([text], Words().count_tokens, limit=14)
    assert all(w.tokens <= 10 for w in found.windows)
    assert " ".join(text[w.start : w.stop].strip() for w in found.windows) == text


def test_short_texts_are_what_they_are_without_windows() -> None:
    texts = ["good good bad", None, "", "bad", LONG, "good"]
    whole = scored(texts)
    posts = pa.table({"id": [str(n) for n in range(6)], "text": pa.array(texts, pa.string())})
    plain = AnnotatePosts(tasks=("V-reg", "V-oc", "E-c"), model="m", engine="e", opener=lambda *_, **__: Words())(posts)
    for n in (0, 1, 2, 3, 5):
        assert whole.select(plain.column_names).slice(n, 1).to_pylist() == plain.slice(n, 1).to_pylist()
    rows = whole.to_pylist()
    assert rows[0]["v_reg_trajectory"] == pytest.approx([2 / 3]) and rows[0]["v_reg_peak"] == pytest.approx(2 / 3)
    assert rows[0]["e_c_window_shares"]["joy"] == 1.0 and rows[0]["v_reg_peak_sentence"] is None
    assert [row["windows"] for row in rows] == [1, 1, 1, 1, 2, 1]
    assert rows[2]["v_reg_trajectory"] is None and rows[2]["error"] == "empty_text"
    assert (
        whole.schema.names[2:]
        == OutputColumns(windows=True).schema(tuple(TASKS[n] for n in ("V-reg", "V-oc", "E-c"))).names[2:]
    )


def test_windows_of_all_texts_and_short_ones_are_scored_together_and_sentences_once() -> None:
    scorer = Words()
    scored([LONG, "bad", LONG.replace("bad", "dull")], scorer=scorer)
    assert len(scorer.asked) == len(set(scorer.asked)) == 5 + 3  # one sentence is in both texts
    assert scorer.asked[:5] == [
        "good good good good good. bad bad bad bad bad.", "good bad bad bad bad. bad bad bad bad bad.", "bad",
        "good good good good good. dull dull dull dull dull.", "good dull dull dull dull. dull dull dull dull dull.",
    ]  # fmt: skip


def test_a_limit_to_windows_cuts_and_says_so() -> None:
    [row] = scored([LONG + " " + LONG], max_windows=2).to_pylist()
    assert (row["windows"], row["tokens"], row["tokens_cut"], row["truncated"]) == (2, 40, 20, True)


def test_a_window_that_fails_is_left_out_and_a_text_fails_with_all_of_them() -> None:
    half = scored([LONG.replace("good bad bad", "FAIL bad bad")]).to_pylist()[0]
    assert half["v_reg"] == pytest.approx(0.5) and half["error"] is None and half["v_reg_trajectory"] == [0.5, None]
    none = scored([LONG.replace("good", "FAIL")]).to_pylist()[0]
    assert none["v_reg"] is None and none["error"] == none["v_reg_error"] == "scoring_failed: told to"
    assert none["e_c_peak_sentence"] == dict.fromkeys(LABELS)


def test_a_novel_goes_through_in_flat_memory() -> None:
    novel = " ".join(f"Sentence {i} is good and bad." for i in range(17_000))  # 100,000 words
    peaks = []
    for text in (novel[: len(novel) // 4], novel):
        tracemalloc.start()
        [row] = scored([text], ("V-reg",)).to_pylist()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert row["windows"] > 5000 and row["v_reg"] == pytest.approx(1 / 6, abs=0.01)
    assert peaks[1] < 100e6


def test_a_call_time_task_beside_one_of_the_card_is_read_in_windows() -> None:
    texts = ["What a lovely day it is. " * 80, "Glad."]
    asked = ["V-reg", emollm.labels("relief", "dread", way="embedding"), "E-c"]
    frame = emollm.annotate(texts, asked, model="fast", long="windows", details=True, progress=False)
    assert frame["windows"][0] > 1 and frame["error"].isna().all()
    assert frame["relief_dread"].isin(["relief", "dread"]).all()
    assert (
        set(frame["relief_dread_way"]) == {"embedding by minilm-l6"} and frame["relief_dread_valid_mass"].isna().all()
    )
    assert frame["v_reg"].between(0, 1).all() and isinstance(frame["e_c"][0], tuple)
    alone = emollm.annotate(texts, ["E-c"], model="fast", long="windows", progress=False)
    assert list(alone["e_c"]) == list(frame["e_c"])


def test_real_engines_count_tokens_and_read_whole_texts(model_directory: Path) -> None:
    from emollm.models.load import load_model
    from emollm.scoring.constrained.engine import ConstrainedScorer
    from emollm.scoring.open import open_scorer
    from emollm.scoring.scorer import TokenCounter

    opened = open_scorer(str(model_directory))
    assert isinstance(opened, TokenCounter) and "count_tokens" in dir(type(opened))  # Python 3.12 looks no further
    loaded = load_model(str(model_directory))
    card = loaded.card.model_copy(update={"max_post_tokens": 40})
    scorer = ConstrainedScorer(replace(loaded, card=card))
    assert scorer.count_tokens(["Glad.", ""]) == opened.count_tokens(["Glad.", ""])
    frame = emollm.annotate(
        ["What a day. " * 12, "Glad."], ["V-reg", "E-c"], model=scorer, long="windows", progress=False
    )
    assert frame["windows"].tolist()[0] > 1 and frame["windows"].tolist()[1] == 1
    assert frame["v_reg"].between(0, 1).all() and isinstance(frame["e_c"][0], tuple)
    plain = emollm.annotate(["Glad."], ["V-reg", "E-c"], model=scorer, progress=False)
    # In another batch, so up to what a float32 matrix product leaves open.
    assert plain["v_reg"][0] == pytest.approx(frame["v_reg"][1], abs=1e-5) and plain["e_c"][0] == frame["e_c"][1]
    short = ["Glad.", "What a day.", "Oh no"]
    alike = [emollm.annotate(short, model=scorer, long=long, progress=False) for long in ("cut", "windows")]
    pd.testing.assert_frame_equal(alike[0], alike[1][list(alike[0])], check_exact=True)


@pytest.mark.parametrize("make", [pd.DataFrame, polars.DataFrame, pa.table])
def test_sentences_are_rows_that_lead_back(make: Any) -> None:
    given = make({"who": ["a", "b", "c"], "text": ["Good day. Bad night!", "", "good"]})
    found = emollm.annotate(given, ["V-reg"], model=Words(), long="sentences", progress=False)
    frame = found if make is pd.DataFrame else found.to_pandas()
    assert type(found) is type(given)
    assert frame["who"].tolist() == ["a", "a", "b", "c"] and frame["sentence"].tolist() == [1, 2, 1, 1]
    assert frame["text"].tolist() == ["Good day.", "Bad night!", "", "good"]
    assert frame["sentence_start"].tolist() == [0, 10, 0, 0]
    assert frame["error"].tolist()[2] == "empty_text"


def test_sentences_of_a_list_and_what_does_not_fit() -> None:
    found = emollm.annotate(["One. Two."], ["V-reg"], model=Words(), long="sentences", progress=False)
    assert found["text"].tolist() == ["One.", "Two."]
    with pytest.raises(ConfigError, match="choose long from cut, windows, sentences"):
        emollm.annotate("a", model=Words(), long="whole")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_windows with windows alone"):
        emollm.annotate("a", model=Words(), max_windows=3)
    with pytest.raises(DataError, match="column 'sentence' exists already"):
        emollm.annotate(pd.DataFrame({"text": ["a"], "sentence": [1]}), model=Words(), long="sentences")
    with pytest.raises(DataError, match="column 'windows' exists already"):
        emollm.annotate(pd.DataFrame({"text": ["a"], "windows": [1]}), ["V-reg"], model=Words(), long="windows")
