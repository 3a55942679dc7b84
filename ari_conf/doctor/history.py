"""Checks of the history: its database, and the workers that write it."""

from __future__ import annotations

import socket
from typing import Any

import redis

from ari_conf.common.redis_client import connect_in_threads
from ari_conf.doctor import backlogs
from ari_conf.doctor.check import DEADLINE, CheckFailed, Doubtful
from ari_conf.errors import HistoryUnavailable
from ari_conf.history.database import HistoryDatabase
from ari_conf.queues import history_inbox, worker_health
from ari_conf.queues.history_inbox import Backlog
from ari_conf.settings import Settings

MAX_WAIT_MS = 300_000
"""Milliseconds for which an entry may wait for the database."""


def database(settings: Settings) -> str:
    """Check that the database is reachable and migrated, and that SQLite is used on one machine only."""
    opened = HistoryDatabase(settings)
    try:
        if opened.is_sqlite:
            _check_one_machine(settings, opened.file_id)
        if opened.is_sqlite and not opened.file_exists:
            raise Doubtful(f"{opened.shown_url} does not exist yet: the first worker on this machine makes it")
        if opened.revision() is None:
            raise Doubtful(
                f"{opened.shown_url} has no tables yet: the first worker makes them, or `ari-conf history migrate`"
            )
        if not opened.is_migrated():
            raise CheckFailed(
                f"the tables of {opened.shown_url} are not up to date: start a worker, or run "
                "`ari-conf history migrate`"
            )
        return f"{opened.shown_url}, revision {opened.revision()}"
    except HistoryUnavailable as error:
        raise CheckFailed(f"{error}: start it, or correct ARI_CONF_DATABASE_URL; nothing is lost meanwhile") from None
    finally:
        opened.close()


def _check_one_machine(settings: Settings, file_id: str) -> None:
    # Containers of one machine may have names of their own, and share the file.
    hosts = [host for host, other in _files(settings).items() if other != file_id and host != socket.gethostname()]
    if hosts:
        raise Doubtful(
            f"the history is in a file of this machine (SQLite), and workers run on {', '.join(sorted(hosts))}: each "
            "machine has its own part of it. Use PostgreSQL: set ARI_CONF_DATABASE_URL on all machines to "
            "postgresql://USER:PASSWORD@HOST/DATABASE"
        )


def _files(settings: Settings) -> dict[str, str]:
    """Return the files of the machines with live workers; empty if Redis does not respond, which others report."""
    client: Any = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        live = {one.host for one in worker_health.read(client, history_inbox.QUEUE) if not one.fault}
        return {host: file for host, file in history_inbox.files(client).items() if host in live}
    except (redis.RedisError, OSError):
        return {}
    finally:
        client.close()


def workers(settings: Settings) -> str:
    """Check that workers write the history, and that nothing waits for long."""
    found, number = _read(settings)
    if not number:
        raise backlogs.no_worker_result(settings, history_inbox.QUEUE, "writes the history")
    summary = f"{number}; {found.entries} entries wait"
    if found.oldest_ms > MAX_WAIT_MS:
        raise Doubtful(
            f"{summary}, the oldest for {found.oldest_ms / 1000:.0f} s: see the check of the history's database, and "
            "the log of the workers (`history not written`)"
        )
    if found.dropped:
        raise Doubtful(
            f"{summary}; {found.dropped} were dropped, because too many waited while the database was away "
            "(docs/operations/history.md)"
        )
    if found.unreadable:
        raise Doubtful(
            f"{summary}; {found.unreadable} could not be written: see the log of the workers, and run "
            "`ari-conf history retry` after an upgrade"
        )
    return summary


def _read(settings: Settings) -> tuple[Backlog, int]:
    client: Any = connect_in_threads(settings.redis_url.get_secret_value(), socket_timeout=DEADLINE)
    try:
        return history_inbox.backlog(client), len(worker_health.threads_of_live(client, history_inbox.QUEUE))
    except (redis.RedisError, OSError) as error:
        raise CheckFailed(f"could not be checked: Redis does not respond ({error})") from None
    finally:
        client.close()
