"""Opens an inference engine for a model directory, or a base by name, behind the `Scorer` interface."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from emollm.core.bases import BASE_PREFIX, model_key
from emollm.core.card import ASKED, AffectCard, card_of
from emollm.core.errors import ConfigError, ModelError
from emollm.core.tasks import Task, Way
from emollm.scoring.arrays import ArrayScorer
from emollm.scoring.constrained.search import SearchOptions
from emollm.scoring.scorer import ENGINES, Scorer

if TYPE_CHECKING:
    from emollm.core.calibration import Calibration
    from emollm.models.load import LoadedModel
    from emollm.scoring.asking.scorer import Opened, Route
    from emollm.scoring.server.detect import Detected
    from emollm.scoring.server.options import RequestOptions

    _Loaded = dict[tuple[str, Any], LoadedModel]
    """Models by their key and type of weights."""


def open_scorer(
    model: str,
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    batch_tokens: int | None = None,
    search: SearchOptions | None = None,
    num_threads: int | None = 1,
    calibrated: bool = True,
    server: str | Sequence[str] = (),
    requests: RequestOptions | None = None,
    one_prompt: bool = False,
    detected: Detected | None = None,
    way: Way = "auto",
) -> Scorer:
    """Load a model directory (or a base by name) into an engine; for `auto` see `resolve_engine`.

    `device` is "cpu" or "cuda"; "auto" takes a GPU that is visible, and says so on stderr. `precision` is as for
    `resolve_precision`. `batch_tokens` bounds the tokens, padding included, that go through the model at once; None: as
    `default_batch_tokens` has it for the device. `search` says how far the constrained engine reads
    answers; None: its defaults. `num_threads` is set for this whole process where the device is a CPU: beside other
    busy processes, two threads made one 15 times slower; None leaves torch's own number. `calibrated` puts the answers
    through the maps that the card has for this engine, if any. `server`, which implies the engine of that name,
    `requests`, `one_prompt` and `detected` are as for `server.engine.ServerScorer`. `way` is how tasks given at call
    time are answered that leave it open; what they need is loaded when the first is asked. Raises ModelError or
    ConfigError, before any weight is read where it can.
    """
    engine = resolve_engine(model, "server" if server and engine == "auto" else engine)
    if engine == "server":
        from emollm.scoring.server.engine import ServerScorer

        urls = [server] if isinstance(server, str) else server
        asked = ServerScorer(model, server=urls, requests=requests, one_prompt=one_prompt, detected=detected)
        if detected is None:
            print(f"server: {asked.detected.told()}", file=sys.stderr, flush=True)
        found = _calibrated(asked, asked.card.calibration.get(engine) if calibrated else None)
        return _asking(found, engine, way, functools.partial(_on_server, found, {}))
    if server or one_prompt:
        raise ConfigError(f"server and one_prompt are for the engine server, not for {engine}")
    if engine != "constrained" and search is not None:
        raise ConfigError(f"search options are for --engine constrained; {engine} has none")
    import torch

    from emollm.models.device import activation_bytes, default_batch_tokens, resolve_device, say_device
    from emollm.models.load import load_model
    from emollm.models.precision import DTYPES, resolve_precision, set_matmul_precision

    is_auto, device = device == "auto", resolve_device(device)
    if is_auto:
        say_device(device)
    if num_threads is not None and device == "cpu":
        torch.set_num_threads(num_threads)
    resolved = resolve_precision(precision, device, engine=engine, fitted=fitted_precision(model))
    if device != "cpu":
        set_matmul_precision(resolved)
    loaded = load_model(model, dtype=DTYPES[resolved], device=device)
    if batch_tokens is None:
        batch_tokens = default_batch_tokens(device, bytes_per_token=activation_bytes(loaded.model))
    maps = loaded.card.calibration.get(engine) if calibrated else None
    if engine == "heads":
        from emollm.scoring.heads.engine import HeadsScorer

        scorer: Scorer = HeadsScorer(loaded, device=device, batch_tokens=batch_tokens, calibration=maps)
    else:
        scorer = _calibrated(_behind(engine, loaded, device=device, batch_tokens=batch_tokens, search=search), maps)
    opened = functools.partial(_open_way, loaded, {}, device=device, batch_tokens=batch_tokens, precision=precision)
    return _asking(scorer, engine, way, opened)


def _calibrated(scorer: Scorer, maps: Calibration | None) -> Scorer:
    if maps is None:
        return scorer
    from emollm.scoring.calibrated import CalibratedScorer

    return CalibratedScorer(scorer, maps)


def _asking(scorer: Scorer, engine: str, way: Way, open_way: Callable[[Route], Opened]) -> Scorer:
    """The engine, and beside it what answers tasks given at call time."""
    from emollm.scoring.asking.scorer import AskingArrayScorer, AskingScorer

    kind = AskingArrayScorer if isinstance(scorer, ArrayScorer) else AskingScorer
    return kind(scorer, name=engine, way=way, open_way=open_way)


def _on_server(scorer: Scorer, others: _Loaded, chosen: Route) -> Opened:
    """The server's model in its own prompt; what needs another model is opened here."""
    from emollm.scoring.asking.scorer import Opened

    if chosen.way == "constrained":
        return Opened(scorer, f"constrained by {scorer.card.name}", None)
    if chosen.way == "entailment":
        raise ConfigError("the way entailment needs every sentence's likelihood, which a server does not tell")
    return _open_way(None, others, chosen, device="cpu", batch_tokens=1024, precision="float32")


def _open_way(
    open_model: LoadedModel | None,
    others: _Loaded,
    chosen: Route,
    *,
    device: str,
    batch_tokens: int,
    precision: str,
) -> Opened:
    """What answers tasks given at call time. A model other than the open one is loaded, once for all its ways, and kept
    in `others`.
    """
    from emollm.models.load import load_model, prompt_encoder
    from emollm.models.precision import DTYPES, resolve_precision
    from emollm.scoring.asking.embedding import EmbeddingScorer
    from emollm.scoring.asking.entailment import EntailmentScorer
    from emollm.scoring.asking.scorer import Opened
    from emollm.scoring.constrained.engine import ConstrainedScorer

    loaded = open_model
    if loaded is None or chosen.model is not None:
        assert chosen.model is not None
        engine = "heads" if chosen.way == "embedding" else "constrained"
        dtype = DTYPES[resolve_precision(precision, device, engine=engine)]
        key = model_key(chosen.model), dtype
        if key not in others:
            others[key] = load_model(chosen.model, dtype=dtype, device=device)
        loaded = others[key]
    name = f"{chosen.way} by {loaded.card.name.removeprefix(BASE_PREFIX)}"
    if chosen.way == "embedding":
        compared = EmbeddingScorer(loaded, device=device, batch_tokens=batch_tokens)
        return Opened(compared, name, compared.ids)
    ids = prompt_encoder(loaded).answer
    # Read to the end: a prior divides small probabilities, too.
    search = SearchOptions(tolerance=0.0) if chosen.way == "entailment" else SearchOptions()
    constrained = ConstrainedScorer(loaded, device=device, batch_tokens=batch_tokens, options=search)
    return Opened(EntailmentScorer(constrained) if chosen.way == "entailment" else constrained, name, ids)


def _behind(
    engine: str, loaded: LoadedModel, *, device: str, batch_tokens: int, search: SearchOptions | None
) -> Scorer:
    if loaded.card.base.architecture == "encoder":
        raise ModelError(
            f"{loaded.card.name} is an encoder and cannot generate answers; fit heads: emollm train --objective heads"
        )
    if engine == "generate":
        from emollm.scoring.generate import GenerateScorer

        return GenerateScorer(loaded, device=device, batch_tokens=batch_tokens)
    from emollm.scoring.constrained.engine import ConstrainedScorer

    return ConstrainedScorer(loaded, device=device, batch_tokens=batch_tokens, options=search or SearchOptions())


def known_card(model: str, engine: str) -> AffectCard | None:
    """The card of a model as from `card_of`; None also for a model that only a server knows."""
    from emollm.scoring.server.detect import is_directory

    return None if engine == "server" and not is_directory(model) else card_of(model)


def known_tasks(model: str, engine: str) -> tuple[Task, ...]:
    """The tasks that a model can be asked without further training: those of its card, or all tasks."""
    card = known_card(model, engine)
    return card.tasks if card else ASKED


def fitted_precision(model: str) -> Literal["float32", "bf16"]:
    """The arithmetic in which the model's heads were fitted, from its card; float32 if it has no heads."""
    card = card_of(model)
    return card.heads.precision if card and card.heads else "float32"


def resolve_engine(model: str, engine: str) -> str:
    """The resolved engine: `auto` is `heads` if the model's card has heads, else `constrained`.

    Reads only the card. Raises ConfigError for an unknown engine and ModelError for one that the model cannot use.
    """
    if engine not in ENGINES:
        raise ConfigError(f"unknown engine {engine!r}; choose from: {', '.join(ENGINES)}")
    if engine == "server":
        from emollm.scoring.server.detect import check_model

        check_model(model)
        return engine
    card = card_of(model)
    heads = card.heads if card else None
    if engine == "auto":
        return "heads" if heads else "constrained"
    if engine == "heads" and heads is None:
        base = card.base.name if card else model
        raise ModelError(
            f"{model} has no heads; use --engine constrained, or fit heads: emollm train "
            f"--objective heads --freeze --base {base} --data DATA --out DIR"
        )
    if engine != "heads" and heads and card and not heads.writes_answers:
        raise ModelError(
            f"{model} has heads and was not trained to generate answers; use --engine heads, or train with "
            "--objective both"
        )
    return engine
