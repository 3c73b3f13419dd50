"""What a check found, and how findings are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check; `remedy` is what to do about it."""

    check: str
    status: Status
    says: str
    remedy: str | None = None


def as_text(findings: Sequence[Finding]) -> str:
    """One line a finding, its remedy below it, and a sentence that counts."""
    width = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:7}  {finding.check:{width}}  {finding.says}")
        if finding.remedy:
            lines.append(f"{'':7}  {'':{width}}  -> {finding.remedy}")
    counts = {status: sum(f.status == status for f in findings) for status in ("failed", "warning", "ok", "skipped")}
    lines.append(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    return "\n".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """`{"ok": true, "findings": [...]}`; ok is false where a check failed."""
    return json.dumps({"ok": all_passed(findings), "findings": [asdict(f) for f in findings]}, indent=2)


def all_passed(findings: Sequence[Finding]) -> bool:
    """Whether no check failed; warnings pass."""
    return all(finding.status != "failed" for finding in findings)
