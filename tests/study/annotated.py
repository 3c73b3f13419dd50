"""Annotated corpora with known answers, as `emollm annotate` writes them, drawn and not scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

LABELS = ("anger", "joy", "sadness")


def corpus(
    path: Path,
    held_NK: NDArray[Any],
    *,
    probabilities: NDArray[Any] | None = None,
    numbers: Sequence[float] | None = None,
    texts: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    **columns: Any,
) -> Path:
    """A Parquet file with `mood`, a label set over `LABELS`, `v_reg` where there are numbers, and other columns."""
    count = len(held_NK)
    held = held_NK.astype(bool)
    shown = held * 0.8 + 0.1 if probabilities is None else probabilities
    data: dict[str, Any] = {
        "id": list(ids) if ids is not None else [f"p{i}" for i in range(count)],
        "text": list(texts) if texts is not None else [f"post {i}" for i in range(count)],
        **columns,
        "mood": pa.array([[k for k, h in zip(LABELS, row, strict=True) if h] for row in held], pa.list_(pa.string())),
        "mood_probabilities": pa.StructArray.from_arrays(
            [pa.array(column, pa.float32()) for column in shown.T], names=list(LABELS)
        ),
        "mood_confidence": pa.array(np.full(count, 0.5), pa.float32()),
        "mood_error": pa.nulls(count, pa.string()),
    }
    if numbers is not None:
        data |= {"v_reg": pa.array(numbers, pa.float64()), "v_reg_confidence": np.full(count, 0.5, np.float32)}
    data |= {"truncated": np.zeros(count, bool), "error": pa.nulls(count, pa.string())}
    pq.write_table(pa.table(data), path)
    return path


def drawn(rng: np.random.Generator, shares: Sequence[float], count: int) -> NDArray[Any]:
    """[count, 3] labels, each given with its share."""
    return rng.random((count, 3)) < np.array(shares)
