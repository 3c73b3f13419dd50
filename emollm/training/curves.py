"""Loss and metric curves of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw_curves(path: Path, steps: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> bool:
    """Write a PNG with training and validation loss, learning rate, and task metrics, if any.

    Returns False if matplotlib is not installed (it comes with the extra `train`), so that the run does not fail.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    headlines = _headlines(evaluations)
    figure = Figure(figsize=(10 if headlines else 6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if headlines else 1, squeeze=False)[0]
    loss = axes[0]
    loss.plot([s["step"] for s in steps], [s["loss"] for s in steps], color="#9ab8d8", linewidth=0.8, label="each step")
    window = max(1, len(steps) // 50)
    smooth = [_mean([s["loss"] for s in steps[max(0, i - window + 1) : i + 1]]) for i in range(len(steps))]
    loss.plot([s["step"] for s in steps], smooth, color="#1f5fa8", label=f"mean of {window}" if window > 1 else None)
    if evaluations:
        loss.plot(
            [e["step"] for e in evaluations],
            [e["loss"] for e in evaluations],
            "o-",
            color="#d1495b",
            label="validation",
        )
        best = min(evaluations, key=lambda e: e["loss"])
        loss.annotate(f"{best['loss']:.3f}", (best["step"], best["loss"]), (0, -14), textcoords="offset points")
    # A mean over answer tokens, or for heads over labelled questions; the summary says which.
    loss.set(xlabel="step", ylabel="nats", title="Loss", yscale="log")
    loss.legend(frameon=False)
    for name, points in headlines.items():
        axes[1].plot([step for step, _ in points], [value for _, value in points], "o-", label=name)
    if headlines:
        axes[1].set(xlabel="step", title="Validation metrics", ylim=(min(0, *_values(headlines)), 1))
        axes[1].legend(frameon=False)
    figure.savefig(path, dpi=120)
    return True


def _headlines(evaluations: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The first metric of each task over the steps, if it is defined."""
    found: dict[str, list[tuple[int, float]]] = {}
    for evaluation in evaluations:
        for task, scores in evaluation["scores"].items():
            name, value = next(iter(scores.items()))
            if value is not None:
                found.setdefault(f"{task} {name}", []).append((evaluation["step"], value))
    return found


def _values(headlines: dict[str, list[tuple[int, float]]]) -> list[float]:
    return [value for points in headlines.values() for _, value in points]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
