"""`emollm.annotate`: one call, whatever the texts come in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow as pa
import pytest

import emollm
from emollm.core.answers import Answer
from emollm.core.card import AffectCard
from emollm.core.errors import ConfigError, DataError, ModelError
from emollm.core.prompts import Question
from emollm.models.load import load_base
from emollm.scoring.constrained.engine import ConstrainedScorer
from emollm.scoring.scorer import Scorer
from tests.annotation.cheap import CheapScorer

PROFILE_COLUMNS = [
    *(f"{task}_{emotion}" for task in ("ei_reg", "ei_oc") for emotion in ("anger", "fear", "joy", "sadness")),
    "v_reg", "v_oc", "e_c",
]  # fmt: skip


@pytest.fixture(scope="module")
def scorer(tiny_base: Path) -> Scorer:
    return ConstrainedScorer(load_base(str(tiny_base)))


def test_a_string_gets_the_whole_profile(scorer: Scorer) -> None:
    frame = emollm.annotate("I am so happy!", model=scorer)
    assert list(frame) == ["text", *PROFILE_COLUMNS, "truncated", "error", "not_english"]
    [row] = frame.to_dict("records")
    assert all(0 <= row[name] <= 1 for name in PROFILE_COLUMNS if "reg" in name)
    assert row["v_oc"] in range(-3, 4) and row["ei_oc_joy"] in range(4) and isinstance(row["e_c"], tuple)
    assert row["error"] is None and not row["truncated"]


def test_a_model_stays_open_under_all_its_names_and_not_for_another_of_the_same_name(
    tmp_path: Path, model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emollm.scoring import open as opening

    opened, open_scorer = [], opening.open_scorer

    def counted(model: str, **options: Any) -> Scorer:
        opened.append(Path(model).resolve())
        return open_scorer(model, **options)

    monkeypatch.setattr(opening, "open_scorer", counted)
    for place in ("one", "two"):
        shutil.copytree(model_directory, tmp_path / place / "tiny")
        monkeypatch.chdir(tmp_path / place)
        for name in ("tiny", "./tiny/", str(tmp_path / place / "tiny")):
            emollm.annotate("Glad.", ["V-reg"], model=name)
    assert opened == [tmp_path / "one" / "tiny", tmp_path / "two" / "tiny"]


def test_a_frame_keeps_its_index_and_columns_and_missing_texts_get_nulls(scorer: Scorer) -> None:
    texts = pd.DataFrame(
        {"who": list("abcd"), "post": ["Glad.", None, float("nan"), "  "]}, index=pd.Index([7, 5, 3, 1], name="n")
    )
    frame = emollm.annotate(texts, ["V-oc", "EmoBank-V"], model=scorer, text_column="post", progress=False)
    assert list(frame) == ["who", "post", "v_oc", "emobank_v", "truncated", "error", "not_english"]
    assert list(frame.index) == [7, 5, 3, 1] and list(frame["who"]) == list("abcd")
    assert frame["v_oc"].dtype == "Int64" and frame["v_oc"].isna().tolist() == [False, True, True, True]
    assert 1 <= frame["emobank_v"].iloc[0] <= 5 and frame["error"].tolist() == [None] + ["empty_text"] * 3


def test_details(scorer: Scorer) -> None:
    frame = emollm.annotate(["Glad."], ["V-reg", "E-c"], model=scorer, details=True)
    [row] = frame.to_dict("records")
    assert row["v_reg_unit"] == row["v_reg"] and row["v_reg_std"] >= 0
    assert sum(row["v_reg_probabilities"].values()) == pytest.approx(1)
    assert set(row["e_c_probabilities"]) > {"anger", "trust"} and 0 < row["e_c_confidence"] <= 1


@pytest.mark.parametrize("name", ["posts.jsonl", "posts.csv", "posts.parquet", "posts.txt", "posts.jsonl.gz"])
def test_files(scorer: Scorer, tmp_path: Path, name: str) -> None:
    path, texts = tmp_path / name, pd.DataFrame({"text": ["Glad, or so.", "Sad 😢"]})
    if ".jsonl" in name:
        texts.to_json(path, orient="records", lines=True)
    elif name.endswith(".csv"):
        texts.to_csv(path, index=False)
    elif name.endswith(".parquet"):
        texts.to_parquet(path)
    else:
        path.write_text("\n".join(texts["text"]), encoding="utf-8")
    frame = emollm.annotate(path, "V-reg", model=scorer)
    assert list(frame["text"]) == list(texts["text"]) and frame["v_reg"].notna().all()


def test_no_text_at_all(scorer: Scorer) -> None:
    assert emollm.annotate([], model=scorer).empty


def test_progress_counts_posts(scorer: Scorer, capsys: pytest.CaptureFixture[str]) -> None:
    emollm.annotate(["Glad."] * 40, "V-oc", model=scorer)
    assert "40 posts" in capsys.readouterr().err
    emollm.annotate(["Glad."], "V-oc", model=scorer, progress=False)
    assert capsys.readouterr().err == ""


def test_mistakes_name_the_way_out(scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown task 'joy'; choose from: EI-reg"):
        emollm.annotate("x", "joy", model=scorer)
    with pytest.raises(DataError, match=r"no column 'text'.*post"):
        emollm.annotate(pd.DataFrame({"post": ["x"]}), model=scorer)
    with pytest.raises(DataError, match="no input at"):
        emollm.annotate(tmp_path / "posts.xlsx", model=scorer)
    with pytest.raises(DataError, match="no input at"):
        emollm.annotate(tmp_path / "none.csv", model=scorer)
    with pytest.raises(DataError, match="not int"):
        emollm.annotate(5, model=scorer)
    monkeypatch.setenv("EMOLLM_MODEL", str(tmp_path / "no-model"))
    with pytest.raises(ModelError, match="no model directory"):
        emollm.annotate("x")


def test_any_scorer_can_be_used(scorer: Scorer) -> None:
    class Says:
        card: AffectCard = scorer.card

        def score(self, questions: list[Question]) -> list[Answer]:
            return [Answer(value=None, error="invalid_answer") for _ in questions]

    assert emollm.annotate("x", "V-reg", model=Says())["error"].tolist() == ["invalid_answer"]  # type: ignore[arg-type]


@pytest.mark.parametrize(("batch_tokens", "at_once"), [(0, 32), (1024, 32), (4096, 128)])
def test_an_engine_gets_as_many_posts_as_its_batches_hold(scorer: Scorer, batch_tokens: int, at_once: int) -> None:
    asked: list[int] = []

    class Counts:
        card: AffectCard = scorer.card

        def score(self, questions: list[Question]) -> list[Answer]:
            asked.append(len(questions))
            return [Answer(value=0.5)] * len(questions)

    stand_in: Any = Counts()
    if batch_tokens:
        stand_in.batch_tokens = batch_tokens
    emollm.annotate([f"post {n}" for n in range(130)], "V-reg", model=stand_in, progress=False)
    assert asked[0] == at_once and sum(asked) == 130


def test_importing_emollm_imports_no_library() -> None:
    code = "import sys, emollm; print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def annotated(texts: object, **options: Any) -> Any:
    return emollm.annotate(texts, "V-reg", model=CheapScorer(), progress=False, **options)  # type: ignore[arg-type]


def test_a_frame_is_returned_in_its_own_type() -> None:
    columns = {"n": [1542657904481796104, None, 3], "text": ["Glad.", None, "Sad."]}
    table = annotated(pa.table(columns))
    assert isinstance(table, pa.Table) and table.column_names == [
        "n",
        "text",
        "v_reg",
        "truncated",
        "error",
        "not_english",
    ]
    frame = annotated(polars.DataFrame(columns), details=True)
    assert isinstance(frame, polars.DataFrame) and frame["n"].to_list() == columns["n"] == table["n"].to_pylist()
    for found in (frame["error"].to_list(), table["error"].to_pylist()):
        assert found == [None, "empty_text", None]
    scored = annotated(columns["text"])["v_reg"]
    assert frame["v_reg"].to_list() == table["v_reg"].to_pylist() == [scored[0], None, scored[2]]
    for texts in (
        [{"n": n, "text": text} for n, text in zip(*columns.values(), strict=True)],
        ({"n": n, "text": text} for n, text in zip(*columns.values(), strict=True)),  # as a `datasets.Dataset` is read
    ):
        assert annotated(texts)["n"].tolist() == columns["n"]
    for texts in (
        pa.array(columns["text"]), pa.chunked_array([columns["text"]]), polars.Series(columns["text"]),
        pd.Series(columns["text"], dtype="category"), np.array(columns["text"], dtype=object), iter(columns["text"]),
    ):  # fmt: skip
        assert annotated(texts)["error"].tolist() == [None, "empty_text", None]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"k": "Glad."}, "not dict; give its texts as a list"),
        (b"Glad.", "not bytes; decode it first"),
        ([b"Glad."], "texts are a list and holds bytes, not text; decode them first"),
        ([1, 2], "texts are a list and holds int, not text"),
        (pd.Series([1, 2]), "the Series is int64 and holds int, not text"),
        (pd.DataFrame({"text": [1.5]}), "column 'text' is float64 and holds float, not text"),
        (polars.DataFrame({"text": [1]}), "column 'text' is Int64 and holds int, not text"),
        (pa.table({"text": [[1]]}), "column 'text' is list<.*> and holds list, not text"),
        (pa.array([1]), "texts are a list and holds int, not text"),
        (pd.DataFrame([["x", "y"]], columns=["text", "text"]), "there are two columns 'text'; rename one"),
        (pa.table([["x"], ["y"]], names=["text", "text"]), "there are two columns 'text'; rename one"),
        ([{"body": "x"}], "no column 'text'; give text_column, one of: body"),
    ],
)
def test_a_file_that_is_not_text_is_refused_by_name(texts: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        annotated(texts)


def test_one_value_that_is_not_a_text_is_an_error_of_its_row() -> None:
    assert annotated(["Glad.", 5, b"x", None])["error"].tolist() == [
        None,
        "not_text: int",
        "not_text: bytes",
        "empty_text",
    ]


@pytest.mark.parametrize("name", ["error", "truncated", "v_reg"])
def test_columns_of_the_user_are_not_replaced(name: str) -> None:
    frame = pd.DataFrame({name: ["Glad.", "Sad."]})
    with pytest.raises(DataError, match=f"the column '{name}' exists already.*give a prefix"):
        annotated(frame, text_column=name)
    found = annotated(frame, text_column=name, prefix="a_")
    assert list(found) == [name, "a_v_reg", "a_truncated", "a_error", "a_not_english"]
    assert list(found[name]) == ["Glad.", "Sad."]


def test_what_is_asked_for_beside_the_answers_stands_in_columns_of_its_own() -> None:
    frame = emollm.annotate(
        ["glad and sad", ""], ["V-reg", "E-c"], model=CheapScorer(), progress=False, abstain=0.99, second=True,
        explain=True, prefix="m_",
    )  # type: ignore[call-overload]  # fmt: skip
    row = frame.iloc[0]
    assert pd.isna(row["m_v_reg"]) and row["m_v_reg_abstained"] and 0 <= row["m_v_reg_best"] <= 1
    assert row["m_e_c"] is None and isinstance(row["m_e_c_best"], tuple) and row["m_e_c_second"] != row["m_e_c_best"]
    assert {word["word"] for word in row["m_v_reg_words"]} == {"glad", "and", "sad"}
    assert "m_v_reg_second" not in frame and not frame["m_v_reg_abstained"][1] and frame["m_v_reg_words"][1] is None
    with pytest.raises(ConfigError, match="no sets for V-reg"):
        annotated("x", sets=0.9)
    with pytest.raises(ConfigError, match="read at once"):
        annotated("x", second=True, long="windows")
