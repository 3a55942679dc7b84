"""The table of conformance: for each promise of the specification a row with the observations and the verdict.

A scenario names its row with `@pytest.mark.row("attribute", "what is promised")` and reports its observations with
`stage.saw(...)`. `make conformance` writes docs/development/conformance.md from a run: each process that runs
scenarios sends its rows along with its reports, and the process that prints the reports writes the table.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HEAD = """# Conformance

Made by `make conformance` from a run with real SIP callers on a real Asterisk; not written by hand.

{when}, {asterisk}, {machine}: {passed} of {all} rows hold.

| row | promise | what was seen | holds |
|---|---|---|---|
"""


SEEN = pytest.StashKey[list[str]]()
ASTERISK = pytest.StashKey[str]()


@dataclass(frozen=True)
class Row:
    name: str
    promise: str
    seen: tuple[str, ...]
    passed: bool
    place: tuple[str, int] = ("", 0)
    """The scenario's file and line. The table is in this order, whatever process ran a row, and when."""


class Rows:
    """The pytest plugin that collects the rows."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        """Rows by the scenario's name."""
        self.asterisk = "no Asterisk"

    def pytest_configure(self, config: pytest.Config) -> None:
        promise = "row(name, promise): the row of docs/development/conformance.md that a scenario proves"
        config.addinivalue_line("markers", promise)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if mark := item.get_closest_marker("row"):
            row = [*mark.args, list(item.stash.get(SEEN, [])), item.stash.get(ASTERISK, "")]
            report.user_properties.append(("row", row))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == "row":
                self._take(report, value)

    def _take(self, report: pytest.TestReport, row: Any) -> None:
        name, promise, seen, asterisk = row
        # The teardown reports remains of a scenario, so it is part of the row.
        earlier = self.rows.get(report.nodeid)
        passed = report.passed and (earlier is None or earlier.passed)
        file, line, _ = report.location
        self.rows[report.nodeid] = Row(name, promise, tuple(seen), passed, (file, line or 0))
        self.asterisk = asterisk or self.asterisk

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        path = os.environ.get("CONFORMANCE_TABLE")
        sends_its_rows = hasattr(session.config, "workerinput")
        if path and self.rows and not sends_its_rows:
            write(Path(path), list(self.rows.values()), self.asterisk)


def write(path: Path, rows: list[Row], asterisk: str) -> None:
    rows = sorted(rows, key=lambda row: row.place)
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
