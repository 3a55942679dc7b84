"""Names looked up in threads, since nothing else can end a look-up whose server stays silent.

Each may hang for as long as the system's resolver likes, long after its try gave up, and holds its thread so long. So
an account has only a few at once, and all that ask for one name meanwhile share one look-up.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future

from ari_conf.http import guard
from ari_conf.http.guard import Networks

AT_ONCE = 64
"""Threads of a process. They are started when they are needed, and end with their look-up."""
OF_ACCOUNT = 8
"""Of these."""

Found = Sequence[guard.Resolved]


def start(host: str, port: int, networks: Networks) -> Future[Found]:
    """In a thread of its own; as a daemon, since a process that ends must not wait for one that hangs."""
    looking_up: Future[Found] = Future()
    looking_up.set_running_or_notify_cancel()

    def run() -> None:
        try:
            found = guard.resolve(host, port, networks)
        except BaseException as error:
            looking_up.set_exception(error)
        else:
            looking_up.set_result(found)

    threading.Thread(target=run, name="lookup", daemon=True).start()
    return looking_up


class Lookups:
    """For the workers, who wait for it in their threads. `connect_async` has its own, for the loop."""

    def __init__(self, most: int = AT_ONCE, each: int = OF_ACCOUNT) -> None:
        """At most `most` at once, `each` of them one account's, until their threads are free again."""
        self._most, self._each = most, each
        self._under_way: dict[tuple[str, int, Networks], Future[Found]] = {}
        self._of_account: Counter[str] = Counter()
        self._ended = threading.Condition()

    def look_up(self, account: str, host: str, port: int, networks: Networks, until: float) -> Found:
        """Raises TimeoutError at `until`, of time.monotonic(), and what `guard.resolve` does."""
        if guard.is_address(host):
            # No server is asked, so nothing can hang; a thread of its own would wait for its turn on a busy machine.
            return guard.resolve(host, port, networks)
        key = host, port, networks
        with self._ended:
            while (looking_up := self._under_way.get(key)) is None:
                if len(self._under_way) < self._most and self._of_account[account] < self._each:
                    looking_up = self._start(account, key)
                    break
                left = until - time.monotonic()
                if left <= 0 or not self._ended.wait(left):
                    raise TimeoutError
        return looking_up.result(until - time.monotonic())

    def _start(self, account: str, key: tuple[str, int, Networks]) -> Future[Found]:
        looking_up = self._under_way[key] = start(*key)
        self._of_account[account] += 1
        # Called at once if it is done already.
        looking_up.add_done_callback(lambda _: self._forget(account, key))
        return looking_up

    def _forget(self, account: str, key: tuple[str, int, Networks]) -> None:
        with self._ended:
            del self._under_way[key]
            self._of_account[account] -= 1
            if not self._of_account[account]:
                del self._of_account[account]
            self._ended.notify_all()
