"""What a worker's own code raised, out of the exception that Ray raises in its place."""

from __future__ import annotations

import re

from emollm.core import errors
from emollm.core.errors import EmollmError, ResourceError

# A message ends where Python's traceback goes on with the exception that came of it, or with the text.
_OWN_ERROR = re.compile(
    r"^\s*emollm\.core\.errors\.(\w+): (.*?)\s*(?=\n\s*(?:The above exception was|During handling of)|\Z)",
    re.MULTILINE | re.DOTALL,
)


def worker_error(error: BaseException, *, doing: str) -> EmollmError:
    """An error of ours comes back as itself, its message whole; any other as ResourceError with its last line."""
    if ours := _in_chain(error):
        # Without what led to it: tracebacks hold Ray's executor, and that its actors.
        ours.__cause__ = ours.__context__ = None
        return ours.with_traceback(None)
    # Ray Data, and actors that fail in their constructor, carry the cause as text only.
    text = str(error)
    if ours := own_error(text):
        return ours
    # The worker's traceback ends in the line before Ray's own begins.
    lines = [line for line in text.split("The above exception")[0].strip().splitlines() if line.strip()]
    return ResourceError(f"{doing} failed: {lines[-1] if lines else type(error).__name__}")


def own_error(text: str) -> EmollmError | None:
    """The last error of ours in the text of a traceback, its message whole."""
    found = [match for match in _OWN_ERROR.findall(text) if hasattr(errors, match[0])]
    if not found:
        return None
    name, message = found[-1]
    kind: type[EmollmError] = getattr(errors, name)
    return kind(message)


def _in_chain(error: BaseException) -> EmollmError | None:
    """The error of ours that Ray, or Python, holds as the cause of this one."""
    seen: set[int] = set()
    cause: object = error
    while isinstance(cause, BaseException) and id(cause) not in seen:
        seen.add(id(cause))
        if type(cause).__module__ == errors.__name__ and isinstance(cause, EmollmError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    return None
