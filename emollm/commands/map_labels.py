"""Add label sets to an annotated corpus: emollm map OUTPUT mapped.parquet --taxonomy ekman"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.core.options import read_config


def main(argv: Sequence[str]) -> None:
    from emollm.study.mapping import MapConfig, add_maps

    config = read_config(MapConfig, argv, prog="map", bare=("output", "out"))

    from emollm.core.progress import progress_bar

    with progress_bar("mapping", None, "posts") as advance:
        maps = add_maps(config, on_posts=lambda new, total: advance(new, total=total))
    print(f"{config.out}: {', '.join(f'{one.column} ({len(one.labels)} labels)' for one in maps)} added")
