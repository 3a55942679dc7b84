"""Memory settings of a worker, applied before any other module of the project is imported.

The comments name what each setting saves, measured as VmHWM.
"""

from __future__ import annotations

import ctypes
import sys

M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -8, -3, -1
"""Options of mallopt, from glibc's malloc.h."""
BLOCK_BYTES = 128 * 1024


def reduce_memory() -> None:
    # While Python imports the package for `python -m tasks`, argv[0] is "-m"; `ari-conf worker` names the file.
    is_worker = sys.argv[0] == "-m" or sys.argv[0].endswith("/tasks/__main__.py")
    if "celery.bin.celery" not in sys.modules and not is_worker:
        return  # another program imports the tasks
    # structlog formats exceptions with rich if it is installed: 3 MB, and a worker logs JSON or plain text.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        # One heap for all threads, and large blocks return to the system at once: about 3 MB.
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, BLOCK_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, BLOCK_BYTES)
