"""The table of conformance: a row for each promise of the specification, what was seen of it, and whether it held.

A scenario says with `@pytest.mark.row("attribute", "what is promised")` which row it proves, and with `stage.saw(...)`
what it saw. `make conformance` writes docs/conformance.md from a run.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path

HEAD = """# Conformance

Made by `make conformance` from a run with real SIP callers on a real Asterisk; not written by hand.

{when}, {asterisk}, {machine}: {passed} of {all} rows hold.

| row | promise | what was seen | holds |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    name: str
    promise: str
    seen: tuple[str, ...]
    passed: bool


def write(path: Path, rows: list[Row], asterisk: str) -> None:
    passed = sum(row.passed for row in rows)
    when = time.strftime("%Y-%m-%d", time.gmtime())
    head = HEAD.format(when=when, asterisk=asterisk, machine=platform.machine(), passed=passed, all=len(rows))
    lines = [
        f"| {_cell(row.name)} | {_cell(row.promise)} | {_cell('; '.join(row.seen))} | {'yes' if row.passed else 'NO'} |"
        for row in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "\n".join(lines) + "\n")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
