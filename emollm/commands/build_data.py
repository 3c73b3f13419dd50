"""Build instruction data from corpora: emollm build-data aaid --semeval DIR --out DIR"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.core.options import Config, read_config, split_command


def main(argv: Sequence[str]) -> None:
    from emollm.data.aaid import AaidConfig, OwnConfig, build_aaid, build_own
    from emollm.data.aeb import AebConfig, build_aeb
    from emollm.data.affect import AffectConfig, build_affect
    from emollm.data.manifest import report
    from emollm.data.perspectives import PerspectivesConfig, build_perspectives
    from emollm.data.statements import StatementsConfig, build_statements

    commands: dict[str, type[Config]] = {
        "aaid": AaidConfig, "affect": AffectConfig, "aeb": AebConfig, "own": OwnConfig,
        "perspectives": PerspectivesConfig, "statements": StatementsConfig,
    }  # fmt: skip
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
        case "perspectives":
            perspectives = read_config(PerspectivesConfig, rest, prog=prog)
            build_perspectives(perspectives)
            print(report(perspectives.out))
        case "statements":
            statements = read_config(StatementsConfig, rest, prog=prog)
            build_statements(statements)
            print(report(statements.out))
        case _:
            own = read_config(OwnConfig, rest, prog=prog)
            build_own(own)
            print(report(own.out))
