"""Frozen option classes, filled from a YAML or TOML file and overridden on the command line."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict

from emollm.core.bases import BASE_PREFIX
from emollm.core.errors import ConfigError, EmollmError, did_you_mean


class Config(BaseModel):
    """Base of all option classes: frozen, unknown names refused, a docstring under each field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _no_place_is_empty(cls, given: Any) -> Any:
        """A variable of the shell that is not set leaves `--out ''`, which Path takes for this folder."""
        if isinstance(given, Mapping):
            for name, field in cls.model_fields.items():
                value = given.get(name)
                if (value == "" or (isinstance(value, list | tuple) and "" in value)) and _is_place(field):
                    raise ValueError(f"--{name.replace('_', '-')} is empty")
        return given


C = TypeVar("C", bound=Config)


class _Text(Enum):
    """The meaning of an option's text value."""

    LOCATION = "location"
    MODEL = "model"
    TASK = "task"


Location = Annotated[
    str,
    BeforeValidator(lambda value: os.fspath(value) if isinstance(value, os.PathLike) else value),
    _Text.LOCATION,
]
"""A local path, on a cluster below its storage, or a URI such as s3://bucket/folder."""
ModelRef = Annotated[str, _Text.MODEL]
"""A model or base model: a folder, on a cluster below its storage, or else a name."""
TaskRef = Annotated[str, _Text.TASK]
"""A task: its name, or a .toml file of tasks, on a cluster below its storage if it is there."""


class ClusterConfig(Config):
    """Where a job runs and which resources it uses."""

    profile: str | None = None
    """Named set of the values below: laptop, a100x2, a100x8, a100x16, or your own file. Values given here win."""
    ray_address: str | None = None
    """Address of a running Ray cluster. None: the cluster that submitted this job, else a private local Ray."""
    storage: Path | None = None
    """Folder that all nodes share; the job's relative paths are below it. None: they are below this folder."""
    num_workers: int = Field(2, ge=1)
    """Training workers, or scoring actors: one process each."""
    cpus_per_worker: float = Field(1.0, gt=0)
    """CPU cores reserved per worker. On a CPU one thread per worker is fastest; add workers, not threads."""
    gpus_per_worker: float | None = Field(None, ge=0)
    """GPUs reserved per worker; 0.25 lets four share one. None: 1 if Ray has a GPU for each worker, else 0."""
    wait_for_nodes_s: float = Field(0.0, ge=0)
    """Seconds to wait for nodes that an autoscaler starts. 0: they must exist already."""

    @property
    def gpus(self) -> float:
        """GPUs reserved per worker; 0 until `runtime.placement.with_gpus` has resolved None."""
        return self.gpus_per_worker or 0.0

    @field_validator("profile")
    @classmethod
    def _profile_is_known(cls, name: str | None) -> str | None:
        if name is not None and read_profile(name) is None:
            raise ValueError(f"choose from: {', '.join(_profiles())}, or a .yaml, .toml or .json file of your own")
        return name

    @model_validator(mode="before")
    @classmethod
    def _fill_from_profile(cls, given: Any) -> Any:
        profile = read_profile(str(given["profile"])) if isinstance(given, Mapping) and given.get("profile") else None
        return {**profile, **given} if profile else given


def read_profile(name: str) -> dict[str, Any] | None:
    """The values of a profile: one of `profiles.toml`, or a file. None if there is no such profile.

    Raises ConfigError if a file cannot be read.
    """
    return _read_file(Path(name)) if Path(name).suffix else _profiles().get(name)


@cache
def _profiles() -> dict[str, dict[str, Any]]:
    return tomllib.loads((resources.files("emollm") / "core" / "profiles.toml").read_text(encoding="utf-8"))


_METAVARS = {"str": "TEXT", "int": "N", "float": "X", "Path": "PATH", "bool": "BOOL"}


class _Parser(argparse.ArgumentParser):
    """argparse, but a wrong option is a ConfigError that lists the known ones; values may be given without a name."""

    bare: tuple[str, ...] = ()
    """Options of positional values, in this order: `posts.csv` for `--input posts.csv`."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        words, free = list(args or ()), list(self.bare)
        _, left = self.parse_known_args(words)
        while free and (word := next((w for w in left if not w.startswith("-")), None)) is not None:
            at = words.index(word)
            words[at : at + 1] = [f"{free.pop(0)}={word}"]
            _, left = self.parse_known_args(words)
        return super().parse_args(words, namespace)

    def format_help(self) -> str:
        # pydantic-settings writes Python types: `tuple[str,...]`.
        for action in self._actions:
            if isinstance(action.metavar, str):
                action.metavar = "A,B" if "tuple" in action.metavar else _METAVARS.get(action.metavar, action.metavar)
        return super().format_help()

    def error(self, message: str) -> Any:
        options = sorted(o for action in self._actions for o in action.option_strings if o.startswith("--"))
        known = [o for o in options if o not in ("--help", "--config") and not o.startswith("--no-")]
        unknown = [w for w in message.split() if w.startswith("--")] if "unrecognized" in message else []
        hint = did_you_mean((w.split("=")[0] for w in unknown), known)
        if "unrecognized" in message and not unknown:
            hint = "put words with blanks between them in quotes, and join values of one option by commas: V-reg,E-c; "
        raise ConfigError(f"{message}; {hint}options: {', '.join(known)}")


def read_config(cls: type[C], argv: Sequence[str], *, prog: str, bare: Sequence[str] = ()) -> C:
    """The options of a job: defaults, then `--config FILE` (YAML, TOML or JSON), then the command line.

    `bare` names the fields of positional values, in order.

    Raises ConfigError, one line per problem, naming the option, its value and the allowed ones.
    """
    usage = " ".join([f"emollm {prog}", *(f"[{name.upper()}]" for name in bare), "[OPTIONS]"])
    parser = _Parser(prog=prog, usage=usage, description=(cls.__doc__ or "").strip(), allow_abbrev=False)
    parser.bare = tuple(f"--{name.replace('_', '-')}" for name in bare)
    parser.add_argument("--config", metavar="FILE", help="YAML, TOML or JSON file with any of these options")
    # CliSettingsSource reads the whole line; --config is taken out of it first.
    only_config = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    only_config.add_argument("--config", type=Path)
    chosen, rest = only_config.parse_known_args(list(argv))

    class Settings(cls, BaseSettings):  # type: ignore[valid-type, misc]
        model_config = SettingsConfigDict(
            frozen=True,
            extra="forbid",
            cli_kebab_case=True,
            cli_avoid_json=True,
            cli_implicit_flags=True,
            cli_hide_none_type=True,
            cli_use_class_docs_for_groups=True,
        )

        @classmethod
        def settings_customise_sources(  # type: ignore[override]
            cls, settings_cls: Any, init_settings: Any, **_: Any
        ) -> tuple[Any, ...]:
            line: CliSettingsSource[Any] = CliSettingsSource(
                settings_cls, root_parser=parser, cli_parse_args=rest, parse_args_method=_Parser.parse_args
            )
            return (line, init_settings)

    try:
        settings = Settings(**_read_file(chosen.config) if chosen.config else {})
        # Back to the plain class: Settings is local and would not pickle.
        return _on_storage(cls.model_validate(settings.model_dump()))
    except ValidationError as error:
        # A default that is made of other values has nothing to say where one of those is wrong.
        problems = [e for e in error.errors() if e["type"] != "default_factory_not_called"]
        raise ConfigError("\n".join(_explain(cls, e) for e in problems)) from None


def _on_storage(config: C) -> C:
    """Resolve relative paths, and models named by a folder, below the cluster's storage.

    Raises ConfigError if a submitted job would write into its copy of the working directory, which Ray deletes.
    """
    cluster = getattr(config, "cluster", None)
    if not isinstance(cluster, ClusterConfig):
        return config
    if cluster.storage is None:
        out = str(getattr(config, "out", None) or "/")
        if "://" not in out and not Path(out).is_absolute() and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
            raise ConfigError(
                f"--out {out} is relative: a submitted job runs in a copy of the working directory that Ray "
                "deletes; give an absolute path, or the shared folder as --cluster.storage"
            )
        return config
    return _placed(config, cluster.storage)


def _placed(config: C, storage: Path) -> C:
    """The options with the relative paths among them below `storage`, those of their sections included."""
    values: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Config) and not isinstance(value, ClusterConfig):
            values[name] = _placed(value, storage)
        elif isinstance(value, tuple):
            values[name] = tuple(_on(storage, each, field) for each in value)
        else:
            values[name] = _on(storage, value, field)
    return with_values(config, **values)


def _on(storage: Path, value: Any, field: Any) -> Any:
    """A single value of an option below `storage`, if its type is a path, a location or a model; else as it is."""
    if isinstance(value, Path):
        return storage / value  # an absolute path stays what it is
    if not isinstance(value, str):
        return value
    marks = list(_marks(field))
    if _Text.LOCATION in marks and "://" not in value:
        return str(storage / value)
    if _Text.TASK in marks and value.endswith(".toml"):
        return str(storage / value) if (storage / value).is_file() else value
    if _Text.MODEL in marks:
        prefix = BASE_PREFIX if value.startswith(BASE_PREFIX) else ""
        folder = storage / value.removeprefix(prefix)
        return f"{prefix}{folder}" if folder.is_dir() else value
    return value


def _is_place(field: Any) -> bool:
    """Whether a field's values name a path, a model or a task."""
    return any(isinstance(mark, _Text) for mark in _marks(field)) or "Path" in str(field.annotation)


def _marks(field: Any) -> Iterator[Any]:
    """What `Annotated` says of a field's text, also inside `X | None` and `tuple[X, ...]`."""
    yield from field.metadata
    waiting = [field.annotation]
    while waiting:
        annotation = waiting.pop()
        yield from getattr(annotation, "__metadata__", ())
        waiting += get_args(annotation)


def option_names(cls: type[BaseModel], prefix: str = "--") -> list[str]:
    """The options of a command as they are written on its line, those of its sections included."""
    names = []
    for name, field in cls.model_fields.items():
        option = prefix + name.replace("_", "-")
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            names += option_names(section, f"{option}.")
        else:
            names.append(option)
    return names


def split_command(argv: Sequence[str], *, prog: str, commands: Mapping[str, type[Config]]) -> tuple[str, Sequence[str]]:
    """The first word of a job that has several commands, and the rest of the line.

    `--help` alone lists the commands; raises ConfigError on any other first word.
    """
    known = "\n".join(f"  {name:8} {(cls.__doc__ or '').strip()}" for name, cls in commands.items())
    if list(argv[:1]) in (["-h"], ["--help"]):
        print(f"usage: {prog} COMMAND [OPTIONS]\n\n{known}\n\n{prog} COMMAND --help lists the options of one.")
        sys.exit(0)
    if not argv or argv[0] not in commands:
        problem = f"unknown command {argv[0]!r}" if argv else "no command given"
        raise ConfigError(f"{problem}; choose from: {', '.join(commands)}")
    return argv[0], argv[1:]


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        match path.suffix:
            case ".toml":
                data = tomllib.loads(text)
            case ".json":
                data = json.loads(text)
            case ".yaml" | ".yml":
                import yaml

                data = yaml.safe_load(text)
            case _:
                raise ConfigError(f"--config {path}: the file must end in .yaml, .toml or .json")
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except ConfigError:
        raise
    except Exception as error:  # each parser has an exception of its own
        raise ConfigError(f"--config {path} cannot be parsed: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"--config {path}: expected options by name, found {type(data).__name__}")
    return data


def _explain(cls: type[Config], problem: Mapping[str, Any]) -> str:
    """A pydantic problem as one line in the terms of the command line."""
    where = [str(part) for part in problem["loc"]]
    option = "--" + ".".join(where).replace("_", "-") if where else "options"
    message = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    if problem["type"] == "missing":
        return f"{option} is required"
    if problem["type"] == "extra_forbidden":
        owner: Any = cls
        for part in where[:-1]:
            owner = owner.model_fields[part].annotation
        allowed = list(owner.model_fields)
        hint = did_you_mean([where[-1]], allowed)
        return f"unknown option {'.'.join(where)}; {hint}allowed: {', '.join(allowed)}"
    if not where:
        return message
    if problem["type"] == "too_short":
        return f"{option}: give {problem['ctx']['min_length']} or more, not {problem['ctx']['actual_length']}"
    return f"{option} {problem['input']!r}: {message}"


def run_job(main: Callable[[Sequence[str]], None]) -> None:
    """Run a job's `main` as a command: a user's mistake is one clear line and exit status 2, no traceback."""
    # The jobs show progress themselves; the bars of libraries would hide it. This is read when tqdm is imported.
    os.environ.setdefault("TQDM_DISABLE", "1")
    # A scheduler's SIGTERM ends the job as Ctrl-C does: Ray is stopped and partial folders are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main(sys.argv[1:])
    except EmollmError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(f"error: {error.name} is not installed; run: pip install 'emollm[{extra}]'", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # What read our output has ended, as in `emollm text --json | head`. Python would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print("interrupted; partial output was removed", file=sys.stderr)
        sys.exit(130)


def need(package: str) -> None:
    """Raise ModuleNotFoundError if it is not installed: `run_job` then names the extra that brings all of a command."""
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(f"no module named {package!r}", name=package)


EXTRA_OF = {
    "ray": "ray", "deepspeed": "train", "matplotlib": "plots", "fastapi": "serve", "httpx": "server",
}  # fmt: skip
"""Packages that an installation may lack, and the extra that brings each."""


def with_values(config: C, **values: Any) -> C:
    """A copy with some fields replaced, validated again (`model_copy` would not)."""
    return type(config).model_validate({**config.model_dump(), **values})
