"""Files of posts, whatever their format, as Arrow tables."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from emollm.core.errors import DataError

FORMATS = ("parquet", "jsonl", "json", "csv", "txt")


def format_of(path: Path | str) -> str | None:
    """One of `FORMATS` by the file's name, `.gz` aside; None for any other file. Raises DataError for `.parquet.gz`."""
    if str(path).endswith(".parquet.gz"):  # its end has to be read first, which gzip does not let one do
        raise DataError(f"{path} cannot be read: Parquet is compressed inside; unpack it with gunzip")
    name = str(path).removesuffix(".gz")
    return next((known for known in FORMATS if name.endswith(f".{known}")), None)


def read_table(path: Path, *, text_columns: tuple[str, ...] = ()) -> pa.Table:
    """All columns of a Parquet, JSON lines, CSV or text file, gzipped or not.

    A text file has a post a line; its columns are `id`, the file's name and the line's number, and `text`; blank
    lines are no posts. A CSV column in `text_columns` stays text where it looks like numbers. Raises DataError.
    """
    try:
        match format_of(path):
            case "parquet":
                return pq.read_table(path)
            case "jsonl" | "json":
                import pyarrow.json

                with pa.input_stream(str(path), compression="detect") as stream:
                    return pyarrow.json.read_json(stream)
            case "csv":
                import pyarrow.csv

                with pa.input_stream(str(path), compression="detect") as stream:
                    return pyarrow.csv.read_csv(
                        stream,
                        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                        convert_options=pyarrow.csv.ConvertOptions(
                            column_types=dict.fromkeys(text_columns, pa.string())
                        ),
                    )
            case "txt":
                with pa.input_stream(str(path), compression="detect") as stream:
                    # str.splitlines would also cut at U+2028 and other characters that posts hold.
                    lines = [line.removesuffix("\r") for line in stream.read().decode("utf-8", "replace").split("\n")]
                posts = [(f"{path.name}:{n}", line) for n, line in enumerate(lines, start=1) if line.strip()]
                ids, texts = [i for i, _ in posts], [t for _, t in posts]
                return pa.table({"id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.string())})
            case _:
                endings = " ".join(f".{known}" for known in FORMATS)
                raise DataError(
                    f"{path} is no file of posts; its name must end in one of {endings}, or these but the first and .gz"
                )
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
