"""An annotated corpus made ready to be given away: data, a card that says what it is, and checksums.

OUT/data/part-*.parquet   the rows; without texts, and with hashed ids, where so asked
    README.md             the dataset card
    SHA256SUMS            of every file above: sha256sum -c SHA256SUMS
    run.json              written last
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from markupsafe import Markup
from pydantic import model_validator

from emollm.core.digest import file_sha256
from emollm.core.errors import DataError
from emollm.core.folders import new_folder, write_run
from emollm.core.options import Config, Location
from emollm.reports.page import render
from emollm.study.source import QuestionColumn, Source, find_questions

_FILE_ROWS = 500_000
_SALT_BYTES = 32


class ReleaseConfig(Config):
    """Make an annotated corpus ready to be released: data, dataset card and checksums in a folder."""

    output: Location
    """What `emollm annotate` wrote: a folder, or a Parquet file."""
    out: Path
    """Folder to write."""
    title: str | None = None
    """Name of the data set. None: that of the output."""
    licence: str = "other"
    """Licence of the annotations, as an SPDX name such as CC-BY-4.0. It cannot be wider than that of the texts."""
    texts: bool = True
    """Whether the texts are in it. --no-texts leaves out texts, peak sentences, and what errors quote of them."""
    ids: Literal["kept", "hashed"] = "kept"
    """hashed: each id is replaced by its HMAC-SHA256 under a salt, so that nobody can look posts up by it."""
    salt: Path | None = None
    """File with the salt, made where there is none. Keep it, and keep it secret: with it ids can be guessed again."""
    keep: tuple[str, ...] = ()
    """Columns of the input that go along, such as lang; '*' is all. None are by default: they may identify people."""
    source_terms: str = "not stated"
    """Terms of the texts' source, in a sentence."""
    cite: str = "not stated"
    """How to cite it."""
    overwrite: bool = False
    """Replace an earlier release."""

    @model_validator(mode="after")
    def _salt_goes_with_hashing(self) -> Self:
        if (self.ids == "hashed") != (self.salt is not None):
            raise ValueError("--ids hashed needs a file for its salt, and nothing else does: --ids hashed --salt FILE")
        if self.salt is not None and self.salt.resolve().is_relative_to(self.out.resolve()):
            raise ValueError(f"--salt {self.salt} lies in the release itself; keep it elsewhere")
        return self


def release(
    config: ReleaseConfig,
    *,
    model: Mapping[str, Any] | None = None,
    on_posts: Callable[[int, int], None] = lambda _new, _total: None,
) -> dict[str, Any]:
    """Write `config.out`; `model` is what is known of the model, for the card. Returns counts.

    Raises DataError where there is no finished output, or no such column.
    """
    source = Source(config.output)
    questions = find_questions(source.schema, source.about)
    columns = _columns(source, config, questions)
    counts = {"posts": 0, "failed": 0, "truncated": 0}
    with new_folder(config.out, overwrite=config.overwrite) as folder:
        (folder / "data").mkdir()
        salt = _salt(config.salt) if config.salt else None
        total = source.rows
        for number, table in enumerate(_tables(source, columns)):
            _count(table, counts)
            pq.write_table(
                _released(table, config, salt), folder / "data" / f"part-{number:05}.parquet", compression="zstd"
            )
            on_posts(table.num_rows, total)
        card = render("dataset_card.md", **_card(config, source, questions, counts, columns, model or {}))
        (folder / "README.md").write_text(card, encoding="utf-8")
        files = sorted([*(folder / "data").iterdir(), folder / "README.md"])
        lines = [f"{file_sha256(file)}  {file.relative_to(folder)}\n" for file in files]
        (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
        shown = {**config.model_dump(mode="json"), "salt": None}
        write_run(folder, job="release", config=shown, summary=counts)
    return counts


def _columns(source: Source, config: ReleaseConfig, questions: list[QuestionColumn]) -> list[str]:
    """Those of the answers, and of the input what is to be kept."""
    names = source.schema.names
    for name in config.keep:
        if name != "*":
            source.check_column(name, "--keep")
    answers = {"truncated", "error", "windows", "tokens", "tokens_cut", "sentence", "sentence_start"}
    kept = {"id", *(["text"] if config.texts else []), *(names if "*" in config.keep else config.keep)}
    if not config.texts:
        kept -= {"text"}
    found = [
        n
        for n in names
        if n in kept or n in answers or any(n == q.name or n.startswith(f"{q.name}_") for q in questions)
    ]
    return found if config.texts else [name for name in found if not name.endswith("_peak_sentence")]


def _tables(source: Source, columns: list[str]) -> Iterator[pa.Table]:
    held: list[Any] = []
    rows = 0
    for batch in source.batches(columns):
        held.append(batch)
        rows += batch.num_rows
        if rows >= _FILE_ROWS:
            yield pa.Table.from_batches(held).select(columns)
            held, rows = [], 0
    if held:
        yield pa.Table.from_batches(held).select(columns)


def _count(table: pa.Table, counts: dict[str, int]) -> None:
    counts["posts"] += table.num_rows
    if "error" in table.column_names:
        counts["failed"] += table.num_rows - table["error"].null_count
    if "truncated" in table.column_names:
        counts["truncated"] += int(pc.sum(pc.cast(table["truncated"], "int64")).as_py() or 0)


def _released(table: pa.Table, config: ReleaseConfig, salt: bytes | None) -> pa.Table:
    if salt is not None and "id" in table.column_names:
        ids = [None if one is None else hashed(one, salt) for one in table["id"].to_pylist()]
        table = table.set_column(table.schema.get_field_index("id"), "id", pa.array(ids, pa.string()))
    if not config.texts:
        # The reason behind the colon may quote the text.
        for name in [n for n in table.column_names if n == "error" or n.endswith("_error")]:
            codes = [one and one.partition(":")[0] for one in table[name].to_pylist()]
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(codes, pa.string()))
    return table.replace_schema_metadata(None)


def hashed(id_: str, salt: bytes) -> str:
    """32 hex digits of the id's HMAC-SHA256; a sentence's `ID#3` stays the third sentence of its post."""
    post, mark, sentence = id_.rpartition("#")
    if not (mark and sentence.isdigit()):
        post, mark, sentence = id_, "", ""
    return f"{hmac.new(salt, post.encode(), hashlib.sha256).hexdigest()[:32]}{mark}{sentence}"


def _salt(path: Path) -> bytes:
    try:
        salt = path.read_bytes()
    except FileNotFoundError:
        salt = secrets.token_hex(_SALT_BYTES).encode()
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream:
            stream.write(salt)
    except OSError as error:
        raise DataError(f"--salt {path}: {error.strerror}") from None
    if len(salt.strip()) < 16:
        raise DataError(f"--salt {path} holds {len(salt.strip())} bytes; with fewer than 16 ids can be guessed")
    return salt.strip()


def _card(
    config: ReleaseConfig, source: Source, questions: list[QuestionColumn], counts: Mapping[str, int],
    columns: list[str], model: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    about = source.about
    tasks = [
        (q.name, {"number": "number", "label": "one label", "set": "set of labels"}[q.kind],
         ", ".join(q.labels) or f"{q.low:g} to {q.high:g}")
        for q in questions
    ]  # fmt: skip
    return {
        "title": config.title or Path(config.output).name.removesuffix(".parquet"),
        "config": config, "counts": counts, "columns": columns, "tasks": tasks, "model": model,
        "digest": about.get("model"), "engine": about.get("engine"), "version": about.get("code"),
        "fingerprint": about.get("fingerprint"), "size": Markup(size_category(counts["posts"])),
    }  # fmt: skip


def size_category(posts: int) -> str:
    """As dataset hubs name sizes."""
    steps = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
             (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M")]  # fmt: skip
    return next((name for most, name in steps if posts < most), "n>100M")
