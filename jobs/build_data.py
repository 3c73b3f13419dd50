"""Build instruction data from corpora: python jobs/build_data.py aaid --semeval DIR --out DIR"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.config import read_config, run_job, split_command


def main(argv: Sequence[str]) -> None:
    from emollm.build import AaidConfig, build_aaid

    _, rest = split_command(argv, prog="build_data", commands={"aaid": AaidConfig})
    config = read_config(AaidConfig, rest, prog="build_data aaid")
    for split, table in build_aaid(config).items():
        print(f"{config.out / split}.parquet: {table.num_rows:,} rows")


if __name__ == "__main__":
    run_job(main)
