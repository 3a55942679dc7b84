"""Names looked up in threads, since nothing else can end a look-up whose server stays silent."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ari_conf.http import guard
from ari_conf.http.guard import Networks


class Lookups:
    """Each may hang for as long as the system's resolver likes, long after its try gave up. All that ask for one name
    meanwhile share one look-up, so that a name that hangs takes one thread, however often it is asked for."""

    def __init__(self, at_once: int) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="lookup")
        self._under_way: dict[tuple[str, int, Networks], Future[Sequence[guard.Resolved]]] = {}
        self._lock = threading.Lock()

    def start(self, host: str, port: int, networks: Networks) -> Future[Sequence[guard.Resolved]]:
        key = (host, port, networks)
        with self._lock:
            found = self._under_way.get(key)
            if found is not None:
                return found
            self._under_way[key] = looked_up = self._threads.submit(guard.resolve, *key)
        # Not before the lock is free: it is called at once if that is done already.
        looked_up.add_done_callback(lambda _: self._forget(key))
        return looked_up

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _forget(self, key: tuple[str, int, Networks]) -> None:
        with self._lock:
            self._under_way.pop(key, None)
