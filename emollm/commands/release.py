"""Make an annotated corpus ready to be released: emollm release OUTPUT DIR --no-texts"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emollm.core.options import read_config


def main(argv: Sequence[str]) -> None:
    from emollm.study.release import ReleaseConfig, release

    config = read_config(ReleaseConfig, argv, prog="release", bare=("output", "out"))

    from emollm.core.folders import read_run
    from emollm.core.progress import progress_bar

    run = read_run(Path(config.output)) or {}
    model = model_facts(run.get("config", {}).get("model"), digest=run.get("identity", {}).get("model"))
    with progress_bar("writing", None, "posts") as advance:
        counts = release(config, model=model, on_posts=lambda new, total: advance(new, total=total))
    print(f"{config.out}: {counts['posts']:,} posts, README.md, SHA256SUMS")
    if config.salt:
        print(f"the salt is in {config.salt}: keep it, and do not release it")


def model_facts(name: str | None, *, digest: str | None) -> dict[str, Any]:
    """The description in a model's card; only the name if the model is missing or has changed."""
    from emollm.core.card import card_of
    from emollm.core.digest import model_digest
    from emollm.core.errors import ModelError

    if name is None:
        return {}
    try:
        card = card_of(name)
        same = digest is None or model_digest(name) == digest
    except ModelError:
        card, same = None, False
    if card is None or not same:
        return {"name": name}
    heads = card.heads.heads if card.heads else ()
    return {
        "name": card.name,
        "base": card.base.name,
        "base_licence": card.base.licence,
        "calibrated": ", ".join(card.calibration) or "no",
        "measured": [
            {"answer": str(head.key), "metric": metric, "value": value, "rows": head.rows}
            for head in heads
            for metric, value in list(head.metrics.items())[:1]
        ],
    }
