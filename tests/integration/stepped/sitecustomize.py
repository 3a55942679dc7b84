"""A module that Python imports as it starts: a file sets the wall clock of `ari-conf serve`, and of no other process.

The file holds the seconds by which the clock is ahead. All of Python's ways to read the wall clock follow it.
"""

import os
import sys
import time
from pathlib import Path

if "serve" in sys.orig_argv and (file := os.environ.get("WALL_CLOCK_AHEAD")):
    _time, _time_ns, _path = time.time, time.time_ns, Path(file)

    def _ahead() -> int:
        return int(_path.read_text() or 0)

    time.time = lambda: _time() + _ahead()
    time.time_ns = lambda: _time_ns() + _ahead() * 1_000_000_000
