"""The heads from which joint training starts, kept in the run's folder: a run that continues does not read the texts
again, and starts from the same numbers on any machine.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from emollm.core.heads_card import HeadsCard
from emollm.scoring.heads.labels import subset
from emollm.scoring.heads.ridge import Scale
from emollm.scoring.heads.weights import HeadWeights, load_bank
from emollm.training.distil import AskTeacher
from emollm.training.frozen import (
    calibration_tenth,
    card_and_candidates,
    features_of,
    fit_candidates,
    labels_of,
)
from emollm.training.joint import StartingHeads
from emollm.training.options import TrainConfig

_CARD, _SCALE = "heads.json", "scale.safetensors"


def starting_heads(
    config: TrainConfig, *, device: str | None = None, ask_teacher: AskTeacher | None = None, keep: Path | None = None
) -> StartingHeads:
    """Heads of the frozen base, fitted without the held-out tenth of the texts, or those kept in the folder `keep`.

    This process reads the texts on `device`; None: Ray's actors do, and Ray must run. Validation rows are not used.
    """
    labelled, tasks = labels_of(config, ask_teacher)
    held_out_N = calibration_tenth(labelled)
    kept = None if keep is None else _kept(keep)
    if kept is None:
        _, candidates = card_and_candidates(config, labelled)
        known = subset(labelled, np.flatnonzero(~held_out_N))
        with features_of(config, known.posts, candidates, lambda _new, _total: None, device=device) as features:
            fitted = fit_candidates(config, features, known, tasks, candidates)
        card = HeadsCard(prompt=candidates.prompt, feature_specs=fitted.feature_specs, heads=fitted.heads)
        kept = card, fitted.head_weights, fitted.scale
        if keep is not None:
            _keep(keep, *kept)
    card, head_weights, scale = kept
    return StartingHeads(labelled, held_out_N, tasks, card.prompt, card.feature_specs, card.heads, head_weights, scale)


def _kept(folder: Path) -> tuple[HeadsCard, HeadWeights, Scale] | None:
    """Those of an earlier start of the run; the card is written last."""
    path = folder / _CARD
    if not path.is_file():
        return None
    card = HeadsCard.model_validate_json(path.read_text(encoding="utf-8"))
    scale = load_file(folder / _SCALE)
    return card, load_bank(folder, card), Scale(scale["mean"], scale["std"])


def _keep(folder: Path, card: HeadsCard, head_weights: HeadWeights, scale: Scale) -> None:
    folder.mkdir(exist_ok=True)
    head_weights.save(folder)
    (folder / _SCALE).write_bytes(save({"mean": scale.mean_F, "std": scale.std_F}))
    written = folder / f"{_CARD}.part"
    written.write_text(card.model_dump_json(), encoding="utf-8")
    written.rename(folder / _CARD)
