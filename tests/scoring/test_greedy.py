"""Beside free greedy generation, on tiny models that were taught to answer."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from emollm.core.answers import answer_string, parse_answer
from emollm.core.prompts import questions_for
from emollm.core.tasks import TASKS, Task, select_tasks
from emollm.models.load import LoadedModel, load_base, prompt_encoder
from emollm.scoring.constrained.engine import ConstrainedScorer
from emollm.scoring.constrained.search import SearchOptions
from emollm.scoring.generate import GenerateScorer
from emollm.training.batches import collate_decoder, collate_encoder_decoder
from emollm.training.objective import AnswerLoss
from emollm.training.row_tokens import encode_rows
from tests.tiny import tiny_model

pytestmark = pytest.mark.slow

POSTS = ("I am so happy!", "What a sad, sad day", "Rage!!!", "Nothing to report", "Is that a spider? Help", "Lovely 🌻")


@pytest.fixture(scope="module", params=["llama", "bart"])
def taught(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, sample_data: Path) -> LoadedModel:
    """A tiny model after seconds of fine-tuning: it knows how answers look, and little else."""
    folder = tiny_model(request.param, tmp_path_factory.mktemp("taught") / request.param)
    loaded = load_base(str(folder))
    torch.manual_seed(0)
    for parameter in loaded.model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.1)
    encoder = prompt_encoder(loaded)
    rows = encode_rows(pq.read_table(sample_data / "train.parquet").slice(0, 1200), encoder)
    rows = sorted(rows, key=lambda row: len(row.prompt))[:480]
    loss, optimizer = AnswerLoss(loaded.model), torch.optim.AdamW(loaded.model.parameters(), lr=1e-2)
    pad = loaded.tokenizer.pad_token_id
    loaded.model.train()
    for step in range(150):
        batch = rows[step % 15 * 32 : step % 15 * 32 + 32]
        if loaded.is_encoder_decoder:
            start = loaded.model.config.decoder_start_token_id
            micro = collate_encoder_decoder(batch, pad=pad, start=start)
        else:
            micro = collate_decoder(batch, pad=pad)
        optimizer.zero_grad()
        (loss(micro.inputs, micro.labels_BT) / 32).backward()
        torch.nn.utils.clip_grad_norm_(loaded.model.parameters(), 1.0)
        optimizer.step()
    loaded.model.eval()
    return loaded


def test_a_valid_greedy_answer_is_the_mode(taught: LoadedModel) -> None:
    questions = [q for post in POSTS for q in questions_for(post, select_tasks(["profile"]))]
    free = GenerateScorer(taught)
    compared = 0
    for question, ours in zip(questions, ConstrainedScorer(taught).score(questions), strict=True):
        [(text, probability)] = free._generate(free._encode([question]), question.task)
        if ours.mode is None or not is_canonical(question.task, text, question.emotion):
            continue
        compared += 1
        assert ours.mode == pytest.approx(parse_answer(question.task, text))
        if question.task.name == "E-c":
            # The set reported is never less likely than the greedy one.
            assert ours.confidence * ours.valid_mass >= probability - 1e-4
    assert compared > len(questions) * 0.3  # else the test would test nothing


def is_canonical(task: Task, text: str, emotion: str | None) -> bool:
    """Whether a fine-tuned model could have been taught this very text; "joy" and "0.5555" only mean one."""
    value = parse_answer(task, text)
    return value is not None and answer_string(task, value, emotion) == text


def test_the_batch_does_not_change_what_is_generated(taught: LoadedModel) -> None:
    # BART counts positions from the first column, padding included: padded on the left it answered otherwise.
    questions = [q for post in POSTS for q in questions_for(post, (TASKS["EI-oc"],))]
    scorer = GenerateScorer(taught)
    alone = [scorer.score([question])[0] for question in questions]
    answered = [mine for mine in alone if mine.value is not None]
    assert len(answered) > len(alone) / 2
    for mine, ours in zip(alone, scorer.score(questions), strict=True):
        assert ours.value == mine.value
        assert mine.value is None or ours.confidence == pytest.approx(mine.confidence, rel=1e-3)


def test_the_error_of_the_search_options_is_small(taught: LoadedModel) -> None:
    questions = [q for post in POSTS for q in questions_for(post, select_tasks(["profile"]))]
    exact = ConstrainedScorer(taught, options=SearchOptions(digits=3, min_error=1e-5, tolerance=0.0)).score(questions)
    default = ConstrainedScorer(taught).score(questions)
    quick = ConstrainedScorer(taught, options=SearchOptions(exact=False, digits=1)).score(questions)
    for question, e, d, q in zip(questions, exact, default, quick, strict=True):
        if question.task.name.endswith("reg"):
            assert d.value == pytest.approx(e.value, abs=0.005)
            assert q.value == pytest.approx(e.value, abs=0.06)
        elif question.task.name.endswith("oc"):
            assert d.probabilities == pytest.approx(e.probabilities, abs=1e-3)
            # Taking the rest for certain is right where the model knows how answers go on.
            assert e.valid_mass < 0.9 or q.probabilities == pytest.approx(e.probabilities, abs=0.05)
