"""Annotate a corpus: python jobs/annotate.py --model DIR --input FILE --out DIR"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from emollm.core.options import read_config, run_job


def main(argv: Sequence[str]) -> None:
    from emollm.annotation.options import AnnotateConfig

    config = read_config(AnnotateConfig, argv, prog="annotate")

    from emollm.annotation.pipeline import annotate_corpus
    from emollm.annotation.report import estimate_lines, summary_lines
    from emollm.core.progress import progress_bar

    try:
        with progress_bar("annotating", None, "posts") as advance:
            summary = annotate_corpus(config, on_progress=lambda p: advance(p.new, total=p.total, note=p.note))
    except KeyboardInterrupt:
        print(f"interrupted; run the same command to continue {config.out}", file=sys.stderr)
        sys.exit(130)
    lines = estimate_lines(summary, config) if config.dry_run else summary_lines(summary, config)
    print("\n".join(lines))


if __name__ == "__main__":
    run_job(main)
