"""`python -m tests.bench.history`: what 100,000 calls leave in Redis' memory, and in the database of the history.

The core decides, the state store writes its steps to a real Redis, callbacks are settled as delivered with the scripts
of the workers, and the writer of the history writes what waits into SQLite or PostgreSQL. Asterisk, the application and
S3 are left out: they keep nothing in Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from ari_conf.history import queries, writer
from ari_conf.history.database import HistoryDatabase
from ari_conf.observability import log_setup
from ari_conf.queues import callback_outcomes, history_inbox, outbox, partitioned_queue
from ari_conf.queues.partitioned_queue import PartitionedQueue
from ari_conf.server.step_builder import StepBuilder
from ari_conf.settings import Settings
from ari_conf.store import accounts
from ari_conf.store.state_store import StateStore, connect
from ari_conf.store.step_batch import MAX_STEPS
from tests.core.stage import Stage, stay
from tests.redis import RedisServer

ACCOUNTS = ("A1", "A2", "A3", "A4", "A5")
SIZE = 4
"""Calls of one conference."""
ROUND = 50
"""Conferences between two drains."""


@dataclass(frozen=True)
class Measured:
    calls: int
    redis_before: int
    """Bytes that Redis uses with the accounts alone."""
    redis_during: int
    """The most that was seen after a round, before its callbacks were delivered and its history was written."""
    redis_after: int
    database_bytes: int
    rows: Mapping[str, int]
    seconds: float
    written_per_s: float
    """Entries of the history per second that one worker's thread writes."""


class Run:
    def __init__(self, server: RedisServer, database: HistoryDatabase) -> None:
        self.redis: Redis = server.client
        self.database = database
        self.stage = Stage(hangup_url="http://127.0.0.1/hangup")
        self.stage.now = time.time_ns() // 1_000_000
        self.store_client = connect(server.url)
        self.store = StateStore(self.store_client, "pbx", 200)
        self.builder = StepBuilder(self.stage.engine, Settings(asterisk_name="pbx"), lambda _reply: lambda _pipe: None)
        self.queue = PartitionedQueue(self.redis)
        self.claims = 0
        self.entries, self.writing_s = 0, 0.0

    async def round(self, first: int) -> int:
        """Make ROUND conferences; return the number of bytes that Redis uses after them."""
        for number in range(first, first + ROUND):
            auth_id, names = ACCOUNTS[number % len(ACCOUNTS)], [f"c{number}-{n}" for n in range(SIZE)]
            for name in names:
                self.stage.call(name, stay(f"room{number}"), auth=auth_id)
                self.stage.now += 1_000
            self.stage.now += 60_000
            self.stage.hang_up(*names)
            await self._write()
        used = memory(self.redis)
        self._deliver()
        self._drain()
        return used

    async def _write(self) -> None:
        effects, self.stage.effects = self.stage.effects, []
        self.stage.events.clear()
        self.stage.documents.clear()
        self.stage.engine.registry.ended_calls.clear()
        batch = self.store.batch()
        for first in range(0, len(effects), MAX_STEPS):
            step, _ = self.builder.build(effects[first : first + MAX_STEPS], self.stage.now)
            batch.add(step)
        batch.close()
        await self.store.send(batch)

    def _deliver(self) -> None:
        while True:
            self.claims += 1
            claimed = self.queue.claim("bench-1-a", 8, self.claims)
            if claimed is None:
                return
            entry = outbox.decode(claimed.entry)
            now_ms = self.stage.now
            done = outbox.CallbackEntry(
                entry.auth_id, entry.url, entry.method, entry.params, entry.at_ms, (outbox.Attempt(now_ms, 12, 200),)
            )
            outcome = callback_outcomes.history_entry(claimed.partition, done, "delivered", now_ms)
            self.queue.settle("bench-1-a", 8, partitioned_queue.ack(claimed, history=outcome))

    def _drain(self) -> None:
        began = time.perf_counter()
        for auth_id in ACCOUNTS:
            while entries := history_inbox.oldest(self.redis, auth_id):
                written = writer.write(self.database, entries)
                assert not written.unreadable, written.unreadable[0]
                history_inbox.remove(self.redis, auth_id, entries, ())
                self.entries += len(entries)
        self.writing_s += time.perf_counter() - began


def memory(redis: Redis) -> int:
    # Memory that was freed is returned lazily.
    redis.execute_command("MEMORY", "PURGE")
    return int(redis.info("memory")["used_memory"])


async def measure(calls: int, url: str, folder: Path) -> Measured:
    server = RedisServer(folder)
    server.start("--appendonly", "no")
    database = HistoryDatabase(Settings(database_url=url))  # type: ignore[arg-type]
    try:
        database.migrate()
        for auth_id in ACCOUNTS:
            accounts.add(server.client, 1, auth_id, hangup_url="http://127.0.0.1/hangup")
        run, began = Run(server, database), time.perf_counter()
        await run.round(-ROUND)  # scripts and connections exist
        before, during = memory(server.client), 0
        for first in range(0, calls // SIZE, ROUND):
            during = max(during, await run.round(first))
            done = (first + ROUND) * SIZE
            if done % 10_000 < ROUND * SIZE:
                print(f"{done} calls, Redis {memory(server.client) / 2**20:.2f} MB", flush=True)
        # Entries of the queue whose inbox is empty stay until a worker settles them: one for each account.
        after = memory(server.client)
        with database.read() as connection:
            found = [queries.count_all(connection, auth_id) for auth_id in ACCOUNTS]
        rows = {name: sum(one[name] for one in found) for name in found[0]}
        await run.store_client.aclose()
        seconds = time.perf_counter() - began
        size = _size_of(database)
        return Measured(calls, before, during, after, size, rows, seconds, run.entries / run.writing_s)
    finally:
        database.close()
        server.kill()


def _size_of(database: HistoryDatabase) -> int:
    if database.is_sqlite:
        file = Path(database.engine.url.database or "")
        return sum(one.stat().st_size for one in file.parent.glob(f"{file.name}*"))
    with database.engine.connect() as connection:
        found: Any = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
        return int(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.history", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--database", help="URL; default: SQLite in a temporary folder")
    given = parser.parse_args()
    log_setup.configure_logging(Settings(log_level="warning"))
    with tempfile.TemporaryDirectory() as folder:
        url = given.database or f"sqlite:///{folder}/history.db"
        found = asyncio.run(measure(given.calls, url, Path(folder)))
    mb = 2**20
    print(f"calls                                  {found.calls:,}")
    print(f"Redis before                           {found.redis_before / mb:.2f} MB")
    print(f"Redis, most, before a round's drain    {found.redis_during / mb:.2f} MB")
    print(f"Redis after                            {found.redis_after / mb:.2f} MB")
    print(f"database                               {found.database_bytes / mb:.1f} MB")
    print(f"database, per call                     {found.database_bytes / found.calls:,.0f} bytes")
    print(f"rows                                   {dict(found.rows)}")
    print(f"entries written per second             {found.written_per_s:,.0f}")
    print(f"took                                   {found.seconds:.0f} s")


if __name__ == "__main__":
    main()
