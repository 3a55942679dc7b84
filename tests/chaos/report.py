"""The figures of a run, and what was wrong: as a table, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.hearing import Finding
from tests.chaos.seen import Injected, before


@dataclass
class Report:
    seed: int
    minutes: float
    callers: int
    conferences: int
    began_ms: float
    faults: list[Injected] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    left: dict[str, Any] = field(default_factory=dict)
    moments: int = 0
    """So often the application was killed just while it did what it was to be killed at."""

    @property
    def passed(self) -> bool:
        return not self.findings and not self.left

    def add(self, findings: Sequence[Finding]) -> None:
        self.findings += findings

    def json(self) -> dict[str, Any]:
        left = {what: str(found) for what, found in self.left.items()}
        told = {"left": left, "passed": self.passed, "by_kind": self.by_kind(), "wrong": self.wrong()}
        return asdict(self) | told

    def by_kind(self) -> dict[str, int]:
        return dict(sorted(Counter(fault.kind for fault in self.faults).items()))

    def wrong(self) -> list[str]:
        """Each with the fault before it, and the seed with which it can be had again."""
        lines = []
        for finding in sorted(self.findings, key=lambda finding: finding.at_ms):
            fault = before(finding.at_ms, self.faults)
            when = f"at {self._s(finding.at_ms)} s: " if finding.at_ms else ""
            after = f"; before it: {fault.kind} at {self._s(fault.start_ms)} s" if fault else ""
            lines.append(f"{when}{finding.text}{after}; seed {self.seed}")
        lines += [f"left behind: {what}: {found}; seed {self.seed}" for what, found in self.left.items()]
        return lines

    def _s(self, at_ms: float) -> str:
        return f"{(at_ms - self.began_ms) / 1000:.1f}"

    def table(self) -> str:
        rows = [(f"  {kind}", count) for kind, count in self.by_kind().items()]
        rows = [("faults", float(len(self.faults))), *rows, *self.figures.items()]  # type: ignore[list-item]
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {_number(value):>10}" for name, value in rows]
        return "\n".join([f"seed {self.seed}, {self.minutes:g} min, {self.callers} callers", *lines])


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
