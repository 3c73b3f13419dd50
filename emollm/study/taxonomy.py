"""One label set out of another's probabilities: 28 emotions to seven to three, a wheel, a tree of one's own.

A file holds sections

    [[map]]
    name = "Sentiment-3"          # column sentiment_3
    source = "GoEmotions-28"      # the task, or another map above
    rule = "independent"          # any of them: 1 - product of (1 - p)
    [map.labels]
    positive = ["joy", "love"]
    none = []                     # that none of the others' labels holds

Labels are made of probabilities, never of given labels: two emotions at .4 make their group likelier than not, though
neither is given. Rules: `independent` for labels that say nothing of each other, `exclusive` (their sum, at most 1) for
labels of which a post has one, `strongest` (the largest) for labels that mean nearly the same.

Shapes: N rows, K labels of the source.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from emollm.core.errors import ConfigError, DataError
from emollm.core.frozen import Frozen
from emollm.core.tasks import fold_name, problems
from emollm.study.source import Floats

Rule = Literal["independent", "exclusive", "strongest"]

_RULES: Mapping[Rule, Callable[[Floats], Floats]] = {
    "independent": lambda p_NK: 1 - (1 - p_NK).prod(axis=1),
    "exclusive": lambda p_NK: np.minimum(p_NK.sum(axis=1), 1.0),
    "strongest": lambda p_NK: p_NK.max(axis=1),
}


class LabelMap(Frozen):
    """A `[[map]]` of a task file."""

    name: str
    source: str
    labels: dict[str, tuple[str, ...]]
    """Of each label, those of the source that count for it; none: that none of the others is given."""
    rule: Rule = "independent"
    threshold: float | dict[str, float] = Field(0.5)
    """Probability from which a label is given; for all, or by label."""
    kind: Literal["label-set", "single-label"] = "label-set"
    """single-label: the likeliest one is given, and probabilities are scaled to sum to 1."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.labels) < 2 and self.kind == "single-label":
            raise ValueError(f"map {self.name!r} gives one of its labels and needs two or more")
        if not self.labels:
            raise ValueError(f"map {self.name!r} has no labels")
        if sum(not group for group in self.labels.values()) > 1:
            raise ValueError(f"map {self.name!r}: one label at most may be empty, for posts with none of the others")
        given = self.threshold.values() if isinstance(self.threshold, dict) else [self.threshold]
        if not all(0 < one <= 1 for one in given):
            raise ValueError(f"map {self.name!r}: thresholds are probabilities, above 0 and up to 1")
        if isinstance(self.threshold, dict) and set(self.threshold) != set(self.labels):
            raise ValueError(f"map {self.name!r}: give a threshold for each of: {', '.join(self.labels)}")
        return self

    @property
    def column(self) -> str:
        return fold_name(self.name)

    def probabilities(self, source_NK: Floats, names: Sequence[str]) -> Floats:
        """[N, labels] of the source's [N, K]. Raises DataError for a label that the source has not."""
        if unknown := [one for group in self.labels.values() for one in group if one not in names]:
            raise DataError(
                f"map {self.name!r}: {self.source} has no label {unknown[0]!r}; choose from: {', '.join(names)}"
            )
        combine = _RULES[self.rule]
        columns: list[Floats | None] = [
            combine(source_NK[:, [names.index(one) for one in group]]) if group else None
            for group in self.labels.values()
        ]
        others = np.stack([column for column in columns if column is not None], axis=1)
        rest = (1 - others).prod(axis=1) if self.rule != "exclusive" else 1 - np.minimum(others.sum(axis=1), 1)
        found = np.stack([rest if column is None else column for column in columns], axis=1)
        if self.kind == "single-label":
            total = found.sum(axis=1, keepdims=True)
            spread = np.full_like(found, 1 / found.shape[1])
            return np.asarray(np.divide(found, total, out=spread, where=total > 0), np.float64)
        return found

    def given(self, probabilities_NK: Floats) -> NDArray[np.bool_]:
        """[N, labels] whether each is given."""
        if self.kind == "single-label":
            likeliest = np.eye(probabilities_NK.shape[1], dtype=bool)[probabilities_NK.argmax(axis=1)]
            return np.asarray(likeliest, np.bool_)
        each = self.threshold if isinstance(self.threshold, dict) else dict.fromkeys(self.labels, self.threshold)
        return np.asarray(probabilities_NK >= np.array([each[label] for label in self.labels]))


@functools.cache
def bundled_maps() -> dict[str, LabelMap]:
    """The maps that come with emollm, by name in lower case."""
    path = Path(str(resources.files("emollm") / "study" / "taxonomies.toml"))
    return {one.name.lower(): one for one in read_maps(path)}


def choose_maps(taxonomies: Sequence[str]) -> list[LabelMap]:
    """The maps of these names and task files; raises ConfigError for a name that is neither."""
    found: list[LabelMap] = []
    for one in taxonomies:
        if one.lower() in bundled_maps():
            found.append(bundled_maps()[one.lower()])
        elif one.endswith(".toml"):
            found += read_maps(Path(one))
        else:
            raise ConfigError(f"unknown taxonomy {one!r}; choose from: {', '.join(bundled_maps())}, or a .toml file")
    columns = [one.column for one in found]
    if twice := next((name for name in columns if columns.count(name) > 1), None):
        raise ConfigError(f"two maps write the column {twice!r}; rename one")
    return found


def read_maps(path: Path) -> list[LabelMap]:
    """The `[[map]]` sections of a task file. Raises ConfigError naming the file and what is wrong."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--taxonomy {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--taxonomy {path} is not a readable TOML file: {error}") from None
    maps = []
    for number, entry in enumerate(data.get("map", []), start=1):
        try:
            maps.append(LabelMap.model_validate(entry))
        except ValidationError as error:
            raise ConfigError(f"{path}, map {number}: {problems(error, 'map')}") from None
    if not maps:
        raise ConfigError(f"{path} holds no [[map]]; docs/study.md#taxonomies shows one")
    return maps


def with_maps(table: Any, maps: Sequence[LabelMap]) -> Any:
    """An Arrow table or batch with the columns of each map behind its own, as annotation writes a label set.

    Raises DataError where a source's column or its probabilities are missing, or a column has a map's name.
    """
    for one in maps:
        source = fold_name(one.source)
        beside = f"{source}_probabilities"
        if beside not in table.schema.names or not pa.types.is_struct(table.schema.field(beside).type):
            raise DataError(
                f"map {one.name!r} needs the probabilities of {one.source}, column {beside!r}; annotate with --tasks "
                f"{one.source}"
            )
        if one.column in table.schema.names:
            raise DataError(f"there is a column {one.column!r} already; rename the map {one.name!r}")
        for name, column in _columns(table.column(beside), one).items():
            table = table.append_column(name, column)
    return table


def _columns(struct: Any, one: LabelMap) -> dict[str, Any]:
    if isinstance(struct, pa.ChunkedArray):
        struct = struct.combine_chunks()
    names = [field.name for field in struct.type]
    missing = pc.is_null(struct)
    absent_N = np.asarray(missing)
    each = [np.asarray(pc.fill_null(pc.struct_field(struct, name), 0.0), np.float64) for name in names]
    found = one.probabilities(np.stack(each, axis=1), names)
    held = one.given(found) & ~absent_N[:, None]
    labels = pa.array(list(one.labels), pa.string())
    places = np.nonzero(held)[1]
    if one.kind == "single-label":
        value: Any = labels.take(pa.array(held.argmax(axis=1), mask=absent_N))
        sure = found.max(axis=1)
    else:
        ends = np.concatenate([[0], held.sum(axis=1).cumsum()]).astype(np.int32)
        value = pa.ListArray.from_arrays(pa.array(ends), labels.take(pa.array(places)), mask=missing)
        sure = np.where(held, found, 1 - found).prod(axis=1)
    parts = [pa.array(column.astype(np.float32), mask=absent_N) for column in found.T]
    fields = [pa.field(label, pa.float32()) for label in one.labels]
    return {
        one.column: value,
        f"{one.column}_probabilities": pa.StructArray.from_arrays(parts, fields=fields, mask=missing),
        f"{one.column}_confidence": pa.array(sure.astype(np.float32), mask=absent_N),
        f"{one.column}_error": pa.nulls(len(struct), pa.string()),
    }
