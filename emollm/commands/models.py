"""List the names that --model and --base take: emollm models"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.core.bases import BASES, BUNDLED, DEFAULT_MODEL, SHORT_NAMES
from emollm.core.errors import ConfigError


def main(argv: Sequence[str]) -> None:
    if argv:
        raise ConfigError(f"emollm models takes no options, but got {argv[0]!r}")

    from rich.table import Table

    from emollm.core.progress import table_console

    table = Table(title="Names for --model and --base, in addition to folders and hub ids", title_justify="left")
    for column in ("name", "kind", "parameters", "licence", "weights"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    short = {name: other for other, name in SHORT_NAMES.items()}
    for model, name in BUNDLED.items():
        kind = "model, the default" if model == DEFAULT_MODEL else "model"
        base = BASES[name]
        names = f"{model}, {short[model]}" if model in short else model
        table.add_row(names, kind, _size(base.parameters), base.licence, "in this package")
    for base in BASES.values():
        where = "a Python package" if base.package else base.hub_id
        table.add_row(base.name, f"base, {base.architecture}", _size(base.parameters), base.licence, where)
    table_console().print(table)


def _size(parameters: int) -> str:
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.0f} M"
