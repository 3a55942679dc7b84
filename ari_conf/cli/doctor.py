"""Command `ari-conf doctor`."""

from __future__ import annotations

import asyncio
import json

from rich.table import Table
from rich.text import Text

from ari_conf import doctor
from ari_conf.cli.terminal import console, print_table, say
from ari_conf.common.safe_text import visible
from ari_conf.doctor import Finding
from ari_conf.settings import settings

STATE_TEXTS: dict[doctor.State, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "warning": ("WARNING", "bold yellow"),
    "failure": ("FAILS", "bold red"),
}


def run(*, as_json: bool = False) -> int:
    """Run all checks, print the results, and return an exit code of `doctor.EXIT_CODES`."""
    findings = asyncio.run(doctor.run_checks(settings()))
    state = doctor.worst(findings)
    if as_json:
        checks = [{"id": f.id, "part": f.part, "state": f.state, "text": f.text} for f in findings]
        print(json.dumps({"state": state, "checks": checks}, indent=2))
        return doctor.EXIT_CODES[state]
    if console.is_terminal:
        table = Table(box=None, show_header=False, pad_edge=False)
        for finding in findings:
            table.add_row(finding.part, Text(*STATE_TEXTS[finding.state]), Text(visible(finding.text), overflow="fold"))
        console.print(table)
    else:
        print_table((), [(f.part, STATE_TEXTS[f.state][0], f.text) for f in findings], "")
    say("\n" + _summary(findings))
    return doctor.EXIT_CODES[state]


def _summary(findings: list[Finding]) -> str:
    states = [finding.state for finding in findings]
    failed, doubtful = states.count("failure"), states.count("warning")
    if not failed and not doubtful:
        return "All checks passed."
    parts = [f"{failed} of {len(findings)} fail"] if failed else []
    parts += [f"{doubtful} warning{'s' if doubtful > 1 else ''}"] if doubtful else []
    return ", ".join(parts) + "."
