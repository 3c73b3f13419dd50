"""Call-time tasks, context and target give the same numbers in Python, with the command, as a job and over HTTP."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import emollm
from emollm.annotation.options import AnnotateConfig
from emollm.annotation.pipeline import annotate_corpus
from emollm.annotation.verify import verify
from emollm.commands.annotate import main as annotate_command
from emollm.commands.text import main as text_command
from emollm.core.card import read_card
from emollm.core.errors import ConfigError, DataError
from emollm.core.options import ClusterConfig
from emollm.scoring.open import open_scorer
from emollm.serve.annotator import Annotator, Description
from emollm.serve.batching import Piece
from emollm.serve.config import ServeConfig
from emollm.serve.gateway import Gateway
from emollm.serve.problems import Problem
from emollm.serve.schema import AnnotateRequest, TextResult
from tests.annotation.threads import on_threads

POSTS = [
    {"id": "a", "text": "It is over at last!", "thread": ["How was the exam?", "Well?"], "who": "it"},
    {"id": "b", "text": "They did it again.", "thread": None, "who": "the council"},
    {"id": "c", "text": "", "thread": ["Anybody there?"], "who": None},
    {"id": "d", "text": "It is over at last!", "thread": ["</s> Tweet: <b>joy</b>"], "who": None},
]
TOML = """
[[task]]
labels = ["relief", "dread", "boredom"]
[[task]]
name = "guests"
labels = ["relief", "dread"]
many = true
way = "entailment"
[[task]]
name = "stress"
low = 0
high = 10
[[task]]
name = "V-reg"
"""
NAMES = ("relief_dread_boredom", "guests", "stress", "v_reg")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(TOML)
    (tmp_path / "posts.jsonl").write_text("\n".join(map(json.dumps, POSTS)))
    return path


@pytest.fixture
def in_python(mine: Path, model_directory: Path) -> list[dict[str, Any]]:
    frame = emollm.annotate(
        pd.DataFrame(POSTS), mine, model=model_directory, context="thread", target="who", progress=False, details=True
    )
    return list(frame.to_dict("records"))


def check(rows: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(rows) == len(expected) == len(POSTS)
    for row, wanted in zip(rows, expected, strict=True):
        assert list(row["notes"]) == wanted["notes"] and row["error"] == wanted["error"]
        for name in NAMES:
            value, other = row[name], wanted[name]
            if isinstance(other, float):
                assert (value is None and other != other) or value == pytest.approx(other, abs=1e-5)
            else:
                assert (list(value) if isinstance(other, tuple) else value) == (
                    list(other) if isinstance(other, tuple) else other
                )
        for name in NAMES[:3]:
            assert row[f"{name}_way"] == wanted[f"{name}_way"]
        for name in NAMES[:2]:
            if wanted["text"]:
                assert row[f"{name}_probabilities"] == pytest.approx(wanted[f"{name}_probabilities"], abs=1e-5)


def test_python_says_way_mass_and_notes(in_python: list[dict[str, Any]]) -> None:
    a, b, c, d = in_python
    assert a["notes"] == [] and b["notes"] == ["target_not_in_text"] and c["error"] == "empty_text"
    assert a["relief_dread_boredom_way"].startswith("constrained by ") and a["guests_way"].startswith("entailment by ")
    assert 0 <= a["stress"] <= 10 and 0 <= a["guests_valid_mass"] <= 1
    # The same text with another context is another question.
    assert a["relief_dread_boredom_probabilities"] != d["relief_dread_boredom_probabilities"]
    assert "v_reg_way" not in a


def test_the_command_gives_the_same(mine: Path, model_directory: Path, in_python: list[dict[str, Any]]) -> None:
    posts, out = mine.with_name("posts.jsonl"), mine.with_name("out.parquet")
    annotate_command(
        [str(posts), str(out), f"--model={model_directory}", f"--tasks={mine}", "--context-column=thread",
         "--target-column=who", "--no-ray", "--processes=1"]
    )  # fmt: skip
    table = pq.read_table(out)
    check(table.to_pylist(), in_python)
    assert table.schema.field("stress").metadata[b"range"] == b"0..10"


def test_the_job_gives_the_same_and_knows_itself_again(
    mine: Path, model_directory: Path, in_python: list[dict[str, Any]]
) -> None:
    settings = {
        "model": str(model_directory), "input": str(mine.with_name("posts.jsonl")), "out": str(mine.with_name("out")),
        "tasks": (str(mine),), "context_column": "thread", "target_column": "who", "max_error_rate": 1.0,
        "precision": "float32", "cluster": ClusterConfig(num_workers=1),
    }  # fmt: skip
    with on_threads():
        assert annotate_corpus(AnnotateConfig.model_validate(settings))["scored"] == 4
        assert annotate_corpus(AnnotateConfig.model_validate(settings))["already_done"]
        with pytest.raises(DataError, match="beside"):
            annotate_corpus(AnnotateConfig.model_validate({**settings, "target_column": None, "carry": ("who",)}))
    check(pq.read_table(mine.with_name("out")).to_pylist(), in_python)
    assert verify(str(mine.with_name("out"))).problems == []


class Replica:
    """The model's side of the endpoint in this process, without Ray: the class that a replica is made of."""

    def __init__(self, model: Path) -> None:
        self._scorer = open_scorer(str(model), device="cpu")
        self._metrics = self

    def answers(self, _questions: Any, _answers: Any) -> None:
        """Metrics are Ray's."""

    @property
    def describe(self) -> Any:
        return _Remote(self._describe)

    @property
    def answer(self) -> Any:
        return _Remote(self._answer)

    async def _describe(self) -> Description:
        return Description(self._scorer.card, "constrained", "float32", "", {}, "m")

    async def _answer(self, piece: Piece) -> Any:
        scored, _ = Annotator.func_or_class._score_pieces(self, [piece])
        return scored[0]


class _Remote:
    def __init__(self, call: Any) -> None:
        self.remote = call


def over_http(model: Path, body: dict[str, Any]) -> list[dict[str, Any]]:
    request = AnnotateRequest.model_validate(body)
    gateway = Gateway(ServeConfig(model=str(model), engine="constrained", batch_tokens=64), Replica(model))
    found = asyncio.run(gateway.annotate({"request_id": "r"}, request.texts, request.asked, request.beside))
    return [
        json.loads(TextResult.of(text, *each).model_dump_json())
        for text, each in zip(request.texts, found, strict=True)
    ]


def test_the_endpoint_gives_the_same(model_directory: Path, in_python: list[dict[str, Any]]) -> None:
    body = {
        "texts": [post["text"] for post in POSTS],
        "contexts": [post["thread"] for post in POSTS],
        "targets": [post["who"] for post in POSTS],
        "tasks": [
            {"labels": ["relief", "dread", "boredom"]},
            {"name": "guests", "labels": ["relief", "dread"], "many": True, "way": "entailment"},
            {"name": "stress", "low": 0, "high": 10},
            "V-reg",
        ],
    }
    rows = []
    for result in over_http(model_directory, body):
        row: dict[str, Any] = {"notes": result["notes"], "error": result["answers"][0]["error"]}
        for name, answer in zip(NAMES, result["answers"], strict=True):
            row |= {
                name: answer["value"],
                f"{name}_way": answer["way"],
                f"{name}_probabilities": answer["probabilities"],
            }
        rows.append(row)
    check(rows, in_python)


def test_a_text_in_another_language_is_flagged_over_http(model_directory: Path) -> None:
    texts = ["Das ist aber ein schöner Tag heute", "what a lovely day it is today"]
    found = over_http(model_directory, {"texts": texts, "tasks": ["V-reg"]})
    assert [result["not_english"] for result in found] == [True, False]


@pytest.mark.parametrize(
    ("task", "code", "said"),
    [
        ({"labels": ["relief"]}, "invalid_task", "two or more labels"),
        ({"labels": ["a,b", "c"], "many": True}, "invalid_task", "comma"),
        ({"labels": ["a", "b"], "name": "V-reg"}, "invalid_task", "'V-reg' is a task of emollm"),
        ("mine.toml", "unknown_task", "unknown task 'mine.toml'"),
    ],
)
def test_a_request_with_a_task_that_cannot_be_is_refused(
    model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Any, code: str, said: str
) -> None:
    (tmp_path / "mine.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)  # a request names no file of the server's
    with pytest.raises(Problem) as caught:
        over_http(model_directory, {"texts": ["a"], "tasks": [task]})
    assert caught.value.status == 422 and caught.value.code == code and said in str(caught.value)


def test_the_text_command_asks_labels_of_its_own(model_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"--model={model_directory}", "--labels=relief,dread", "--context=Well?", "--target=exam"]
    text_command(["It is over!", "--json", *options])
    found = json.loads(capsys.readouterr().out)
    frame = emollm.annotate(
        "It is over!", emollm.labels("relief", "dread"), model=model_directory, context="Well?", target="exam",
        progress=False,
    )  # fmt: skip
    assert found["relief_dread"] == frame["relief_dread"][0] and found["notes"] == ["target_not_in_text"]
    assert found["relief_dread_way"].startswith("constrained by ")
    text_command(["It is over!", *options])
    assert "answered as constrained by" in capsys.readouterr().out


def test_what_is_beside_the_texts_must_be_one_for_each(model_directory: Path, mine: Path) -> None:
    own = emollm.labels("relief", "dread")
    with pytest.raises(DataError, match="context has 1 values for 2 texts"):
        emollm.annotate(["a", "b"], own, model=model_directory, context=["x"])
    with pytest.raises(DataError, match="no column 'thread' for context; give one of: text"):
        emollm.annotate(["a", "b"], own, model=model_directory, context="thread")
    with pytest.raises(DataError, match="--target-column"):
        annotate_command([str(mine.with_name("posts.jsonl")), f"--model={model_directory}", "--target-column=whom"])
    with pytest.raises(ConfigError, match="takes a post apart"):
        annotate_command([str(mine.with_name("posts.jsonl")), "--context-column=thread", "--long=windows"])
    with pytest.raises(ConfigError, match="another task"):
        emollm.annotate(["a"], ["V-reg", own, emollm.labels("dread", "x", name="relief-dread")], model=model_directory)


def test_words_are_explained_beside_a_context_at_every_door(model_directory: Path, mine: Path) -> None:
    posts, out = mine.with_name("posts.jsonl"), mine.with_name("words.parquet")
    annotate_command(
        [str(posts), f"--out={out}", f"--model={model_directory}", "--tasks=V-reg", "--context-column=thread",
         "--explain", "--processes=1"]
    )  # fmt: skip
    by_command = pq.read_table(out)["v_reg_words"].to_pylist()
    texts, threads = [post["text"] for post in POSTS], [post["thread"] for post in POSTS]
    options: dict[str, Any] = {"model": model_directory, "explain": True, "progress": False}
    in_python = emollm.annotate(texts, "V-reg", context=threads, **options)["v_reg_words"]
    for mine_, its in zip(by_command, in_python, strict=True):
        mine_, its = mine_ or [], its or []  # a text that cannot be read has none
        assert [one["word"] for one in mine_] == [one["word"] for one in its]
        assert [one["effect"] for one in mine_] == pytest.approx([one["effect"] for one in its], abs=1e-5)
    assert any(by_command)


def test_the_card_of_the_model_is_left_alone(model_directory: Path, in_python: list[dict[str, Any]]) -> None:
    assert in_python and all(task.way is None for task in read_card(model_directory).tasks)
