"""Print a script that completes commands and options: eval "$(emollm completion bash)" """

from __future__ import annotations

import importlib
from collections.abc import Sequence

from emollm.commands.cli import COMMANDS
from emollm.core.errors import ConfigError
from emollm.core.options import option_names

_BASH = """_emollm() {{
  local words="{commands}"
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  [ "$COMP_CWORD" -gt 1 ] && [ "${{COMP_WORDS[COMP_CWORD]:0:1}}" != "-" ] && words=""
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _emollm emollm"""

_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def main(argv: Sequence[str]) -> None:
    match list(argv):
        case ["bash"]:
            print(_bash())
        case ["zsh"]:
            print(_ZSH + _bash())
        case ["fish"]:
            print("\n".join(_fish()))
        case _:
            raise ConfigError('give a shell: bash, zsh or fish; then: eval "$(emollm completion bash)"')


def _options() -> dict[str, list[str]]:
    found = {}
    for name, command in COMMANDS.items():
        if command.options:
            module, cls = command.options.split(":")
            found[name] = option_names(getattr(importlib.import_module(f"emollm.{module}"), cls))
    return found


def _bash() -> str:
    cases = "\n".join(f'    {name}) words="--config --help {" ".join(names)}" ;;' for name, names in _options().items())
    return _BASH.format(commands=" ".join([*COMMANDS, "--help", "--version"]), cases=cases)


def _fish() -> list[str]:
    lines = [
        f"complete -c emollm -n __fish_use_subcommand -f -a {name} -d {command.help!r}"
        for name, command in COMMANDS.items()
    ]
    for name, options in _options().items():
        lines += [
            f"complete -c emollm -n '__fish_seen_subcommand_from {name}' -l {option.removeprefix('--')}"
            for option in options
        ]
    return lines
