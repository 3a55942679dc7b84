"""Keeps a worker small; before anything else of ours is imported. Each line is what it saves, as VmHWM says."""

from __future__ import annotations

import ctypes
import sys

M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -8, -3, -1
"""Of glibc's malloc.h."""
BLOCK_BYTES = 128 * 1024


def spare() -> None:
    if "celery.bin.celery" not in sys.modules:
        return  # nobody's worker: somebody who imports the tasks
    # structlog draws exceptions with it if it is there: 3 MB, and a worker's log is JSON or plain.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        # One heap for all threads, and what is large goes back at once: about 3 MB.
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, BLOCK_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, BLOCK_BYTES)
