"""Rows are tokenized once in a run, and read from files as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emollm.core.errors import TrainingError
from emollm.data.instructions import read_rows
from emollm.models.load import load_base, prompt_encoder
from emollm.training.row_tokens import encode_rows, shared_rows
from tests.tiny import tiny_model


def test_rows_are_tokenized_once_and_again_for_another_tokenizer(
    tiny_base: Path, sample_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, encoder = read_rows(sample_data, "train").slice(0, 300), prompt_encoder(load_base(str(tiny_base)))
    expected = encode_rows(table, encoder)
    first = shared_rows(table, encoder, tmp_path / "tokens", rank=0)
    written = (tmp_path / "tokens" / "tokens.npy").stat().st_mtime_ns
    for rows in (first, shared_rows(table, encoder, tmp_path / "tokens", rank=1)):
        assert len(rows) == 300 and rows[299].id == table["id"][299].as_py()
        for row, other in zip(rows, expected, strict=True):
            assert np.array_equal(row.prompt, other.prompt) and np.array_equal(row.answer, other.answer)
    assert rows.lengths.sum() == len(expected.tokens) == sum(map(len, rows))
    shared_rows(table, encoder, tmp_path / "tokens", rank=0)
    assert (tmp_path / "tokens" / "tokens.npy").stat().st_mtime_ns == written

    other = prompt_encoder(load_base(str(tiny_model("opt", tmp_path / "opt"))))
    anew = shared_rows(table, other, tmp_path / "tokens", rank=0)
    assert np.array_equal(anew.tokens, encode_rows(table, other).tokens)
    (tmp_path / "tokens" / "ends.npy").write_bytes(b"cut")
    assert len(shared_rows(table.slice(0, 9), other, tmp_path / "tokens", rank=0)) == 9


def test_a_folder_that_is_not_shared_or_not_writable_is_named(
    tiny_base: Path, sample_data: Path, tmp_path: Path
) -> None:
    table, encoder = read_rows(sample_data, "train").slice(0, 3), prompt_encoder(load_base(str(tiny_base)))
    with pytest.raises(TrainingError, match=r"none is not there .*all nodes must share the folder of --out"):
        shared_rows(table, encoder, tmp_path / "none", rank=1)
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"cannot write the tokens of the rows to .*free some space"):
        shared_rows(table, encoder, tmp_path / "file" / "tokens", rank=0)


def test_no_rows_have_no_tokens(tiny_base: Path, sample_data: Path) -> None:
    rows = encode_rows(read_rows(sample_data, "train").slice(0, 0), prompt_encoder(load_base(str(tiny_base))))
    assert (len(rows), len(rows.tokens), rows[:5]) == (0, 0, [])
