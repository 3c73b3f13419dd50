"""The constrained engine on a real model, the embedded SmolLM2, against teacher forcing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emollm.core.answers import answer_string
from emollm.core.prompts import Question
from emollm.core.tasks import TASKS
from emollm.models.load import LoadedModel, load_base
from emollm.scoring.constrained.engine import ConstrainedScorer
from emollm.scoring.constrained.search import SearchOptions
from emollm.scoring.constrained.trie import decimal_spellings
from tests.scoring.brute import log_ps

pytestmark = pytest.mark.slow
POST = "so that is what a quiet evening feels like 🙂"


@pytest.fixture(scope="module")
def smollm2() -> LoadedModel:
    torch.set_num_threads(1)
    return load_base("smollm2-135m-instruct")


def test_classes(smollm2: LoadedModel) -> None:
    questions = [Question(TASKS["EI-oc"], POST, "joy"), Question(TASKS["TDT"], POST)]
    for question, answer in zip(questions, ConstrainedScorer(smollm2).score(questions), strict=True):
        log_p = log_ps(
            smollm2, question, [answer_string(question.task, c.value, question.emotion) for c in question.task.classes]
        )
        p = np.exp(np.array(log_p) - np.logaddexp.reduce(log_p))
        assert list(answer.probabilities.values()) == pytest.approx(p, abs=1e-3)


def test_numbers_to_one_place(smollm2: LoadedModel) -> None:
    # All 1,115 spellings by teacher forcing are a minute's work; those of at most one place say how exact a prefix is.
    question = Question(TASKS["V-reg"], POST)
    spellings = [s for s in decimal_spellings() if len(s) <= 3]
    log_p = dict(zip(spellings, log_ps(smollm2, question, spellings), strict=True))
    scorer = ConstrainedScorer(smollm2, options=SearchOptions(digits=2, min_error=1e-9))
    [answer] = scorer.score([question])
    # "0.5" ends there, or goes on: the tenth holds at least what the one string has.
    for tenth in range(10):
        share = np.exp(log_p[f"0.{tenth}"]) / answer.valid_mass
        assert answer.probabilities[f"0.{tenth}"] >= share - 1e-4
    assert 0 <= answer.value <= 1 and answer.std > 0


def test_a_set_is_as_likely_as_reported(smollm2: LoadedModel) -> None:
    question = Question(TASKS["E-c"], POST)
    [answer] = ConstrainedScorer(smollm2).score([question])
    found, greedy = (answer_string(question.task, s) for s in (answer.value, answer.mode))
    log_p = log_ps(smollm2, question, [found, greedy])
    assert answer.confidence * answer.valid_mass == pytest.approx(np.exp(log_p[0]), rel=1e-3)
    assert log_p[0] >= log_p[1]
