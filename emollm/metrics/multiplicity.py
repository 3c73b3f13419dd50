"""P-values corrected for multiple testing; undefined ones (NaN) stay NaN and do not count."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Scand. J. Statist. 6, 1979), which controls the family-wise error rate."""
    return _corrected(p_values, lambda rank, count: count - rank, rising=True)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's correction (J. R. Statist. Soc. B 57, 1995), which controls the false discovery rate."""
    return _corrected(p_values, lambda rank, count: count / (rank + 1), rising=False)


def _corrected(p_values: Sequence[float], factor: Callable[[int, int], float], *, rising: bool) -> list[float]:
    """Each p-value times the factor of its rank from 0, made monotone: never below that of a smaller p-value."""
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    scaled = [min(1.0, p_values[i] * factor(rank, len(order))) for rank, i in enumerate(order)]
    found = [math.nan] * len(p_values)
    bound = 0.0 if rising else 1.0
    places = range(len(order)) if rising else reversed(range(len(order)))
    for place in places:
        bound = max(bound, scaled[place]) if rising else min(bound, scaled[place])
        found[order[place]] = bound
    return found
