"""An open annotation job: its options and input are checked before anything is started or written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from emollm.annotation.identity import Identity, identify
from emollm.annotation.ledger import Totals
from emollm.annotation.monitor import Progress
from emollm.annotation.options import AnnotateConfig
from emollm.annotation.output import OutputFolder
from emollm.core.ask import asked_tasks
from emollm.core.errors import DataError
from emollm.core.options import ClusterConfig, with_values
from emollm.core.tasks import Task, select_tasks
from emollm.data.files.columns import Columns, Notes
from emollm.data.files.delimited import no_column, refuse_twice
from emollm.data.files.inputs import InputFile, find_files
from emollm.data.files.readers import first_with_columns
from emollm.data.files.split import MADE
from emollm.scoring.columns import PLAIN, OutputColumns
from emollm.scoring.extras import NO_EXTRAS, Extras
from emollm.scoring.open import fitted_precision, known_card, known_tasks, resolve_engine
from emollm.scoring.scorer import UNDECIDED, Scorer
from emollm.scoring.server.detect import Detected

_LOG = logging.getLogger("emollm")


@dataclass(slots=True)
class Job:
    """The tasks, the input files and the output of a job."""

    config: AnnotateConfig
    tasks: tuple[Task, ...]
    engine: str
    source: Any
    """The filesystem of `files`."""
    files: list[InputFile]
    columns: Columns
    output: OutputFolder
    identity: Identity
    opener: Callable[..., Scorer] | None
    on_progress: Callable[[Progress], None]
    notes: Notes
    """Messages for the user about how the input is read."""
    extras: Extras = NO_EXTRAS
    """The requested additions to the answers."""
    totals: Totals = field(default_factory=Totals)
    detected: Detected | None = None
    """For a job with servers: their detected features."""

    @property
    def asks_servers(self) -> bool:
        return self.engine == "server" and self.opener is None

    def settle(self, cluster: ClusterConfig) -> AnnotateConfig:
        """Resolve GPUs and precision, once for all actors. Ray must be running."""
        from emollm.models.precision import resolve_here
        from emollm.runtime.pools import on_a_worker

        config = self.config = with_values(self.config, cluster=cluster)
        if self.identity["precision"] == UNDECIDED:
            device = config.device if cluster.gpus else "cpu"
            # A scorer that replaces an engine has no precision of its own.
            asked = config.precision, device, self.engine, fitted_precision(config.model)
            found = "float32" if self.opener else on_a_worker(cluster, resolve_here, *asked)
            self.identity = {**self.identity, "precision": found}
            self.output.keep_identity(self.identity)
        return config


def open_job(
    config: AnnotateConfig, *, on_progress: Callable[[Progress], None], opener: Callable[..., Scorer] | None
) -> Job:
    """Check options and input before anything is started or written."""
    tasks = select_tasks(asked_tasks(config.tasks), known_tasks(config.model, config.engine))
    engine = config.engine if opener else resolve_engine(config.model, config.engine)
    notes = Notes()
    source, files = find_files(config.input, config.reading, notes)
    extras = choose_extras(config, tasks, engine)
    columns = choose_columns(config, tasks, source, files, config.output_columns(engine, extras))
    name = f"{opener.__module__}.{getattr(opener, '__qualname__', type(opener).__qualname__)}" if opener else None
    identity = identify(config, files, tasks, engine=engine, scorer=name)
    output = OutputFolder(config.out)
    if output.is_file():
        raise DataError(f"--out {config.out} is a file; give a folder")
    if identity["precision"] == UNDECIDED:
        # A continued job keeps the precision that it was started with, on any machine.
        begun = output.identity() or {}
        if {**begun, "precision": UNDECIDED} == identity and not config.overwrite:
            identity = begun
    return Job(config, tasks, engine, source, files, columns, output, identity, opener, on_progress, notes, extras)


def choose_extras(config: AnnotateConfig, tasks: Sequence[Task], engine: str) -> Extras:
    """The requested additions to the answers; raises ConfigError if the model was not fitted for them."""
    extras = Extras.of(known_card(config.model, config.engine), engine, tasks, **config.asked_extras())
    if config.long == "windows":
        extras.refuse_windows()
    if extras.never:
        _LOG.warning(extras.never_line(config.abstain))
    return extras


def choose_columns(
    config: AnnotateConfig,
    tasks: Sequence[Task],
    source: Any,
    files: Sequence[InputFile],
    output: OutputColumns = PLAIN,
) -> Columns:
    """The columns to read, from the first file that has columns. Raises DataError listing the columns it has."""
    plain = next((file for file in files if file.format == "txt"), None)
    if plain and config.id_column:
        raise DataError(f"{plain.path} is plain text and has no --id-column {config.id_column!r}; leave the option out")
    first, names = first_with_columns(source, files, config.reading, config.text_column)
    if not names:
        if plain and config.carry and config.carry != ("*",):
            raise DataError(f"{plain.path} is plain text and has no column {config.carry[0]!r} to carry")
        if not plain:
            raise DataError(f"{config.input} holds no posts")
        if column := next(filter(None, config.beside), None):
            raise DataError(f"{plain.path} is plain text and has no column {column!r}")
        return _by_sentence(Columns(id=None, text=config.text_column, reading=config.reading), config)
    refuse_twice(first.path, names)
    id_column = config.id_column or None
    if config.id_column is None and "id" in names:
        id_column = "id"
    for option, name in (("--id-column", id_column), ("--text-column", config.text_column)):
        if name and name not in names:
            raise no_column(first.path, name, names, option)
    for option, name in zip(("--context-column", "--target-column"), config.beside, strict=True):
        if name and name not in names:
            raise no_column(first.path, name, names, option)
    # All columns, except an `id` column if `--id-column ''` asks for derived ids, which are stored under that name.
    not_carried = {id_column or "id", config.text_column}
    carry = [name for name in names if name not in not_carried] if "*" in config.carry else config.carry
    carry = [*carry, *(name for name in config.beside if name and name not in carry)]
    if first.format in ("csv", "parquet") and (unknown := [name for name in carry if name not in names]):
        raise DataError(f"{first.path} has no column {unknown[0]!r} to carry; choose from: {', '.join(names)}")
    own = {("id", id_column), ("text", config.text_column)}
    carry = [name for name in dict.fromkeys(carry) if (name, name) not in own]  # those are in the output anyway
    taken = {"id", "text", *(field.name for field in output.fields(tuple(tasks)))}
    taken |= set(MADE) if config.long == "sentences" else set()
    if clash := [name for name in carry if name in taken]:
        raise DataError(f"column {clash[0]!r} cannot be carried: the output has one of that name; rename it")
    found = Columns(id=id_column, text=config.text_column, carry=tuple(carry), reading=config.reading)
    return _by_sentence(found, config)


def _by_sentence(columns: Columns, config: AnnotateConfig) -> Columns:
    if config.long != "sentences":
        return columns
    return replace(columns, carry=(*columns.carry, *MADE), by_sentence=True)
