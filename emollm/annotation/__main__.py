"""Check a finished output: python -m emollm.annotation verify OUTPUT"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from emollm.core.options import run_job


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m emollm.annotation", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="verify")
    command = commands.add_parser("verify", help="check an annotated corpus against its manifest, tasks and input")
    command.add_argument("output", help="folder that `emollm annotate` finished, local, s3:// or gs://")
    command.add_argument("--no-input", action="store_true", help="do not read the input again")
    chosen = parser.parse_args(argv)

    from emollm.annotation.verify import verify

    found = verify(chosen.output, with_input=not chosen.no_input)
    for problem in found.problems:
        print(f"wrong: {problem}", file=sys.stderr)
    if found.problems:
        sys.exit(1)
    against = "manifest, tasks and input" if found.compared else "manifest and tasks"
    print(f"{chosen.output}: {found.posts:,} posts in {found.files:,} files agree with {against}")


if __name__ == "__main__":
    run_job(main)
