"""Audit a model for fairness: emollm audit --model DIR --eec FILE"""

from __future__ import annotations

from collections.abc import Sequence

from emollm.core.options import read_config


def main(argv: Sequence[str]) -> None:
    from emollm.evaluation.options import AuditConfig

    config = read_config(AuditConfig, argv, prog="audit")

    from emollm.core.progress import progress_bar, table_console
    from emollm.evaluation.audit import audit
    from emollm.evaluation.report.audit_page import audit_table

    with progress_bar("auditing", None, "questions") as advance:
        found = audit(config, on_rows=lambda new, total: advance(new, total=total))
    table_console().print(audit_table(found, alpha=config.alpha))
    if config.out:
        print(f"page: {config.out / 'audit.html'}")
