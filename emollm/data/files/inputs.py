"""Finds the files of a corpus and their filesystem."""

from __future__ import annotations

import os
import posixpath
import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from fsspec.utils import glob_translate  # type: ignore[import-untyped]

from emollm.core.errors import DataError
from emollm.data.files.columns import AS_FOUND, Notes, Reading
from emollm.data.files.formats import EXPECTED, format_of

_HIDDEN = re.compile(r"(^|/)[_.]")
_OF_OUTPUTS = ("_manifest.json", "_unfinished", "_run.json")
"""Names in a folder that an annotation has written or is writing."""
_GLOB = re.compile(r"[*?\[]")
_QUERY = re.compile(r"\?\w+=[^/*\[]*$")
"""Options of a filesystem at the end of a URI, as in `s3://bucket/folder?region=eu-west-1`."""


@dataclass(frozen=True, slots=True)
class InputFile:
    path: str
    """Its path in the filesystem."""
    name: str
    """Its path below the input folder, the same in any location of the corpus. Derived ids contain it."""
    size: int
    mtime_ns: int | None
    """None if the filesystem does not know it."""
    format: str = "parquet"
    """`parquet`, `json`, `csv` or `txt`."""
    listed: bool = False
    """Whether it was found in a folder or by a pattern, instead of being named itself."""


def locate(location: str) -> tuple[Any, str]:
    """The pyarrow filesystem of a path or URI, and the path there. Raises DataError for a URI it cannot resolve."""
    if "://" not in location:
        return pafs.LocalFileSystem(), os.path.abspath(location)  # noqa: PTH100 (a pattern is no Path)
    try:
        filesystem, path = pafs.FileSystem.from_uri(urllib.parse.quote(location, safe="/:?&=%@+,;~"))
    except (pa.ArrowException, OSError, ValueError) as error:
        if "Unrecognized filesystem type" in str(error):
            kinds = "s3://, gs://, abfs://, hdfs:// or file://"
            raise DataError(f"{location}: no address that can be read; give a path, or one of {kinds}") from None
        raise DataError(f"{location} cannot be resolved: {str(error).splitlines()[0]}") from None
    return filesystem, path


def _locate_pattern(location: str) -> tuple[Any, str]:
    """Like `locate`, with wildcards: a `?` in a path would begin a URI's query, and `[` would end the parsing."""
    query = _QUERY.search(location)
    plain = location[: query.start()] if query else location
    wildcard = _GLOB.search(plain)
    if "://" not in location or not wildcard:
        return locate(location)
    cut = plain.rindex("/", 0, wildcard.start()) + 1
    filesystem, folder = locate(plain[:cut] + (query[0] if query else ""))
    return filesystem, posixpath.join(folder, urllib.parse.unquote(plain[cut:]))


def find_files(location: str, reading: Reading = AS_FOUND, notes: Notes | None = None) -> tuple[Any, list[InputFile]]:
    """The filesystem and the files of a path, folder or pattern, sorted by name.

    A folder gives the files of supported types in it, at any depth. Names that begin with `_` or `.` are left out, as
    by Parquet readers, and so are outputs of an annotation in a subfolder; `notes` gets messages about other files that
    are left out. Raises DataError if there is no file.
    """
    notes = Notes() if notes is None else notes
    filesystem, path = _locate_pattern(location)
    try:
        info = filesystem.get_file_info(path)
        if info.type == pafs.FileType.File:
            if format_of(path) is None:
                raise DataError(f"{location}: unsupported file type; {EXPECTED}")
            return filesystem, [_file(info, posixpath.dirname(path), reading, listed=False)]
        pattern = re.compile(".*")
        if info.type == pafs.FileType.Directory:
            root = path.rstrip("/") or "/"
        elif _GLOB.search(path):
            parts = path.split("/")
            fixed = next(i for i, part in enumerate(parts) if _GLOB.search(part))
            root, pattern = "/".join(parts[:fixed]) or "/", re.compile(glob_translate("/".join(parts[fixed:])))
        else:
            raise DataError(f"no input at {location}")
        listed = filesystem.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    except OSError as error:
        raise DataError(f"{location} cannot be read: {str(error).splitlines()[0]}") from None
    found = {info.path.removeprefix(root).lstrip("/"): info for info in listed}
    said: set[str] = set()
    outputs = {posixpath.dirname(name) for name in found if posixpath.basename(name) in _OF_OUTPUTS} - {""}
    asked_hidden = re.search(r"(^|/)[_.]", path.removeprefix(root).lstrip("/"))
    files = []
    for name in sorted(name for name in found if found[name].type == pafs.FileType.File and pattern.fullmatch(name)):
        if _HIDDEN.search(name) and not asked_hidden:
            continue
        inside = next((folder for folder in outputs if name.startswith(f"{folder}/")), None)
        if inside is not None:
            notes.say(f"{inside}/", "left out: it is the output of an annotation") if inside not in said else None
            said.add(inside)
        elif format_of(name) is None:
            notes.say(name, f"left out: unsupported file type; {EXPECTED}")
        else:
            files.append(_file(found[name], root, reading, listed=True))
    if not files:
        raise DataError(f"{location} holds no file of posts; {EXPECTED}")
    return filesystem, files


def _file(info: Any, root: str, reading: Reading, *, listed: bool) -> InputFile:
    name, kind = info.path.removeprefix(root).lstrip("/"), format_of(info.path)
    assert kind is not None  # `find_files` takes no other
    kind = "csv" if kind == "txt" and reading.delimiter else kind
    return InputFile(info.path, name, info.size, info.mtime_ns, kind, listed)


def groups_of(files: Sequence[InputFile], *, group_bytes: int) -> list[list[InputFile]]:
    """Groups of files for one task each: a large file, or small neighbouring ones up to `group_bytes`."""
    groups: list[list[InputFile]] = []
    filled = 0
    for file in files:
        if not groups or filled + file.size > group_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(file)
        filled += file.size
    return groups
