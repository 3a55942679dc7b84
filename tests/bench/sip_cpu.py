"""CPU time and memory of processes, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """Return the process and all its running descendants."""
    found = [pid]
    for one in found:
        for thread in _threads(one):
            found += [int(child) for child in _read(thread / "children").split()]
    return found


def cpu_s(pid: int) -> float:
    """Return user and system seconds so far, of all threads and descendants, ended ones included."""
    # The kernel's sums include threads that have ended: `stat`'s fields 14 to 17, proc(5).
    return sum(sum(map(int, _fields(one)[11:15])) for one in tree(pid)) / _TICKS


def memory_kb(pid: int) -> tuple[int, int]:
    """Return (RSS, PSS) of the process and its descendants: in PSS, a page shared by two counts half for each."""
    rolled = [_rollup(one) for one in tree(pid)]
    return sum(one.get("Rss", 0) for one in rolled), sum(one.get("Pss", 0) for one in rolled)


class Used:
    """The CPU time since its creation, by name."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids
        self._before = {name: cpu_s(pid) for name, pid in pids.items()}

    def so_far(self) -> dict[str, float]:
        return {name: cpu_s(pid) - self._before[name] for name, pid in self._pids.items()}


def machine_s() -> tuple[float, float]:
    """Return (CPU seconds used by anything, CPU seconds available) since the machine started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / _TICKS, sum(fields) / _TICKS


def _threads(pid: int) -> Iterable[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _fields(pid: int) -> list[str]:
    """Return the fields of `stat` from the state on: program names may contain anything."""
    return _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split() or ["0"] * 20


def _rollup(pid: int) -> dict[str, int]:
    lines = _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines()[1:]
    return {line.partition(":")[0]: int(line.split()[1]) for line in lines}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has ended in the meantime
        return ""
