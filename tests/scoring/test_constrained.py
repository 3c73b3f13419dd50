"""The constrained engine against teacher forcing, one answer after the other."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from emollm.core.answers import answer_string, from_unit
from emollm.core.prompts import Question, questions_for
from emollm.core.tasks import TASKS, Task, select_tasks
from emollm.models.load import LoadedModel
from emollm.scoring.constrained.engine import ConstrainedScorer
from emollm.scoring.constrained.search import READ_ALL, SearchOptions
from emollm.scoring.constrained.trie import LabelSetTrie, decimal_spellings
from tests.scoring.brute import log_ps
from tests.scoring.conftest import Load

POSTS = ("I am so happy!", "What a sad, sad day, my friend 😢 and it will not end", "Rage")
FEW_LABELS = TASKS["E-c"].model_copy(update={"name": "few", "labels": ("anger", "fear", "joy", "optimism", "trust")})
ONE_OF = Task(
    name="one-of", kind="single-label", title="t", source="s", metric="accuracy", question="It is: ",
    templates=("Pick.",), labels=("calm", "calm and glad", "sad"),
)  # fmt: skip


def softmax(log_p: list[float]) -> np.ndarray:
    shifted = np.exp(np.array(log_p) - max(log_p))
    return shifted / shifted.sum()


def closed(task: Task, emotion: str | None) -> dict[str, str]:
    values = [c.value for c in task.classes] or task.labels
    return {str(v): answer_string(task, v, emotion) for v in values}


@pytest.mark.parametrize("exact", [True, False], ids=["default", "read-all"])
def test_class_probabilities_are_teacher_forced_ones(tiny: LoadedModel, exact: bool) -> None:
    scorer = ConstrainedScorer(tiny, options=SearchOptions() if exact else READ_ALL)
    questions = [q for post in POSTS for q in questions_for(post, (TASKS["EI-oc"], TASKS["V-oc"], ONE_OF))]
    for question, answer in zip(questions, scorer.score(questions), strict=True):
        strings = closed(question.task, question.emotion)
        log_p = log_ps(tiny, question, list(strings.values()))
        truth = dict(zip(strings, softmax(log_p), strict=True))
        assert answer.probabilities == pytest.approx(truth, abs=1e-3)
        assert str(answer.value) == max(truth, key=truth.__getitem__)
        assert answer.confidence == pytest.approx(max(truth.values()), abs=1e-3)
        assert math.log(answer.valid_mass) == pytest.approx(np.logaddexp.reduce(log_p), abs=0.01)


@pytest.mark.parametrize(
    ("family", "spelling"),
    [("llama", "bytes-digits"), ("llama", "metaspace-digits"), ("opt", "bytes"), ("bloom", "bytes"),
     ("t5", "metaspace"), ("t5", "metaspace-digits"), ("bart", "bytes")],
)  # fmt: skip
def test_numbers_are_teacher_forced_ones_however_digits_are_spelt(load: Load, family: str, spelling: str) -> None:
    loaded = load(family, spelling)
    question = Question(TASKS["EmoBank-V"], POSTS[1])
    [answer] = ConstrainedScorer(loaded, options=READ_ALL).score([question])
    spellings = decimal_spellings()
    assert len(spellings) == 1115 and {float(s) for s in spellings} == {i / 1000 for i in range(1001)}
    p = softmax(log_ps(loaded, question, spellings))
    numbers = np.array([float(s) for s in spellings])
    mean = p @ numbers
    assert answer.unit == pytest.approx(mean, abs=1e-4)
    assert answer.value == pytest.approx(1 + 4 * mean, abs=4e-4)
    assert answer.std == pytest.approx(4 * np.sqrt(p @ (numbers - mean) ** 2), abs=1e-3)
    tenths = [p[(numbers >= i / 10 - 1e-9) & (numbers < (i + 1) / 10 - 1e-9)].sum() for i in range(10)]
    assert list(answer.probabilities.values()) == pytest.approx([*tenths, p[numbers == 1].sum()], abs=1e-3)


def subsets(labels: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [s for size in range(len(labels) + 1) for s in itertools.combinations(labels, size)]


def test_label_sets_are_searched_and_their_marginals_exact(tiny: LoadedModel) -> None:
    questions = [Question(FEW_LABELS, post) for post in POSTS]
    everything = ConstrainedScorer(tiny, options=READ_ALL).score(questions)
    searched = ConstrainedScorer(tiny).score(questions)
    for question, all_read, quick in zip(questions, everything, searched, strict=True):
        sets = subsets(FEW_LABELS.labels)
        log_p = log_ps(tiny, question, [answer_string(FEW_LABELS, s) for s in sets])
        p = softmax(log_p)
        assert all_read.value == sets[int(p.argmax())]
        assert all_read.confidence == pytest.approx(p.max(), abs=1e-3)
        marginals = {label: sum(q for s, q in zip(sets, p, strict=True) if label in s) for label in FEW_LABELS.labels}
        assert all_read.probabilities == pytest.approx(marginals, abs=1e-3)
        by_set = dict(zip(sets, log_p, strict=True))
        # Never worse than greedy, by the model's own count.
        assert by_set[quick.value] >= by_set[quick.mode] - 1e-4
        assert quick.mode == all_read.mode == greedy_set(sets, by_set, tiny, question)


def greedy_set(sets, by_set, loaded, question):  # type: ignore[no-untyped-def]
    """Token by token, always the likeliest that some set goes on with."""
    from emollm.models.load import prompt_encoder

    encoder = prompt_encoder(loaded)
    spelt = {s: encoder.answer(answer_string(FEW_LABELS, s)) for s in sets}
    path: list[int] = []
    while True:
        matching = {s: ids for s, ids in spelt.items() if ids[: len(path)] == path}
        if len(matching) == 1 and len(next(iter(matching.values()))) == len(path):
            return next(iter(matching))
        following = {ids[len(path)] for ids in matching.values()}
        path.append(max(following, key=lambda token: next_log_p(loaded, question, path, token)))


def next_log_p(loaded: LoadedModel, question: Question, path: list[int], token: int) -> float:
    import torch

    from emollm.core.prompts import render
    from emollm.models.load import prompt_encoder

    prompt = prompt_encoder(loaded).prompt(render(question)).ids
    with torch.inference_mode():
        if loaded.is_encoder_decoder:
            start = loaded.model.config.decoder_start_token_id
            logits = loaded.model(
                input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([[start, *path]])
            ).logits
        else:
            logits = loaded.model(input_ids=torch.tensor([prompt + path])).logits
    return float(logits[0, -1].log_softmax(-1)[token])


@pytest.mark.slow
def test_order_and_batch_change_nothing(tiny: LoadedModel) -> None:
    tasks = select_tasks(["profile", "GoEmotions-28"])
    questions = [q for post in POSTS for q in questions_for(post, tasks)]
    scorer = ConstrainedScorer(tiny, batch_tokens=64)
    together = scorer.score(questions[::-1])[::-1]
    for question, answer in zip(questions, together, strict=True):
        [alone] = ConstrainedScorer(tiny).score([question]) if question.emotion in (None, "joy") else [None]
        if alone is not None:
            assert answer.value == pytest.approx(alone.value, abs=1e-4)
            assert answer.probabilities == pytest.approx(alone.probabilities, abs=1e-3)


def test_native_range_and_unit() -> None:
    assert from_unit(TASKS["EmoBank-V"], 0.5) == 3.0


def test_a_first_label_that_is_one_token_with_its_comma_is_there_from_the_start() -> None:
    ids: dict[str, int] = {}

    def encode(text: str) -> list[int]:
        return [*(ids.setdefault(word, len(ids) + 1) for word in text.split()), 0]

    trie = LabelSetTrie(TASKS["E-c"], encode)
    assert {ids["anger,"], ids["joy,"]} <= set(trie.root.children)
