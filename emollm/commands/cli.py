"""The `emollm` command: its first argument names a command, and that command's module runs it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import NamedTuple

from emollm.core.errors import ConfigError, did_you_mean
from emollm.core.options import run_job


class Command(NamedTuple):
    module: str
    """Holds `main(argv)`; imported when the command is called, so that `--help` stays fast."""
    options: str | None
    """Module and class of its options, for shell completion."""
    help: str


COMMANDS = {
    "text": Command("commands.text", "commands.text:TextConfig", 'show the affect of a text: emollm text "what a day"'),
    "annotate": Command("commands.annotate", "commands.annotate:FileConfig", "affect columns for a file or a corpus"),
    "review": Command("commands.review", None, "pick posts for human review, and merge the labels"),
    "merge": Command("commands.merge", "commands.merge:MergeConfig", "merge several annotators: agreement, one answer"),
    "train": Command("commands.train", "training.options:TrainConfig", "fine-tune a model on labelled data"),
    "evaluate": Command("commands.evaluate", "evaluation.options:EvaluateConfig", "measure a model and its baselines"),
    "compare": Command("commands.compare", "evaluation.options:CompareConfig", "is one evaluated run better?"),
    "calibrate": Command("commands.calibrate", "evaluation.options:CalibrateConfig", "calibrate probabilities"),
    "audit": Command("commands.audit", "evaluation.options:AuditConfig", "audit a model for unfair differences"),
    "report": Command(
        "commands.report", "study.options:ReportConfig", "report on an annotated corpus by group and time"
    ),
    "map": Command("commands.map_labels", "study.mapping:MapConfig", "add label sets to an annotated corpus"),
    "release": Command(
        "commands.release", "study.release:ReleaseConfig", "data, dataset card and checksums to give away"
    ),
    "build-data": Command("commands.build_data", None, "build training or benchmark data from corpora or own labels"),
    "serve": Command("serve.__main__", "serve.config:ServeConfig", "the HTTP endpoint and its page"),
    "serve-llm": Command(
        "commands.serve_llm", "commands.serve_llm:ServeLlmConfig", "serve a model with vLLM for --engine server"
    ),
    "doctor": Command("doctor", "doctor:DoctorConfig", "check a Ray cluster before a long run"),
    "models": Command("commands.models", None, "list the names of models and base models"),
    "samples": Command("commands.samples", None, "copy the bundled sample posts and labels to a folder"),
    "quickstart": Command("commands.quickstart", "commands.quickstart:QuickstartConfig", "all steps, in minutes"),
    "completion": Command("commands.completion", None, "print a completion script for bash, zsh or fish"),
}

_EXIT_CODES = """exit codes:
  0    done
  1    a check failed (doctor), or an error in emollm itself, with a traceback
  2    something to fix: an option, a file, a model or a resource; one line says what
  130  interrupted by Ctrl-C; 143: ended by SIGTERM"""


def main(argv: Sequence[str]) -> None:
    match list(argv[:1]):
        case [] | ["-h"] | ["--help"] | ["help"]:
            print(_help())
        case ["-V"] | ["--version"]:
            from emollm import __version__

            print(f"emollm {__version__}")
        case [word] if word in COMMANDS:
            module = importlib.import_module(f"emollm.{COMMANDS[word].module}")
            module.main(argv[1:])
        case [word]:
            hint = did_you_mean([word], COMMANDS)
            raise ConfigError(f"unknown command {word!r}; {hint}choose from: {', '.join(COMMANDS)}")


def _help() -> str:
    listed = "\n".join(f"  {name:12}{command.help}" for name, command in COMMANDS.items())
    return (
        "usage: emollm COMMAND [OPTIONS]\n\nAffect in text: emotions, their intensities, and valence.\n\n"
        f"commands:\n{listed}\n\n"
        f"emollm COMMAND --help lists the options of a command; emollm --version.\n\n{_EXIT_CODES}"
    )


def run() -> None:
    """The console script."""
    run_job(main)
