"""Which files a corpus is made of, and on which filesystem they lie."""

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

from emollm.core.errors import DataError
from emollm.data.files.posts import FORMATS, format_of

_GLOB = re.compile(r"[*?\[]")
_QUERY = re.compile(r"\?\w+=[^/*\[]*$")
"""Options of a filesystem at the end of a URI, as in `s3://bucket/folder?region=eu-west-1`."""


@dataclass(frozen=True, slots=True)
class InputFile:
    path: str
    """Where its filesystem finds it."""
    name: str
    """Its path below the folder that was named: the same wherever the corpus lies. Derived ids hold it."""
    size: int
    mtime_ns: int | None
    """None where a filesystem does not tell."""

    @property
    def format(self) -> str:
        found = format_of(self.path)
        assert found is not None  # `find_files` takes no other
        return found


def locate(location: str) -> tuple[Any, str]:
    """The pyarrow filesystem of a path or URI, and the path there. Raises DataError for a URI it cannot resolve."""
    if "://" not in location:
        return pafs.LocalFileSystem(), os.path.abspath(location)  # noqa: PTH100 (a pattern is no Path)
    try:
        filesystem, path = pafs.FileSystem.from_uri(urllib.parse.quote(location, safe="/:?&=%@+,;~"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{location} cannot be resolved: {str(error).splitlines()[0]}") from None
    return filesystem, path


def _locate_pattern(location: str) -> tuple[Any, str]:
    """As `locate`, of what may hold wildcards: a `?` in a path would begin a URI's query, and `[` end the parsing."""
    query = _QUERY.search(location)
    plain = location[: query.start()] if query else location
    wildcard = _GLOB.search(plain)
    if "://" not in location or not wildcard:
        return locate(location)
    cut = plain.rindex("/", 0, wildcard.start()) + 1
    filesystem, folder = locate(plain[:cut] + (query[0] if query else ""))
    return filesystem, posixpath.join(folder, urllib.parse.unquote(plain[cut:]))


def find_files(location: str) -> tuple[Any, list[InputFile]]:
    """The filesystem and the files of a path, folder or pattern, by name.

    A folder gives the files in it, at any depth, whose name ends as a file of posts does; what begins with `_` or
    `.` is left out, as Parquet readers do. Raises DataError if there is none.
    """
    filesystem, path = _locate_pattern(location)
    try:
        info = filesystem.get_file_info(path)
        if info.type == pafs.FileType.File:
            if format_of(path) is None:
                raise DataError(f"{location} is no file of posts; its name must end in one of {_endings()}")
            return filesystem, [_file(info, posixpath.dirname(path))]
        if info.type == pafs.FileType.Directory:
            root, wanted = path.rstrip("/"), re.compile(r"[^_.][^/]*(/[^_.][^/]*)*")
        elif _GLOB.search(path):
            root, wanted = _pattern(path)
        else:
            raise DataError(f"no input at {location}")
        listed = filesystem.get_file_info(pafs.FileSelector(root, recursive=True, allow_not_found=True))
    except OSError as error:
        raise DataError(f"{location} cannot be read: {str(error).splitlines()[0]}") from None
    files = [_file(info, root) for info in listed if info.type == pafs.FileType.File]
    files = sorted((f for f in files if wanted.fullmatch(f.name) and format_of(f.path)), key=lambda f: f.name)
    if not files:
        raise DataError(f"{location} holds no file of posts ({_endings()})")
    return filesystem, files


def _pattern(path: str) -> tuple[str, re.Pattern[str]]:
    """The folder before the first wildcard, and what a name below it must match."""
    parts = path.split("/")
    fixed = next(i for i, part in enumerate(parts) if _GLOB.search(part))
    translated: list[str] = []
    rest = parts[fixed:]
    for i, part in enumerate(rest):
        last = i == len(rest) - 1
        if part == "**":
            translated.append(".*" if last else "(?:[^/]+/)*")
            continue
        classes = re.sub(r"\\\[(!?)(.*?)\\\]", lambda m: f"[{'^' if m[1] else ''}{m[2]}]", re.escape(part))
        translated.append(classes.replace(r"\*", "[^/]*").replace(r"\?", "[^/]").replace(r"\-", "-"))
        if not last:
            translated.append("/")
    return "/".join(parts[:fixed]) or "/", re.compile("".join(translated))


def _file(info: Any, root: str) -> InputFile:
    name = info.path.removeprefix(root).lstrip("/")
    return InputFile(path=info.path, name=name, size=info.size, mtime_ns=info.mtime_ns)


def _endings() -> str:
    return " ".join(f".{known}" for known in FORMATS) + ", or these but the first and .gz"


def groups_of(files: Sequence[InputFile], *, group_bytes: int) -> list[list[InputFile]]:
    """Neighbours that are read by one task: each group is a large file, or small ones up to `group_bytes`."""
    groups: list[list[InputFile]] = []
    filled = 0
    for file in files:
        if not groups or filled + file.size > group_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(file)
        filled += file.size
    return groups
