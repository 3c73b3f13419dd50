"""Copy the bundled samples, for trying out every command, to a folder: emollm samples DIR"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from emollm.core.errors import ConfigError, DataError
from emollm.core.folders import new_folder


def main(argv: Sequence[str]) -> None:
    if len(argv) != 1 or argv[0].startswith("-"):
        raise ConfigError("name the folder to write: emollm samples DIR")

    from emollm.data.aaid import SAMPLES

    if not argv[0]:
        raise ConfigError("the name of the folder is empty; name one: emollm samples DIR")
    out = Path(argv[0])
    if out.exists():
        raise DataError(f"{out} exists; name a new folder")
    try:
        with new_folder(out) as folder:
            shutil.copytree(SAMPLES, folder, dirs_exist_ok=True)
    except OSError as error:
        # copytree gathers the errors of all files.
        first = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
        raise DataError(f"cannot write {out}: {first}") from None
    print(f"{out}: posts.jsonl, semeval2018/, own/, study/; README.md describes them (CC0)")
