"""Yielding to what else runs on this machine, as nice(1) has it.

Where the kernel weighs sessions before it weighs their processes (`kernel.sched_autogroup_enabled`, on by default),
that counts only among the processes of one session: who leads a session of his own, as a service does, would yield to
nobody. A session has a nice of its own there (sched(7)).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MOST = 19


def yields(by: int) -> None:
    """This process from now on, and the threads and processes that it starts. A session that another process leads (a
    shell, say) is left as it is."""
    os.nice(by)
    if os.getsid(0) == os.getpid():
        _session_yields(os.getpid(), os.getpriority(os.PRIO_PROCESS, 0))


def session_yields(leader: int, by: int) -> None:
    """The session that a process leads which we have started."""
    _session_yields(leader, min(MOST, os.getpriority(os.PRIO_PROCESS, 0) + by))


def _session_yields(leader: int, nice: int) -> None:
    # The kernel may have no such thing; the process may be gone already.
    with contextlib.suppress(OSError):
        Path(f"/proc/{leader}/autogroup").write_text(str(nice))
