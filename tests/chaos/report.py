"""Report of a run: figures and findings, as a table and as JSON."""

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
    """The number of times that a fault hit the server at exactly the intended moment."""

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
        """Return each finding with the fault before it, and with the seed that reproduces it."""
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
