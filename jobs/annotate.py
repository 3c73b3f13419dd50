"""Annotate a corpus: python jobs/annotate.py --model DIR --input FILE --out DIR"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.config import read_config, run_job


def main(argv: Sequence[str]) -> None:
    from emollm.annotation.pipeline import AnnotateConfig, annotate_corpus

    config = read_config(AnnotateConfig, argv, prog="annotate")

    from emollm.progress import progress_bar

    with progress_bar("annotating", None, "posts") as advance:
        summary = annotate_corpus(config, on_posts=lambda new, total: advance(new, total=total))
    if summary.get("already_done"):
        print(f"{config.out}: already done, {summary['posts']:,} posts; nothing to do")
        return
    errors = sum(summary["errors"].values())
    print(f"{config.out}: {summary['posts']:,} posts, {errors:,} answers with an error, {summary['truncated']:,} cut")


if __name__ == "__main__":
    run_job(main)
