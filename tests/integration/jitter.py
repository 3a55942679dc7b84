"""A line on which each packet has a different delay; the packets stay in order, as on most networks."""

from __future__ import annotations

import heapq
import itertools
import random
import socket
import threading
import time
from types import TracebackType
from typing import Any

from demo.phone import Phone


class Jitter:
    """A context in which each of the phone's packets is late by up to the given time."""

    def __init__(self, phone: Phone, ms: float, seed: int = 0) -> None:
        line = phone._session
        assert line is not None, "it is in a call"
        self._line, self._socket, self._ms = line, line.rtp, ms
        self._random = random.Random(seed)
        self._waiting: list[tuple[float, int, bytes, Any]] = []
        self._numbers = itertools.count()
        self._last = 0.0
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Jitter:
        self._thread.start()
        self._line.rtp = _Late(self._socket, self._later)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.rtp = self._socket
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join(5)

    def _later(self, packet: bytes, to: Any) -> None:
        at = max(time.monotonic() + self._random.uniform(0, self._ms) / 1000, self._last)
        self._last = at
        with self._changed:
            heapq.heappush(self._waiting, (at, next(self._numbers), packet, to))
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while self._open or self._waiting:
                wait = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                _, _, packet, to = heapq.heappop(self._waiting)
                try:
                    self._socket.sendto(packet, to)
                except OSError:
                    return  # the call has ended


class _Late:
    """A replacement for a phone's socket."""

    def __init__(self, real: socket.socket, later: Any) -> None:
        self._real, self._later = real, later

    def sendto(self, packet: bytes, to: Any) -> None:
        self._later(packet, to)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
