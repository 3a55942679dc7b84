"""Process priority: lowers a process's priority compared with everything else on the machine, as nice(1) does.

The kernel may weigh sessions before it weighs their processes (`kernel.sched_autogroup_enabled`, on by default). The
niceness of a process then counts only within its session: a process that leads its own session, as a service does,
would yield to no process outside it. Such a kernel has a separate niceness for each session (sched(7)).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

MAX_NICENESS = 19


def lower_priority(by: int) -> None:
    """Add `by` to the niceness of this process, and of the threads and processes that it starts from now on.

    A session that another process (for example a shell) leads keeps its niceness.
    """
    os.nice(by)
    if os.getsid(0) == os.getpid():
        _set_session_niceness(os.getpid(), os.getpriority(os.PRIO_PROCESS, 0))


def lower_session_priority(leader: int, by: int) -> None:
    """Set the niceness of a session to `by` above this process's, at most MAX_NICENESS.

    This process started its `leader`."""
    _set_session_niceness(leader, min(MAX_NICENESS, os.getpriority(os.PRIO_PROCESS, 0) + by))


def _set_session_niceness(leader: int, nice: int) -> None:
    # The kernel may not support session niceness, and the process may have ended already.
    with contextlib.suppress(OSError):
        Path(f"/proc/{leader}/autogroup").write_text(str(nice))
