"""Log-probabilities of the ids that were asked for."""

from __future__ import annotations

import numpy as np
import torch

from emollm.core.errors import ModelError
from emollm.scoring.arrays import Floats
from emollm.scoring.constrained.ragged import Ints, lists_of


def wanted_log_ps(logits_NV: torch.Tensor, count_N: Ints, ids: Ints) -> torch.Tensor:
    """Log-probabilities of `ids`, so many for each of N positions, still on the device.

    Normalised over the whole vocabulary in float32.
    """
    logits_NV = logits_NV.float()
    rows, columns = torch.from_numpy(np.stack([lists_of(count_N), ids])).to(logits_NV.device)
    return logits_NV[rows, columns] - logits_NV.logsumexp(-1)[rows]


def on_host(log_ps: torch.Tensor) -> Floats:
    """Raises ModelError if they are not all numbers."""
    found: Floats = log_ps.double().cpu().numpy()
    if not np.isfinite(found.sum()):
        raise ModelError("the model gives probabilities that are not numbers; try --precision float32")
    return found
