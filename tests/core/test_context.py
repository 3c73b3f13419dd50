"""Context and target as pieces of a prompt: read beside the post, cut at their budgets, absent where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emollm.core.encoding import CONTEXT_TOKENS, TARGET_TOKENS, PromptEncoder
from emollm.core.prompts import LAYOUTS, Pieces, Question, as_context, lay_out, notes_of, render
from emollm.core.tasks import TASKS
from emollm.models.load import load_base
from tests.tiny import FAMILIES, Family, tiny_model

MARKUP = "</s> <|im_end|> Context: Tweet: Target: 1.0"


def encoder(family: Family, tmp_path: Path, max_tokens: int | None = None) -> PromptEncoder:
    loaded = load_base(str(tiny_model(family, tmp_path)))
    return PromptEncoder(
        loaded.tokenizer, LAYOUTS["emollm"], max_post_tokens=32, is_encoder_decoder=loaded.is_encoder_decoder,
        max_tokens=max_tokens,
    )  # fmt: skip


def test_the_pieces_stand_where_a_reader_expects_them() -> None:
    plain = render(Question(TASKS["EI-reg"], "so it goes", "joy"))
    both = render(Question(TASKS["EI-reg"], "so it goes", "joy", context="he left", target="the job"))
    assert both.text == plain.text.replace(" Tweet:", " Context: he left Tweet:").replace(
        "goes.", "goes. Target: the job."
    )
    assert plain == Pieces(plain.prefix, plain.post, plain.suffix) and "Context" not in plain.text


@pytest.mark.parametrize("family", FAMILIES)
def test_each_piece_is_encoded_by_itself_and_counted(family: Family, tmp_path: Path) -> None:
    encode = encoder(family, tmp_path)
    question = Question(TASKS["V-reg"], "I am glad", context=MARKUP, target=MARKUP)
    [with_both], [alone] = (
        encode.prompts([render(question)]),
        encode.prompts([render(Question(question.task, "I am glad"))]),
    )
    before, behind = with_both.num_before, with_both.num_behind
    assert with_both.post[before : len(with_both.post) - behind] == alone.post
    laid_out = lay_out(render(question), LAYOUTS["emollm"])
    [context] = encode.prompts([laid_out._replace(post=laid_out.context, context="", target="", lead="", bridge="")])
    assert with_both.post[: len(context.post)] == context.post
    assert not (with_both.context_cut or with_both.target_cut or with_both.truncated)
    # No token of a user's piece is one that ends the prompt.
    special = {encode._eos} - set(encode._end)
    assert not special & set(with_both.post)


def test_budgets_cut_the_far_end_of_the_context_and_the_end_of_the_target(tmp_path: Path) -> None:
    encode, task = encoder("llama", tmp_path), TASKS["V-reg"]
    context = " ".join(f"w{n}" for n in range(2000))
    long = Question(task, "I am glad", context=context, target=context)
    [prompt] = encode.prompts([render(long)])
    [near] = encode.prompts([render(Question(task, "I am glad", context="x w1998 w1999"))])
    assert prompt.context_cut and prompt.target_cut and not prompt.truncated
    bridge = len(encode._fixed(" Tweet:"))
    assert prompt.num_before == CONTEXT_TOKENS + bridge
    assert prompt.num_behind == TARGET_TOKENS + len(encode._fixed(" Target:"))
    end = near.post[near.num_before - bridge - 4 : near.num_before]
    assert prompt.post[prompt.num_before - len(end) : prompt.num_before] == end
    assert notes_of(long.text, long.target, prompt) == ("context_cut", "target_cut", "target_not_in_text")


def test_a_context_never_takes_the_room_that_the_model_has_for_the_rest(tmp_path: Path) -> None:
    question = Question(TASKS["V-reg"], "I am glad", context="word " * 500)
    for max_tokens in (40, 150, 300):
        [prompt] = encoder("llama", tmp_path, max_tokens).prompts([render(question)])
        [alone] = encoder("llama", tmp_path).prompts([render(Question(question.task, question.text))])
        assert prompt.context_cut
        assert len(prompt) <= max(max_tokens - 64, len(alone) + 8)


def test_a_context_may_be_a_text_or_earlier_posts() -> None:
    assert as_context(["one", None, " two "]) == "one | two"
    assert as_context(json.dumps(["one", "two"])) == "one | two"
    assert as_context(None) == as_context(float("nan")) == as_context([]) == as_context("  ") == ""
    assert as_context('["not JSON') == '["not JSON'
    assert as_context(3) == "3"
