"""Make an API key: python -m emollm.serve.keys NAME --file keys.txt"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from emollm.core.options import run_job
from emollm.serve.auth import add_key


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="serve.keys", description="Make an API key; the file gets its hash, you get the key, once."
    )
    parser.add_argument("name", help="name of the key's owner, which appears in the logs")
    parser.add_argument("--file", type=Path, required=True, help="file of hashed keys, made or added to")
    args = parser.parse_args(argv)
    print(add_key(args.file, args.name))
    print(f"its hash is in {args.file}; the key itself is not stored, so copy it now", file=sys.stderr)


if __name__ == "__main__":
    run_job(main)
