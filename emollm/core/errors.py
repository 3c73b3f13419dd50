"""The exceptions of emollm: one line that names the offending value and the next command.

Each subclasses the matching built-in and takes its message as only argument, so it survives pickling
between Ray processes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EmollmError(Exception):
    """Base of all errors that a user can fix; the jobs print its message and exit with status 2."""


class ConfigError(EmollmError, ValueError):
    """An option that is unknown, out of range or impossible together with another."""


class DataError(EmollmError, ValueError):
    """A corpus, data set or output folder that is missing, malformed or of the wrong kind."""


class ModelError(EmollmError, ValueError):
    """A model folder or base model that cannot be used as asked."""


class ResourceError(EmollmError, RuntimeError):
    """CPUs, GPUs, memory or a port that are not available."""


class DeviceError(EmollmError, RuntimeError):
    """A GPU that failed: this process cannot compute anything more, and its results cannot be trusted."""


class TrainingError(EmollmError, RuntimeError):
    """A training run that stopped: its last good state is kept, its output folder is not written."""


def did_you_mean(words: Iterable[str], known: Iterable[str]) -> str:
    """`did you mean X? `, with the known name that is nearest to one of the words; empty if none is near."""
    choices = list(known)
    close = [found for word in words for found in difflib.get_close_matches(word, choices, n=1)]
    return f"did you mean {close[0]}? " if close else ""
