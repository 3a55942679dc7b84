"""Memory and file descriptors of a system's processes, as reported by the kernel."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from tests.integration.stage import Stage


@dataclass(frozen=True)
class OfProcess:
    """The sums of a process and its descendants."""

    kb: int
    """PSS in KB: private memory plus the process's share of shared memory."""
    fds: int


@dataclass(frozen=True)
class Sample:
    seconds: float
    calls: int
    """Calls that have started so far."""
    processes: dict[str, OfProcess]
    redis_kb: float
    """The memory that Redis reports."""


def sampled(stage: Stage, began: float) -> Sample:
    parts = stage.system.components
    processes = {part: of_process(stage.system.process(part).pid) for part in parts}
    used = stage.redis.info("memory")["used_memory"] / 1024
    return Sample(time.monotonic() - began, len(stage.receiver.requests_to("/document")), processes, used)


def of_process(pid: int) -> OfProcess:
    kb = fds = 0
    for one in tree(pid):
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            fds += sum(1 for _ in Path(f"/proc/{one}/fd").iterdir())
        except OSError:  # the process, such as an ffmpeg, has ended in the meantime
            continue
        found = re.search(r"^Pss: +(\d+) kB", rollup, re.M)
        kb += int(found[1]) if found else 0
    return OfProcess(kb, fds)


def tree(pid: int) -> list[int]:
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [each for child in children.read_text().split() for each in tree(int(child))]
        except OSError:
            continue
    return found
