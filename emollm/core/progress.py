"""Progress: a bar in a terminal or a notebook, a line every 15 seconds in a log file."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False)


def table_console() -> Console:
    """Where jobs print their tables: as wide as the terminal, and wide enough in a log file or a pipe."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=160)


_SECONDS_BETWEEN_LINES = 15.0


@contextlib.contextmanager
def progress_bar(title: str, total: int | None, unit: str) -> Iterator[Callable[..., None]]:
    """Yield `advance(n, note="")`; the bar shows count, speed, time left and the last note.

    In a notebook it is tqdm's; in a log file or a pipe, where a bar would be noise, a line is printed every 15 seconds.
    """
    if in_notebook():
        with _notebook_bar(title, total, unit) as advance:
            yield advance
        return
    if not console.is_terminal:
        with _lines(title, total, unit) as advance:
            yield advance
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, note="")

        def advance(count: int = 1, *, note: str | None = None, total: int | None = None) -> None:
            progress.update(task, advance=count)
            if note is not None:
                progress.update(task, note=note)
            if total is not None:
                progress.update(task, total=total)

        yield advance


def in_notebook() -> bool:
    """Whether this is a kernel that draws in a browser: a Jupyter notebook or a relative of it."""
    shell = sys.modules.get("IPython")
    current = shell.get_ipython() if shell else None
    return current is not None and type(current).__name__ != "TerminalInteractiveShell"


@contextlib.contextmanager
def _notebook_bar(title: str, total: int | None, unit: str) -> Iterator[Callable[..., None]]:
    # tqdm comes with transformers. Its widget bar needs ipywidgets; its text bar works in any notebook.
    if importlib.util.find_spec("ipywidgets"):
        from tqdm.notebook import tqdm
    else:
        from tqdm import tqdm
    with tqdm(desc=title, total=total, unit=f" {unit}") as bar:

        def advance(count: int = 1, *, note: str | None = None, total: int | None = None) -> None:
            if total is not None and total != bar.total:
                bar.total = total
            if note is not None:
                bar.set_postfix_str(note, refresh=False)
            bar.update(count)

        yield advance


@contextlib.contextmanager
def _lines(title: str, total: int | None, unit: str) -> Iterator[Callable[..., None]]:
    done, started, last, latest_note = 0, time.monotonic(), time.monotonic(), ""
    print(f"{title} ...", file=sys.stderr, flush=True)

    def advance(count: int = 1, *, note: str | None = None, total: int | None = total) -> None:
        nonlocal done, last, latest_note
        done += count
        latest_note = latest_note if note is None else note
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            of = f"/{total}" if total else ""
            print(f"{title}: {done}{of} {unit} {latest_note}".rstrip(), file=sys.stderr, flush=True)

    yield advance
    print(f"{title}: {done} {unit} in {time.monotonic() - started:.1f} s {latest_note}".rstrip(), file=sys.stderr)
