"""What training and annotation take on A100s, worked out: python -m cluster.scaling --write docs/scaling.md

Every number here is either measured (LOG.md says where), the maker's, or an assumption that its docstring calls one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from emollm.core.bases import BASES, SERIES
from emollm.core.errors import DataError
from emollm.core.options import Config, read_config, run_job

TRAIN_ROWS = 234_040
"""AAID, one row a wording."""
EPOCHS = 3.0
"""The recipe's most; early stopping may take less."""
GLOBAL_BATCH = 256
"""Rows a step, as in the recipe."""
PROMPT_TOKENS = 97
ANSWER_TOKENS = 7
"""Mean of 999 AAID rows with SmolLM2's tokenizer, measured; others' differ by some 15%."""

A100_FLOPS = 312e12
"""Dense bf16, the maker's."""
UTILISATION = {"large": 0.40, "small": 0.25}
"""Share of it reached, by models above and below a billion parameters. An assumption: no A100 was at hand."""
NODE_LINK = 50e9
"""Bytes a second between p4d machines over EFA (400 Gbit/s), for the eight GPUs of each together."""
NODE_LINK_TCP = 6e9
"""The same without EFA, as the cluster file stands. An assumption: half of 100 Gbit/s."""
GPU_LINK = 300e9
"""Bytes a second and direction from GPU to GPU inside a machine (NVSwitch)."""
GPUS_A_NODE = 8

DOLLARS_AN_HOUR = {40: 21.96, 80: 27.45}
"""p4d.24xlarge and p4de.24xlarge on demand in us-east-1, by the GPU's GB. Prices move: look them up."""

PROFILE_PROMPT_TOKENS = 208
PROFILE_ANSWER_TOKENS = {"exact": 286, "quick": 83}
"""Tokens that the constrained engine reads for the eleven questions on a post, measured."""
HEADS_TOKENS = 45
"""Tokens of a post and the words around it, read once for all tasks. An assumption from the mean post of 25."""
OUTPUT_BYTES = 600
"""Parquet of a post with all columns of the profile, its text included; measured on small files."""
DRIVER_BYTES = 24
"""Memory of the driver a post: an id's hash, its row number, and that number again when a job is continued."""

GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Where the parameters of a base stand; an encoder-decoder's encoder reads the prompt, its decoder the answer."""

    layers: int
    width: int
    vocabulary: int
    tied: bool = False
    """Whether the vocabulary head is the embedding."""
    decoder_share: float = 1.0
    """Of the parameters outside embeddings, those that answer tokens pass."""
    cross: float = 0.0
    """Parameters of the decoder that prompt tokens pass too: keys and values of the cross-attention."""


SHAPES = {
    "smollm2-135m-instruct": Shape(layers=30, width=576, vocabulary=49_152, tied=True),
    "llama-2-7b": Shape(layers=32, width=4096, vocabulary=32_000),
    "llama-2-7b-chat": Shape(layers=32, width=4096, vocabulary=32_000),
    "llama-2-13b-chat": Shape(layers=40, width=5120, vocabulary=32_000),
    "opt-13b": Shape(layers=40, width=5120, vocabulary=50_272, tied=True),
    "bloomz-7b1-mt": Shape(layers=30, width=4096, vocabulary=250_880, tied=True),
    "t5-large": Shape(layers=24, width=1024, vocabulary=32_128, tied=True, decoder_share=0.57, cross=24 * 2 * 1024**2),
    "bart-large": Shape(
        layers=12, width=1024, vocabulary=50_265, tied=True, decoder_share=0.57, cross=12 * 2 * 1024**2
    ),
}


def body(base: str) -> float:
    """Parameters that a token is multiplied with: without embeddings and vocabulary head."""
    shape = SHAPES[base]
    return BASES[base].parameters - shape.vocabulary * shape.width * (1 if shape.tied else 2)


def forward_flops(base: str, *, prompt_tokens: float, answer_tokens: float, read_tokens: float | None = None) -> float:
    """Of reading a prompt and its answer; the vocabulary head is run at `read_tokens` (None: at the answer's)."""
    shape, parameters = SHAPES[base], body(base)
    head = 2 * shape.vocabulary * shape.width * (answer_tokens if read_tokens is None else read_tokens)
    if BASES[base].architecture == "decoder":
        tokens = prompt_tokens + answer_tokens
        # Scores and values of the attention: each token looks at half of the row, on average.
        attention = 2 * shape.layers * shape.width * tokens * tokens
        return 2 * parameters * tokens + attention + head
    encoder = parameters * (1 - shape.decoder_share)
    decoder = parameters * shape.decoder_share
    attention = 4 * shape.layers * shape.width * prompt_tokens * (prompt_tokens + answer_tokens)
    return 2 * (encoder + shape.cross) * prompt_tokens + 2 * decoder * answer_tokens + attention + head


def train_flops(base: str, *, rows: float) -> float:
    """Of a full fine-tune: the backward pass costs twice the forward pass."""
    return 3 * rows * forward_flops(base, prompt_tokens=PROMPT_TOKENS, answer_tokens=ANSWER_TOKENS)


def utilisation(base: str) -> float:
    return UTILISATION["large" if BASES[base].parameters > 1e9 else "small"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """A full fine-tune of one base on some A100s, with DeepSpeed ZeRO 2."""

    base: str
    gpus: int

    @property
    def steps(self) -> int:
        return math.ceil(TRAIN_ROWS * EPOCHS / GLOBAL_BATCH)

    @property
    def memory(self) -> float:
        """Bytes a GPU: bf16 weights whole; bf16 gradients, float32 masters and Adam's two moments sharded; activations
        of eight rows, about 34 bytes a token, layer and unit of width."""
        parameters, shape = BASES[self.base].parameters, SHAPES[self.base]
        rows = min(8, GLOBAL_BATCH / self.gpus)
        activations = 34 * shape.layers * shape.width * rows * (PROMPT_TOKENS + ANSWER_TOKENS)
        return 2 * parameters + 14 * parameters / self.gpus + activations

    @property
    def card(self) -> int | None:
        """The smaller A100, in GB, that holds it with a tenth to spare; None where neither does."""
        return next((size for size in (40, 80) if self.memory < 0.9 * size * GB), None)

    @property
    def compute_s(self) -> float:
        """Seconds a step of arithmetic."""
        return train_flops(self.base, rows=GLOBAL_BATCH) / (self.gpus * A100_FLOPS * utilisation(self.base))

    def exchange_s(self, *, link: float) -> float:
        """Seconds a step for gradients out and weights back, 2 bytes a parameter each; not hidden behind arithmetic."""
        sent = 4 * BASES[self.base].parameters
        within = sent * (1 - 1 / min(self.gpus, GPUS_A_NODE)) / GPU_LINK
        between = sent / link if self.gpus > GPUS_A_NODE else 0.0
        return within + between

    def hours(self, *, link: float = NODE_LINK) -> float:
        return self.steps * (self.compute_s + self.exchange_s(link=link)) / 3600

    def dollars(self, *, link: float = NODE_LINK) -> float:
        """Whole machines: of a p4d's eight GPUs two cannot be had alone."""
        machines = math.ceil(self.gpus / GPUS_A_NODE)
        return machines * self.hours(link=link) * DOLLARS_AN_HOUR[self.card or 80]


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """The full profile of many posts with one model and engine."""

    base: str
    engine: str
    """exact or quick (the constrained engine), or heads."""
    posts: float

    @property
    def flops_a_post(self) -> float:
        if self.engine == "heads":
            return forward_flops(self.base, prompt_tokens=HEADS_TOKENS, answer_tokens=0)
        read = PROFILE_ANSWER_TOKENS[self.engine]
        # Rows are short (11 prompts and many answers): their attention is that of one prompt of 40 tokens each.
        a_token = forward_flops(self.base, prompt_tokens=40, answer_tokens=0) / 40
        shape = SHAPES[self.base]
        return a_token * (PROFILE_PROMPT_TOKENS + read) + 2 * shape.vocabulary * shape.width * read

    @property
    def posts_a_second(self) -> float:
        """Of one A100."""
        return A100_FLOPS * utilisation(self.base) / self.flops_a_post

    @property
    def gpu_hours(self) -> float:
        return self.posts / self.posts_a_second / 3600

    @property
    def dollars(self) -> float:
        return self.gpu_hours / GPUS_A_NODE * DOLLARS_AN_HOUR[40]


def training_table() -> str:
    """The seven models of the series on 2, 8 and 64 GPUs."""
    rows = []
    for model in SERIES.values():
        for gpus in (2, 8, 64):
            run = Training(base=model.base, gpus=gpus)
            held = "neither" if run.card is None else f"{run.card} GB"
            time, dollars = (_duration(run.hours()), _amount(run.dollars())) if run.card else ("-", "-")
            without = _duration(run.hours(link=NODE_LINK_TCP)) if run.card and gpus > GPUS_A_NODE else ""
            rows.append(
                [
                    model.name if gpus == 2 else "",
                    f"{train_flops(model.base, rows=TRAIN_ROWS * EPOCHS):.1e}" if gpus == 2 else "",
                    f"{gpus}",
                    f"{run.memory / GB:.0f}",
                    held,
                    f"{run.compute_s:.2f}",
                    f"{run.exchange_s(link=NODE_LINK):.2f}",
                    time,
                    dollars,
                    without,
                ]
            )
    head = ["model", "FLOP in all", "A100s", "GB a GPU", "fits", "arithmetic, s a step", "exchange, s a step", "time",
            "$", "time without EFA"]  # fmt: skip
    return _table(head, rows)


def annotation_table() -> str:
    """1 million, 100 million and 10 billion posts, with a 7B and the small model."""
    rows = []
    for base, engine in product(("llama-2-7b", "smollm2-135m-instruct"), ("exact", "quick", "heads")):
        for posts in (1e6, 1e8, 1e10):
            job = Annotation(base=base, engine=engine, posts=posts)
            first = posts == 1e6
            rows.append(
                [
                    base if first else "",
                    engine if first else "",
                    f"{job.flops_a_post / 1e9:,.0f}" if first else "",
                    f"{job.posts_a_second:,.0f}" if first else "",
                    f"{posts:.0e}".replace("e+0", "e").replace("e+", "e"),
                    _amount(job.gpu_hours),
                    *(_duration(job.gpu_hours / gpus) for gpus in (2, 16, 64)),
                    _amount(job.dollars),
                ]
            )
    head = ["model", "engine", "GFLOP a post", "posts/s a GPU", "posts", "GPU-hours", "on 2", "on 16", "on 64", "$"]
    return _table(head, rows)


def road_table() -> str:
    """What grows with the number of posts besides arithmetic."""
    rows = []
    for posts in (1e6, 1e8, 1e10):
        small = Annotation(base="smollm2-135m-instruct", engine="heads", posts=posts)
        written = small.posts_a_second * 16 * OUTPUT_BYTES
        rows.append(
            [
                f"{posts:.0e}".replace("e+0", "e").replace("e+", "e"),
                f"{_amount(posts * OUTPUT_BYTES / GB)} GB",
                f"{_amount(posts * DRIVER_BYTES / GB)} GB",
                f"{posts / 1e5:,.0f}",
                f"{math.ceil(posts / 2048):,}",
                f"{written / 1e6:,.0f} MB/s",
            ]
        )
    head = ["posts", "output", "driver's memory", "files of 100,000", "blocks of 2,048", "written by 16 GPUs (heads)"]
    return _table(head, rows)


TABLES = {"training": training_table, "annotation": annotation_table, "road": road_table}


def filled(text: str) -> str:
    """The page with its tables worked out anew: each stands between `<!-- NAME -->` and `<!-- end -->`."""
    for name, table in TABLES.items():
        text, found = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", rf"\g<1>{table()}\n\g<2>", text, flags=re.DOTALL
        )
        if found != 1:
            raise DataError(
                f"the page has {found} places for the table {name}; it needs one <!-- {name} --> <!-- end -->"
            )
    return text


def _amount(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}" if number >= 0.95 else f"{number:.2f}"


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{max(hours * 60, 1):.0f} min"
    return f"{hours:.1f} h" if hours < 10 else f"{hours:.0f} h" if hours < 72 else f"{hours / 24:,.0f} days"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


class ScalingConfig(Config):
    """Work out what training and annotation take on A100s."""

    write: Path | None = None
    """Page whose tables are brought up to date. None: they are printed."""


def main(argv: Sequence[str]) -> None:
    config = read_config(ScalingConfig, argv, prog="scaling")
    if config.write is None:
        print("\n\n".join(table() for table in TABLES.values()))
    else:
        config.write.write_text(filled(config.write.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    run_job(main)
