"""DNS look-ups in threads, because nothing can end a look-up whose server does not respond.

A look-up holds its thread for as long as the system's resolver takes, even after the attempt that needed it has ended.
Therefore each account may have only a few at a time, and concurrent requests for the same name share one look-up.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future

from ari_conf.http_client import url_guard
from ari_conf.http_client.url_guard import Networks

MAX_LOOKUPS = 64
"""Maximum number of threads in a process. A thread starts when it is needed, and ends with its look-up."""
MAX_LOOKUPS_PER_ACCOUNT = 8
"""Maximum number of these threads for one account."""

Addresses = Sequence[url_guard.Resolved]


def start(host: str, port: int, networks: Networks) -> Future[Addresses]:
    """Start a look-up in a daemon thread of its own: a process that ends must not wait for a look-up that hangs."""
    looking_up: Future[Addresses] = Future()
    looking_up.set_running_or_notify_cancel()

    def run() -> None:
        try:
            found = url_guard.resolve(host, port, networks)
        except BaseException as error:
            looking_up.set_exception(error)
        else:
            looking_up.set_result(found)

    threading.Thread(target=run, name="lookup", daemon=True).start()
    return looking_up


class DnsLookups:
    """Look-ups of a worker, whose threads wait for the result. `connect_async` has its own for the event loop."""

    def __init__(self, most: int = MAX_LOOKUPS, each: int = MAX_LOOKUPS_PER_ACCOUNT) -> None:
        """Allow `most` look-ups at a time, `each` of them for one account; each counts until its thread has ended."""
        self._most, self._each = most, each
        self._in_progress: dict[tuple[str, int, Networks], Future[Addresses]] = {}
        self._per_account: Counter[str] = Counter()
        self._ended = threading.Condition()

    def look_up(self, account: str, host: str, port: int, networks: Networks, until: float) -> Addresses:
        """Return the checked addresses of `host`.

        Raises TimeoutError at `until` (by time.monotonic()), and what `url_guard.resolve` raises.
        """
        if url_guard.is_address(host):
            # No resolver is involved, so nothing can hang. A thread of its own would wait for its turn on a busy host.
            return url_guard.resolve(host, port, networks)
        key = host, port, networks
        with self._ended:
            while (looking_up := self._in_progress.get(key)) is None:
                if len(self._in_progress) < self._most and self._per_account[account] < self._each:
                    looking_up = self._start(account, key)
                    break
                left = until - time.monotonic()
                if left <= 0 or not self._ended.wait(left):
                    raise TimeoutError
        return looking_up.result(until - time.monotonic())

    def _start(self, account: str, key: tuple[str, int, Networks]) -> Future[Addresses]:
        looking_up = self._in_progress[key] = start(*key)
        self._per_account[account] += 1
        # The callback runs immediately if the look-up has already ended.
        looking_up.add_done_callback(lambda _: self._forget(account, key))
        return looking_up

    def _forget(self, account: str, key: tuple[str, int, Networks]) -> None:
        with self._ended:
            del self._in_progress[key]
            self._per_account[account] -= 1
            if not self._per_account[account]:
                del self._per_account[account]
            self._ended.notify_all()
