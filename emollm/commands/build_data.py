"""Build instruction data from corpora: emollm build-data aaid --semeval DIR --out DIR"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.core.options import Config, read_config, split_command


def main(argv: Sequence[str]) -> None:
    from emollm.data.aaid import AaidConfig, OwnConfig, build_aaid, build_own
    from emollm.data.aeb import AebConfig, build_aeb
    from emollm.data.affect import AffectConfig, build_affect
    from emollm.data.manifest import report

    commands: dict[str, type[Config]] = {"aaid": AaidConfig, "affect": AffectConfig, "aeb": AebConfig, "own": OwnConfig}
    command, rest = split_command(argv, prog="build_data", commands=commands)
    prog = f"build_data {command}"
    match command:
        case "aaid":
            aaid = read_config(AaidConfig, rest, prog=prog)
            build_aaid(aaid)
            print(report(aaid.out))
        case "affect":
            affect = read_config(AffectConfig, rest, prog=prog)
            build_affect(affect)
            print(report(affect.out))
        case "aeb":
            aeb = read_config(AebConfig, rest, prog=prog)
            build_aeb(aeb)
            print(report(aeb.out))
        case _:
            own = read_config(OwnConfig, rest, prog=prog)
            build_own(own)
            print(report(own.out))
