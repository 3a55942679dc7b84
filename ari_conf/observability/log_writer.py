"""Log writer: writes the log in a thread of its own, so that a stalled pipe or disk never stalls the event loop."""

from __future__ import annotations

import atexit
import threading
import time
from typing import TextIO

import structlog

MAX_WAITING_CHARACTERS = 8 * 1024 * 1024
"""Maximum characters that wait to be written. Entries beyond it are dropped and counted."""
WRITE_INTERVAL_S = 0.005
"""Seconds between two writes: a burst of entries is one write, and the thread rarely takes the GIL from the loop."""
CLOSE_TIMEOUT_S = 2.0
"""Seconds to wait for the last write when the process ends: a reader that takes nothing can't keep it from ending."""


class LogWriter:
    """Replacement for a text stream. Entries are written in the order of arrival, whichever thread logged them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        # Reentrant: the garbage collector may run a finalizer that logs while this thread holds the lock.
        self._lock = threading.RLock()
        self._waiting: list[str] = []
        self._size = 0
        self._writing = False
        self._dropped = 0
        self._woken = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def start(self) -> None:
        self._thread.start()
        atexit.register(self.close)

    def write(self, text: str) -> int:
        with self._lock:
            if self._size + len(text) > MAX_WAITING_CHARACTERS:
                self._dropped += 1
                return 0
            self._size += len(text)
            self._waiting.append(text)
        if not self._woken.is_set():
            self._woken.set()
        return len(text)

    def flush(self) -> None:
        """Do nothing: logging never waits. See `wait_until_written`."""

    def wait_until_written(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Wait until all entries so far are written, `timeout_s` seconds at most. Returns False if they are not."""
        deadline = time.monotonic() + timeout_s
        while self._waiting or self._writing:
            if time.monotonic() > deadline or not self._thread.is_alive():
                return False
            time.sleep(WRITE_INTERVAL_S)
        return True

    def close(self) -> None:
        self._ended = True
        self._woken.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while not self._ended or self._waiting:
            self._woken.wait()
            if not self._ended:
                time.sleep(WRITE_INTERVAL_S)
            self._woken.clear()
            with self._lock:
                texts, self._waiting, self._writing = self._waiting, [], True
            taken = self._write(texts)
            with self._lock:
                self._size -= sum(map(len, texts))
                self._writing = False
                dropped = self._dropped if taken else 0
                self._dropped += -dropped if taken else len(texts)
            if dropped:
                structlog.get_logger().warning(
                    "log entries dropped", count=dropped, reason="the reader of the log is too slow"
                )

    def _write(self, texts: list[str]) -> bool:
        """Write the texts. Returns False if the stream is closed, or its reader has ended."""
        try:
            self._stream.write("".join(texts))
            self._stream.flush()
        except (OSError, ValueError):
            return False
        return True
