"""Copy the bundled samples, for trying out every command, to a folder: emollm samples DIR"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from emollm.core.errors import ConfigError, DataError


def main(argv: Sequence[str]) -> None:
    if len(argv) != 1 or argv[0].startswith("-"):
        raise ConfigError("name the folder to write: emollm samples DIR")

    from emollm.data.aaid import SAMPLES

    out = Path(argv[0])
    if out.exists():
        raise DataError(f"{out} exists; name a new folder")
    try:
        shutil.copytree(SAMPLES, out)
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}") from None
    print(f"{out}: posts.jsonl, semeval2018/, own/, study/; README.md describes them (CC0)")
