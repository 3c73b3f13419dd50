"""The local baselines, each on texts whose answer is plain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emollm.core.errors import DataError
from emollm.core.tasks import TASKS, Value
from emollm.data.corpora.published import published_files, read_published
from emollm.data.corpora.vader import FILES, read_vader
from emollm.evaluation.baselines.constant import predict_constant
from emollm.evaluation.baselines.lexicon import predict_lexicon, read_lexicon
from emollm.evaluation.baselines.polarity import predict_polarity, textblob_polarity, vader_polarity
from emollm.evaluation.options import EvaluateConfig
from emollm.evaluation.published import COLUMNS, quoted_systems
from emollm.evaluation.systems import spread
from emollm.metrics.questions import GoldQuestion
from emollm.metrics.scores import score_task
from tests.official import corpus


def question(task: str, text: str, gold: Value, emotion: str | None = None) -> GoldQuestion:
    return GoldQuestion(id=text, task=TASKS[task], emotion=emotion, text=text, gold=gold)


def test_no_constant_does_better_than_the_best_one() -> None:
    asked = [question("SST5", str(i), gold) for i, gold in enumerate((3, 3, 1, 0))]
    asked += [question("V-reg", str(i), gold) for i, gold in enumerate((0.2, 0.4, 0.9))]
    found = predict_constant(asked)
    assert [p.value for p in found[:4]] == [3] * 4
    assert [p.value for p in found[4:]] == [pytest.approx(0.5)] * 3
    assert score_task(found[:4]).scores["accuracy"] == 0.5
    assert np.isnan(score_task(found[4:]).scores["pearson"])


@pytest.mark.parametrize("polarity", [vader_polarity, textblob_polarity])
def test_polarity_answers_every_task_of_valence(polarity: object) -> None:
    good, bad = "This is wonderful, I love it!", "This is horrible, I hate it."
    tasks = ("V-reg", "V-oc", "SST5", "TDT", "EmoBank-V", "VADER-NYT")
    asked = [question(task, text, 1) for task in tasks for text in (good, bad)]
    found = predict_polarity(polarity(), [*asked, question("E-c", good, ()), question("EI-reg", good, 0.5, "joy")])  # type: ignore[operator]
    assert len(found) == len(asked)  # emotions are not its business
    for high, low in zip(found[::2], found[1::2], strict=True):
        high.question.task.check_value(high.value)  # type: ignore[arg-type]
        assert high.value > low.value  # type: ignore[operator]
    (flat,) = predict_polarity(polarity(), [question("TDT", "The train leaves at nine.", 0)])  # type: ignore[operator]
    assert flat.value == 0


def test_a_users_own_lexicon_in_either_form(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text(
        "grim\tsadness\t1\ngrim\tnegative\t1\ngrim\tjoy\t0\nsunny\tjoy\t1\nsunny\tpositive\t1\n"
    )
    (tmp_path / "l.json").write_text('{"grim": ["sadness", "negative"], "Sunny": ["joy", "positive"]}')
    lexicon = read_lexicon(tmp_path / "l.txt")
    assert lexicon == read_lexicon(tmp_path / "l.json")
    asked = [
        question("EI-reg", "A grim day.", 0.5, "sadness"),
        question("EI-reg", "A grim day.", 0.5, "fear"),
        question("EI-oc", "Sunny, sunny!", 1, "joy"),
        question("E-c", "sunny then grim", ()),
        question("E-c", "nothing at all", ()),
        question("V-reg", "a sunny day", 0.5),
        question("GoEmotions", "nothing at all", ("neutral",)),
    ]
    found = predict_lexicon(lexicon, asked)
    # It knows nothing of fear, so that question is left out.
    assert [p.value for p in found] == [1.0, 3, ("joy", "sadness"), (), 1.0, ("neutral",)]


@pytest.mark.parametrize("text", ["anger", "grim\tsadness\tyes", ""])
def test_a_lexicon_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "l.txt").write_text(text)
    with pytest.raises(DataError, match="lexicon"):
        read_lexicon(tmp_path / "l.txt")


def test_slow_systems_get_rows_spread_over_each_question() -> None:
    asked = [question("V-reg", str(i), 0.5) for i in range(100)]
    asked += [question("EI-reg", str(i), 0.5, e) for e in ("joy", "fear") for i in range(3)]
    chosen = spread(asked, 4)
    assert [q.text for q in chosen if q.task.name == "V-reg"] == ["0", "25", "50", "75"]
    assert len(chosen) == 4 + 6
    assert spread(asked, 10**12) == asked


def test_local_stands_for_what_runs_here() -> None:
    config = EvaluateConfig(aeb=Path("x"), baselines=("vader", "local"))
    assert config.chosen_baselines == ("vader", "constant", "textblob")
    with pytest.raises(ValueError, match="needs --lexicon"):
        EvaluateConfig(aeb=Path("x"), baselines=("lexicon",))


def test_published_figures_are_where_they_belong() -> None:
    systems = {system.name: system.scores for system in quoted_systems()}
    assert len(systems) == 21
    assert systems["EmoLLaMA-chat-13b"][COLUMNS["EI-reg"]] == 0.831
    assert systems["VADER"][COLUMNS["V-T"]] == 0.862
    assert systems["EmoLLaMA-chat-13b"][COLUMNS["EI-oc sadness"]] == 0.755
    assert COLUMNS["E-c acc"] not in systems["VADER"]  # an empty cell is no figure


@pytest.mark.slow
def test_vader_gives_its_published_row_on_the_published_texts() -> None:
    folder = corpus("aeb_release")
    texts = {name: {e.text for e in read_vader(corpus("vader"), name, bad=[])} for name in FILES}
    examples = [e for path in published_files(folder) for e in read_published(path, "test", vader_texts=texts, bad=[])]
    published = next(system.scores for system in quoted_systems() if system.name == "VADER")
    for column in ("V-A", "V-M", "V-NYT", "V-T", "SST"):
        task = COLUMNS[column].task
        asked = [question(e.task, e.text, e.value) for e in examples if e.task == task]
        pearson = score_task(predict_polarity(vader_polarity(), asked)).scores["pearson"]
        # Half of the rows are at hand: a standard error of .02 to .04.
        assert pearson == pytest.approx(published[COLUMNS[column]], abs=0.06), column
