"""Lexicons beside the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emollm.commands.report import lexicons
from emollm.study.findings import find
from emollm.study.options import ReportConfig
from tests.study.annotated import corpus

GLAD, SAD = "What a wonderful, lovely day, I love it", "This is terrible, I hate it"


def test_vader_and_textblob_stand_beside_the_model_and_conclusions_are_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lang = rng.choice(["en", "pt"], 400)
    glad = rng.random(400) < np.where(lang == "en", 0.7, 0.3)
    path = corpus(
        tmp_path / "a.parquet", np.zeros((400, 3)), numbers=np.where(glad, 0.8, 0.2).tolist(),
        texts=[GLAD if one else SAD for one in glad[:-1]] + [""], lang=lang,
    )  # fmt: skip
    config = ReportConfig(output=str(path), by=("lang",), beside=("vader", "textblob"))
    found = find(config, lexicons=lexicons(config.beside))
    assert [m.name for m in found.measures][-2:] == ["vader", "textblob"]
    vader, textblob = found.agreements
    assert vader.question == "v_reg" and vader.correlation > 0.99
    assert (vader.compared, vader.same_sign, vader.same_verdict) == (1, 1, 1) == (
        textblob.compared, textblob.same_sign, textblob.same_verdict,
    )  # fmt: skip
    assert found.whole[-1].posts == 399  # no text, no polarity


def test_a_lexicon_that_contradicts_the_model_is_detected(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lang = rng.choice(["en", "pt"], 400)
    numbers = np.where(lang == "en", 0.6, 0.4) + rng.normal(0, 0.05, 400)
    texts = [f"{one} {number}" for one, number in zip(lang, numbers, strict=True)]
    path = corpus(tmp_path / "a.parquet", np.zeros((400, 3)), numbers=numbers.tolist(), texts=texts, lang=lang)
    config = ReportConfig(output=str(path), by=("lang",))
    [one] = find(config, lexicons={"odd": lambda text: 1 - 2 * float(text.split()[1])}).agreements
    assert one.correlation == pytest.approx(-1) and (one.same_sign, one.same_verdict) == (0, 0)
