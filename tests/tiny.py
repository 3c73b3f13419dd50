"""Tiny random models of every family, built on the spot: real transformers models, no network.

They know nothing, but their weights are drawn wide enough that no two answers are equally likely.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BertConfig,
    BloomConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
)

from emollm.core.answers import answer_string
from emollm.core.prompts import questions_for, render
from emollm.core.tasks import TASKS, Kind

Family = Literal["llama", "opt", "bloom", "t5", "bart"]
FAMILIES: tuple[Family, ...] = get_args(Family)
Encoder = Literal["bert", "roberta"]
"""Families that write nothing: heads alone can be put on them."""
ENCODERS: tuple[Encoder, ...] = get_args(Encoder)
Spelling = Literal["bytes", "bytes-digits", "metaspace", "metaspace-digits"]
"""How a tokenizer cuts text: byte-level BPE or SentencePiece-like; `digits` gives each digit a token of its own."""

VOCABULARY = 600
_SPECIALS = ["<pad>", "<s>", "</s>", "<unk>"]
_SPELLINGS: dict[Family | Encoder, Spelling] = {
    "llama": "bytes-digits",
    "opt": "bytes",
    "bloom": "bytes",
    "t5": "metaspace",
    "bart": "bytes",
    "bert": "bytes",
    "roberta": "bytes",
}


def tiny_model(family: Family | Encoder, folder: Path, *, spelling: Spelling | None = None, seed: int = 0) -> Path:
    """A loadable base folder, safetensors and tokenizer, in `folder`; a second call finds it there.

    Vocabulary about 600, hidden size 32, two layers. `spelling` None: the one that the family's released models have.
    """
    if (folder / "config.json").is_file():
        return folder
    spelling = spelling or _SPELLINGS[family]
    # BERT's tokenizer begins and ends a text with tokens of other names, and has no end token.
    ends = {"cls_token": "<s>", "sep_token": "</s>"} if family == "bert" else {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(spelling)), pad_token="<pad>", unk_token="<unk>", **ends
    )
    torch.manual_seed(seed)
    config = _config(family, len(tokenizer))
    lm = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    auto = AutoModel if family in ENCODERS else lm
    model = auto.from_config(config).eval()
    _widen(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def _widen(model: torch.nn.Module) -> None:
    # As drawn, logits differ by 1e-3 and a wrong position or a leaking mask would not show.
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            parameter.normal_(0.0, 0.5 if "embed" in name or "shared" in name or "wte" in name else 0.3)
        else:
            parameter.add_(torch.randn_like(parameter) * 0.05)


def _config(family: Family | Encoder, vocabulary: int) -> Any:
    tokens = {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    match family:
        case "llama":
            return LlamaConfig(
                **tokens, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=2048,
            )  # fmt: skip
        case "opt":
            return OPTConfig(
                **tokens, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=2048, word_embed_proj_dim=32, dropout=0.0,
            )  # fmt: skip
        case "bloom":
            return BloomConfig(**tokens, hidden_size=32, n_layer=2, n_head=4, hidden_dropout=0.0)
        case "bert" | "roberta":
            sizes = {
                "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                "max_position_embeddings": 1024, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
            }  # fmt: skip
            return (BertConfig if family == "bert" else RobertaConfig)(**tokens, **sizes)
        case "t5":
            return T5Config(
                **tokens, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0,
                dropout_rate=0.0,
            )  # fmt: skip
        case "bart":
            return BartConfig(
                **tokens, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
                encoder_attention_heads=4, decoder_attention_heads=4, max_position_embeddings=1024,
                decoder_start_token_id=2, forced_eos_token_id=2, dropout=0.0,
            )  # fmt: skip


@cache
def _trained(spelling: Spelling) -> str:
    """A tokenizer trained on the sample posts, the prompts and the answers, as JSON."""
    metaspace = spelling.startswith("metaspace")
    tokenizer = Tokenizer(models.BPE(byte_fallback=metaspace, unk_token="<unk>" if metaspace else None))
    digits = [pre_tokenizers.Digits(individual_digits=True)] if spelling.endswith("digits") else []
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(prepend_scheme="first"), *digits],
        )
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
        )
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
        specials, initial = [*_SPECIALS, *alphabet], []
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        specials, initial = _SPECIALS, pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=specials, initial_alphabet=initial, show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    text = tokenizer.to_str()
    if metaspace:
        # Byte tokens are ordinary tokens: only the trainer had to be told of them as special.
        data = json.loads(text)
        data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in _SPECIALS]
        text = json.dumps(data)
    return text


def _corpus() -> Iterator[str]:
    posts = resources.files("emollm") / "data" / "corpora" / "samples" / "posts.jsonl"
    for line in posts.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)["text"]
    for task in TASKS.values():
        for question in questions_for("It rained.", (task,)):
            yield render(question).text
            if task.kind is Kind.ORDINAL:
                yield from (answer_string(task, c.value, question.emotion) for c in task.classes)
        if task.kind is Kind.LABEL_SET:
            yield from [answer_string(task, task.labels), answer_string(task, ())] * 5
    # Often enough that a tokenizer free to do so merges digits, as those of OPT and BLOOM do.
    yield from (f"{thousandths / 1000:.3f}".rstrip("0").rstrip(".") for thousandths in range(0, 1001, 5))
    yield from ["0.25 0.5 0.75 0.125 0.625"] * 20
