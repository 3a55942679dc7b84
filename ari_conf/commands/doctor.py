"""`ari-conf doctor`."""

from __future__ import annotations

import asyncio

from rich.table import Table
from rich.text import Text

from ari_conf import doctor
from ari_conf.commands.terminal import console, print_table, say
from ari_conf.settings import settings
from ari_conf.visible import visible


def run() -> int:
    """The exit code: 1 if a part is not well."""
    findings = asyncio.run(doctor.examine(settings()))
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        mark = Text("ok", "green") if finding.good else Text("FAILS", "bold red")
        table.add_row(finding.part, mark, Text(visible(finding.text), overflow="fold"))
    if console.is_terminal:
        console.print(table)
    else:
        print_table((), [(f.part, "ok" if f.good else "FAILS", f.text) for f in findings], "")
    failed = sum(not finding.good for finding in findings)
    say("\nAll is well." if not failed else f"\n{failed} of {len(findings)} fail.")
    return 1 if failed else 0
