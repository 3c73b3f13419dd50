"""What a notebook shows: a model's card as rich text, and pictures of annotated columns."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from emollm.core.bases import DEFAULT_MODEL
from emollm.core.card import AffectCard, card_of
from emollm.core.errors import ConfigError, DataError
from emollm.core.tasks import TASKS, Kind, Task

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_GROUPS = 8
"""More groups than these are not told apart by colours; the largest are shown."""


class CardText:
    """A model's card: HTML in a notebook, plain text elsewhere."""

    def __init__(self, card: AffectCard) -> None:
        self._facts = _facts(card)
        self._rows = [_row(card, task) for task in card.tasks]
        self._name = card.name

    def __str__(self) -> str:
        facts = [f"  {name}: {value}" for name, value in self._facts.items()]
        wide = max(len(task) for task, *_ in self._rows)
        rows = [
            f"  {task:<{wide}}  {asked}{f'  [{measured}]' if measured else ''}" for task, asked, measured in self._rows
        ]
        return "\n".join([self._name, *facts, "tasks:", *rows])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        facts = "".join(f"<li><b>{escape(name)}</b>: {escape(value)}</li>" for name, value in self._facts.items())
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self._rows)
        head = "<tr><th>task</th><th>answers</th><th>on held-out texts</th></tr>"
        return f"<h3>{escape(self._name)}</h3><ul>{facts}</ul><table>{head}{rows}</table>"


def explain_card(model: str = DEFAULT_MODEL) -> CardText:
    """What a model is, what it can be asked and how good it was on held-out texts; reads no weights.

    `model` is a model directory or the bundled default model. Raises ModelError if there is none.
    """
    card = card_of(model)
    if card is None:
        raise ConfigError(f"{model} is an untrained base model, which has no card; name a model directory")
    return CardText(card)


def _facts(card: AffectCard) -> dict[str, str]:
    reads = {
        "heads": "linear heads on hidden layers, one pass per text", "lora": "LoRA adapters", None: "full weights",
    }[card.adapter]  # fmt: skip
    facts = {"base model": f"{card.base.name} ({card.base.architecture})", "licence of the base": card.base.licence}
    facts["holds"] = reads
    if card.heads:
        layers = sorted({spec.layer for spec in card.heads.feature_specs})
        facts["layers read"] = ", ".join(map(str, layers))
    facts["texts are cut at"] = f"{card.max_post_tokens} tokens"
    if card.calibration:
        facts["calibrated"] = ", ".join(card.calibration)
    return facts


def _row(card: AffectCard, task: Task) -> tuple[str, str, str]:
    match task.kind:
        case Kind.REGRESSION:
            asked = f"a number from {task.low:g} to {task.high:g}"
        case Kind.ORDINAL:
            asked = f"one of {len(task.classes)} ordered classes, {task.classes[0].value} to {task.classes[-1].value}"
        case Kind.SINGLE_LABEL:
            asked = f"one of {', '.join(task.labels)}"
        case Kind.LABEL_SET:
            asked = f"a set of {', '.join(task.labels)}"
    if task.emotions:
        asked += f", for each of {', '.join(task.emotions)}"
    heads = [head for head in card.heads.heads if head.task == task.name] if card.heads else []
    if heads and heads[0].derivation:
        return task.name, asked, f"derived from {heads[0].derivation.source}"
    measured = [head.metrics for head in heads if head.metrics]
    names = dict.fromkeys(name for metrics in measured for name in metrics)
    means = {name: [m[name] for m in measured if name in m] for name in names}
    return task.name, asked, ", ".join(f"{name} {sum(v) / len(v):.2f}" for name, v in means.items())


def plot(frame: pd.DataFrame, *, time: str | None = None, group: str | None = None) -> Figure:
    """Pictures of annotated columns as a matplotlib figure, which a notebook draws.

    Valence over time where there is a column of times (`time` names it; None: the first that holds dates), else how
    often each valence occurs; beside it how often each emotion was found, by `group` where a column is named. Days
    with few posts swing widely: the band is the 95% interval of each day's mean. Raises DataError where the frame
    has neither `v_reg` nor `e_c`, or no such column.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib; run: pip install 'emollm[plots]'") from None
    for name in (time, group):
        if name is not None and name not in frame:
            raise DataError(f"no column {name!r}; choose from: {', '.join(map(str, frame.columns))}")
    drawn = [name for name in ("v_reg", "e_c") if name in frame and frame[name].notna().any()]
    if not drawn:
        raise DataError("no column v_reg or e_c with answers; annotate the texts first: emollm.annotate(frame)")
    figure = Figure(figsize=(6.4 * len(drawn), 4.4), layout="constrained")
    for name, axes in zip(drawn, figure.subplots(1, len(drawn), squeeze=False)[0], strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        if name == "e_c":
            _plot_emotions(axes, frame, group)
        elif times := _times(frame, time):
            _plot_valence_over_time(axes, frame, times)
        else:
            _plot_valence(axes, frame)
    return figure


def _times(frame: pd.DataFrame, time: str | None) -> str | None:
    import pandas as pd

    if time is not None:
        return time
    for name in frame.columns:
        values = frame[name].dropna()
        if pd.api.types.is_datetime64_any_dtype(values):
            return str(name)
        if name in ("date", "day", "time", "timestamp", "created_at") and len(values):
            return str(name)
    return None


def _plot_valence_over_time(axes: Any, frame: pd.DataFrame, time: str) -> None:
    import pandas as pd

    times = pd.to_datetime(frame[time], errors="coerce", utc=True, format="mixed")
    if times.isna().all():
        raise DataError(
            f"column {time!r} holds no dates or times, such as {frame[time].iloc[0]!r}; name another as time"
        )
    days = (times.max() - times.min()).days
    word = "day" if days <= 92 else "week" if days <= 730 else "month"
    period = word[0].upper()
    by_time = frame["v_reg"].groupby(times.dt.tz_localize(None).dt.to_period(period))
    mean, half = by_time.mean(), 1.96 * by_time.std() / by_time.count() ** 0.5
    at = pd.PeriodIndex(mean.index).to_timestamp()
    axes.fill_between(at, mean - half, mean + half, alpha=0.2, linewidth=0)
    axes.plot(at, mean, marker="o", markersize=3)
    axes.axhline(0.5, color="0.7", linewidth=0.8, zorder=0)
    axes.set(ylim=(0, 1), ylabel="valence", title=f"Mean valence per {word}")
    axes.tick_params(axis="x", rotation=30)


def _plot_valence(axes: Any, frame: pd.DataFrame) -> None:
    axes.hist(frame["v_reg"].dropna(), bins=20, range=(0, 1))
    axes.set(xlim=(0, 1), xlabel="valence", ylabel="texts", title="Valence of the texts")


def _plot_emotions(axes: Any, frame: pd.DataFrame, group: str | None) -> None:
    answered = frame[frame["e_c"].notna()]
    labels = TASKS["E-c"].labels
    groups = answered[group].value_counts().index[:_GROUPS] if group else [None]
    shares = {
        value: [_of(answered, group, value)["e_c"].map(lambda found, k=k: k in found).mean() for k in labels]
        for value in groups
    }
    order = sorted(range(len(labels)), key=lambda i: sum(share[i] for share in shares.values()))
    width = 0.8 / len(shares)
    for n, (value, share) in enumerate(shares.items()):
        places = [i - 0.4 + width * (len(shares) - n - 0.5) for i in range(len(labels))]
        axes.barh(places, [share[i] for i in order], height=width, label=None if value is None else str(value))
    axes.set_yticks(range(len(labels)), [labels[i] for i in order])
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set(xlabel="share of the texts", title=f"Emotions by {group}" if group else "Emotions")
    if group:
        axes.legend(frameon=False, loc="lower right")


def _of(frame: pd.DataFrame, group: str | None, value: Any) -> pd.DataFrame:
    return frame if group is None else frame[frame[group] == value]
