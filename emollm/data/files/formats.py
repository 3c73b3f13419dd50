"""The format and compression of a file of posts, from its name."""

from __future__ import annotations

from pathlib import Path

from emollm.core.errors import DataError

_FORMATS = {
    "parquet": "parquet", "jsonl": "json", "ndjson": "json", "json": "json", "csv": "csv", "tsv": "csv", "txt": "txt",
}  # fmt: skip
_COMPRESSIONS = {"gz": "gzip", "bz2": "bz2", "zst": "zstd"}
EXPECTED = "expected .parquet, or .jsonl/.ndjson/.json/.csv/.tsv/.txt (optionally .gz/.bz2/.zst)"


def format_of(path: Path | str) -> str | None:
    """`parquet`, `json`, `csv` or `txt`; None for any other file. Raises DataError for `.parquet.gz` and the like."""
    name = str(path).lower()
    if compression_of(name):
        name = name.rpartition(".")[0]
        if name.endswith(".parquet"):  # Parquet's footer is read first, which a compressed file does not allow
            raise DataError(f"{path} cannot be read: Parquet is compressed inside; unpack it, for example with gunzip")
    return next((kind for ending, kind in _FORMATS.items() if name.endswith(f".{ending}")), None)


def compression_of(path: Path | str) -> str | None:
    """Under the name that pyarrow uses."""
    return _COMPRESSIONS.get(str(path).lower().rpartition(".")[2])


_PACKED = {"gz": b"\x1f\x8b", "bz2": b"BZh", "zst": b"\x28\xb5\x2f\xfd"}


def begins_as_named(path: str, head: bytes) -> bool:
    """Whether the first bytes of a compressed file fit the compression in its name."""
    return head.startswith(_PACKED.get(path.lower().rpartition(".")[2], b""))


_MAGIC = {
    b"PAR1": "is Parquet; name it .parquet",
    b"PK\x03\x04": "is a zip archive or an Excel sheet; unpack it, or save the sheet as CSV",
    b"\x1f\x8b": "is compressed with gzip; name it .gz",
    b"BZh": "is compressed with bzip2; name it .bz2",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; name it .zst",
}


def refuse_other_kinds(path: str, head: bytes) -> None:
    """Raise DataError if the first bytes of a text file are those of another file type."""
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            raise DataError(f"{path} cannot be read as text: it {what}")
