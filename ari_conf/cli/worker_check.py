"""`ari-conf worker --check`: the health of this machine's workers, for containers, systemd and people."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Sequence

from redis import RedisError

from ari_conf.common.redis_client import connect_in_threads, explain_to_user
from ari_conf.errors import WorkerUnhealthy
from ari_conf.queues import queue_names, worker_health
from ari_conf.queues.worker_health import WorkerHealth
from ari_conf.settings import settings

TIMEOUT_S = 2.0
"""Seconds to wait for each response of Redis."""


def run(arguments: Sequence[str], pid: int | None = None) -> str:
    """Return one sentence about the workers of this machine, or raise WorkerUnhealthy with one.

    `arguments`: `-Q QUEUES`, if the workers do not consume all queues. `pid`: the only process to check."""
    parser = argparse.ArgumentParser("ari-conf worker --check", add_help=False)
    parser.add_argument("-Q", "--queues", default=",".join(queue_names.ALL))
    given = parser.parse_args(arguments)
    queues = [queue.strip() for queue in given.queues.split(",")]
    if wrong := [queue for queue in queues if queue not in queue_names.ALL]:
        parser.error(f"no queue is named {wrong[0]!r}: expected some of {', '.join(queue_names.ALL)}")
    return judge(_read(queues), socket.gethostname(), pid)


def judge(found: dict[str, list[WorkerHealth]], host: str, pid: int | None = None) -> str:
    """Return one sentence about the workers of `host`, or raise WorkerUnhealthy. `found`: workers by queue."""
    whose = f"process {pid} on this machine" if pid else f"this machine ({host})"
    workers: dict[int, bool] = {}
    for queue, all_workers in found.items():
        ours = [each for each in all_workers if each.host == host and pid in (None, each.pid)]
        if not ours:
            raise WorkerUnhealthy(f"no worker of {whose} consumes the queue {queue}: look at its log, and restart it")
        for each in ours:
            if each.fault:
                raise WorkerUnhealthy(f"the worker {each.pid} does not work off the queue {queue}: {each.fault}")
            workers[each.pid] = each.is_stopping
    pids = ", ".join(map(str, sorted(workers)))
    what = "is stopping" if all(workers.values()) else f"consumes {', '.join(found)}"
    return f"worker {pids} of this machine {what}"


def _read(queues: Sequence[str]) -> dict[str, list[WorkerHealth]]:
    url = settings().redis_url.get_secret_value()
    client = connect_in_threads(url, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S, retry=None)
    try:
        return {queue: worker_health.read(client, queue) for queue in queues}
    except (RedisError, OSError) as error:
        raise WorkerUnhealthy(f"the worker can't work: {explain_to_user(error)}") from None
    finally:
        client.close()
