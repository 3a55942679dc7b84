"""Parallel tests: several processes run them, and one prints each file that starts, the failures so far, and the
result.

pytest-xdist distributes the tests; each process runs whole files. The end of the output is pytest's own: failures, the
slowest tests, the count.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

LONG = (
    "tests/chaos", "tests/bench", "tests/tasks", "tests/integration", "tests/deb", "tests/test_wheel.py",
    "tests/test_lint.py", "tests/simulation",
)  # fmt: skip
"""Paths that start first, the slowest at the front: if a slow file starts last, all processes wait for it."""


def longest_first(items: list[pytest.Item]) -> None:
    """Sort the tests, identically in all processes."""

    def place(item: pytest.Item) -> int:
        found = [number for number, folder in enumerate(LONG) if item.nodeid.startswith(folder)]
        return found[0] if found else len(LONG)

    items.sort(key=place)


def whole_files(config: pytest.Config, log: Any) -> Any:
    """Return xdist's `loadscope`, changed so that a test that ends its process is not repeated: it would end the next
    process too."""
    from xdist.scheduler import LoadScopeScheduling

    class WholeFiles(LoadScopeScheduling):
        def remove_node(self, node: Any) -> str | None:
            files = self.assigned_work[node]
            for file, tests in [*files.items()]:
                if all(tests.values()):
                    del files[file]
            pending = [(tests, test) for tests in files.values() for test, done in tests.items() if not done]
            if not pending:
                return super().remove_node(node)
            tests, ended_it = pending[0]
            tests[ended_it] = True
            super().remove_node(node)
            return ended_it

    return WholeFiles(config, log)


class Printing:
    """A pytest plugin for the process that prints."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._began = time.monotonic()
        self._files: dict[str, str] = {}
        """The current file of each process."""
        self._done: set[str] = set()
        self._all = 0

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        return whole_files(config, log)

    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        self._all = len(ids)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        # Counted without a letter; failures are reported in words.
        if report.failed:
            return ("error" if report.when in ("setup", "teardown") else "failed", "", "")
        return ("passed", "", "") if report.passed and report.when == "call" else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        worker = str(getattr(report, "worker_id", ""))
        file = report.nodeid.partition("::")[0]
        if self._files.get(worker) != file:
            self._files[worker] = file
            self._say(f"{worker} {file}")
        if report.failed:
            when = f" ({report.when})" if report.when in ("setup", "teardown") else ""
            self._say(f"{worker} FAILED{when} {report.nodeid}".strip())
        if report.when == "teardown":
            self._done.add(report.nodeid)

    def _say(self, what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        done = f"{len(self._done):4} of {self._all}"
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(f"{minutes:3}:{seconds:02} {done} {what}")
