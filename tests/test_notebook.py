"""What a notebook shows: the card, pictures, and a bar."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import emollm
from emollm.core.errors import ConfigError, DataError

FRAME = pd.DataFrame(
    {
        "day": ["2026-03-01", "2026-03-01", "2026-03-02", "2026-03-02"],
        "town": ["Leeds", "York", "Leeds", "York"],
        "v_reg": [0.2, 0.4, 0.8, None],
        "e_c": [("sadness",), (), ("joy", "love"), None],
    }
)


def test_the_card_of_a_bundled_model() -> None:
    card = emollm.explain_card("smollm2-135m-heads")
    assert "a number from 0 to 1, for each of anger, fear, joy, sadness" in str(card)
    assert "derived from V-reg" in str(card) and "pearson 0.79" in str(card)
    assert card._repr_html_().count("<tr>") == 16  # 15 tasks and the head
    with pytest.raises(ConfigError, match="untrained base model"):
        emollm.explain_card("smollm2-135m-instruct")


def test_names_in_a_card_are_text(model_directory: Path) -> None:
    card = emollm.explain_card(str(model_directory))
    card._name = "<script>"
    assert "<script>" not in card._repr_html_()


@pytest.mark.slow
def test_valence_over_time_and_emotions_by_group(tmp_path: Path) -> None:
    figure = emollm.plot(FRAME, group="town")
    over_time, emotions = figure.axes
    [line] = over_time.lines[:1]
    assert line.get_ydata() == pytest.approx([0.3, 0.8])
    assert over_time.get_title() == "Mean valence per day"
    assert [text.get_text() for text in emotions.get_legend().get_texts()] == ["Leeds", "York"]
    widths = {bar.get_width() for bars in emotions.containers for bar in bars}
    assert widths == {0.0, 0.5}  # of two posts of Leeds one has joy; the one of York that was answered has none
    figure.savefig(tmp_path / "a.png")


@pytest.mark.slow
def test_plots_without_times_or_groups_and_of_nothing() -> None:
    assert emollm.plot(FRAME.drop(columns="day")).axes[0].get_xlabel() == "valence"
    with pytest.raises(DataError, match="annotate the texts first"):
        emollm.plot(FRAME[["day"]])
    with pytest.raises(DataError, match="no column 'city'; choose from: day, town"):
        emollm.plot(FRAME, group="city")
    with pytest.raises(DataError, match="holds no dates"):
        emollm.plot(FRAME, time="town")
