"""Tools of operators: the doctor's checks, the commands, and retention by account."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from typer.testing import CliRunner

from ari_conf import doctor
from ari_conf import settings as settings_module
from ari_conf.cli.main import app
from ari_conf.errors import HistoryUnavailable
from ari_conf.history import queries, writer
from ari_conf.history.database import HistoryDatabase
from ari_conf.queues import history_inbox
from ari_conf.settings import Settings, from_environment
from ari_conf.store import accounts
from ari_conf.store.accounts import DAY_MS
from tasks.history_retention import LOCK_KEY, HistoryRetention
from tests.history.drain import drain
from tests.history.samples import call, callback, conference, everything, problem, recording, texts
from tests.postgresql import PROGRAMS, PostgresServer
from tests.redis import RedisServer

LEASED = 4_000_000_000_000
"""End of a worker's lease, far in the future."""
HERE = socket.gethostname()


@pytest.fixture
def redis(redis_server: RedisServer) -> Redis:
    for auth_id in ("A", "B"):
        accounts.add(redis_server.client, 1, auth_id)
    return redis_server.client


@pytest.fixture
def settings(redis_server: RedisServer, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    variables = {"ARI_CONF_REDIS_URL": redis_server.url, "ARI_CONF_DATABASE_URL": url}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings_module.settings.cache_clear()
    yield from_environment(variables)
    settings_module.settings.cache_clear()


def run(*words: str) -> str:
    result = CliRunner().invoke(app, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def finding(settings: Settings, part: str) -> tuple[str, str]:
    found = doctor.run_check(part, settings)
    return found.state, found.text


def worker(redis: Redis, name: str = f"{HERE}-12-ab") -> None:
    redis.zadd("ari_conf:history:workers", {name: LEASED})
    redis.hset("ari_conf:history:threads", name, 1)


def test_the_doctor_checks_the_database(settings: Settings, redis: Redis):
    state, text = finding(settings, "history database")
    if settings.database_url.get_secret_value().startswith("sqlite"):
        assert (state, "does not exist yet" in text) == ("warning", True)
    else:
        assert (state, "has no tables yet" in text, "ari-conf history migrate" in text) == ("warning", True, True)
    assert "migrated to revision 0001" in " ".join(run("history", "migrate").split())
    assert "up to date, revision 0001" in " ".join(run("history", "migrate").split())
    state, text = finding(settings, "history database")
    assert state == "ok" and text.endswith("revision 0001") and "tests" not in text.split("revision")[0].split("@")[0]


def test_the_doctor_warns_of_files_on_several_machines(tmp_path: Path, redis_server: RedisServer, redis: Redis):
    given = {"ARI_CONF_REDIS_URL": redis_server.url, "ARI_CONF_DATABASE_URL": f"sqlite:///{tmp_path}/history.db"}
    settings = from_environment(given)
    database = HistoryDatabase(settings)
    database.migrate()
    for host in (HERE, "container", "elsewhere", "gone"):
        history_inbox.report_file(redis, host, database.file_id if host != "elsewhere" else "1")
    worker(redis)
    worker(redis, "container-7-ab")
    assert finding(settings, "history database")[0] == "ok", "containers of one machine share the file"
    worker(redis, "elsewhere-7-ab")
    state, text = finding(settings, "history database")
    assert state == "warning" and "workers run on elsewhere:" in text and "postgresql://" in text
    history_inbox.report_file(redis, "elsewhere", "")
    assert finding(settings, "history database")[0] == "ok"
    database.close()


def test_the_doctor_says_that_the_database_is_away(redis_server: RedisServer, redis: Redis):
    given = {
        "ARI_CONF_REDIS_URL": redis_server.url,
        "ARI_CONF_DATABASE_URL": "postgresql://ari_conf:hush@127.0.0.1:1/history",
    }
    state, text = finding(from_environment(given), "history database")
    assert state == "failure" and "ARI_CONF_DATABASE_URL" in text and "hush" not in text


def test_the_doctor_checks_the_workers(settings: Settings, redis: Redis):
    assert finding(settings, "history workers")[0] == "warning"
    old = int(time.time() * 1000) - 400_000
    history_inbox.add(redis, "A", texts(call())[0].replace(b'"at_ms":1790000000000', b'"at_ms":%d' % old, 1))
    state, text = finding(settings, "history workers")
    assert state == "failure" and "no worker writes the history now" in text
    worker(redis)
    state, text = finding(settings, "history workers")
    assert state == "warning" and text.startswith("1; 1 entries wait, the oldest for 4")
    redis.delete(history_inbox.key("A"))
    assert finding(settings, "history workers") == ("ok", "1; 0 entries wait")
    for field, word in (("dropped", "dropped"), ("unreadable", "could not be written")):
        redis.hset("ari_conf:history:counts", field, 3)
        state, text = finding(settings, "history workers")
        assert state == "warning" and f"3 {'were ' if field == 'dropped' else ''}{word}" in text
        redis.hdel("ari_conf:history:counts", field)


def test_the_check_shows_what_waits(settings: Settings, redis: Redis):
    for text in texts(*everything()):
        history_inbox.add(redis, "A", text)
    with pytest.raises(HistoryUnavailable, match="not up to date"):
        run("history", "check")
    run("history", "migrate")
    lines = dict(line.split("\t", 1) for line in run("history", "check").splitlines())
    assert lines["waiting"].startswith("7, the oldest for ") and lines["written"] == "0"
    assert lines["revision"] == "0001; this release's: 0001"
    redis.lpush(history_inbox.UNREADABLE + "A", texts(call(9))[0])
    assert "1 entry will be written again" in run("history", "retry")
    assert redis.llen(history_inbox.key("A")) == 8 and "0 entries" in run("history", "retry", "B")


def test_a_file_that_root_makes_belongs_to_the_owner_of_its_folder(tmp_path: Path):
    folder = tmp_path / "state"
    folder.mkdir()
    if os.geteuid():
        pytest.skip("not root")
    os.chown(folder, 65534, 65534)
    database = HistoryDatabase(Settings(database_url=f"sqlite:///{folder}/history.db"))  # type: ignore[arg-type]
    database.migrate()
    found = (folder / "history.db").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65534, 0o600)
    database.close()


# Retention.


@pytest.fixture
def retention(
    redis: Redis, database: HistoryDatabase, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., HistoryRetention]:
    def make(**values: Any) -> HistoryRetention:
        monkeypatch.setattr("tasks.history_retention.settings", lambda: Settings(**values))
        return HistoryRetention(redis, database)

    return make


def test_each_account_keeps_its_days(
    redis: Redis, database: HistoryDatabase, retention: Callable[..., HistoryRetention]
):
    accounts.change(redis, "A", {"history_days": 30})
    now_ms = int(time.time() * 1000)
    old, young = now_ms - 31 * DAY_MS, now_ms - 29 * DAY_MS
    for auth_id in ("A", "B"):
        items = [
            item
            for ended, age in ((old, "old"), (young, "young"))
            for item in (
                call(auth_id=auth_id, call_uuid=f"{auth_id} {age}", ended_ms=ended),
                conference(auth_id=auth_id, conference_id=f"{auth_id} {age}", ended_ms=ended),
                callback(auth_id=auth_id, callback_id=f"{auth_id} {age}", outcome="dead", settled_ms=ended),
                problem(auth_id=auth_id, at_ms=ended, text=age),
                recording(auth_id=auth_id, recording_id=f"{auth_id} {age}", start_ms=old),
            )
        ]
        for text in texts(*items):
            history_inbox.add(redis, auth_id, text)
        drain(redis, database, auth_id)
    retention().delete_expired()
    with database.read() as connection:
        kept = {auth_id: dict(queries.count_all(connection, auth_id)) for auth_id in ("A", "B")}
    assert set(kept["B"].values()) == {2}
    assert kept["A"] == {"calls": 1, "conferences": 1, "recordings": 2, "callbacks": 1, "problems": 1}
    assert redis.hget(history_inbox.WRITTEN_KEY, "A") == b"6", "recordings have days of their own"
    assert not redis.exists(LOCK_KEY)


def test_delivered_callbacks_are_kept_for_days_of_their_own(
    redis: Redis, database: HistoryDatabase, retention: Callable[..., HistoryRetention]
):
    now_ms = int(time.time() * 1000)
    writer.write(
        database,
        texts(
            callback(1, settled_ms=now_ms - 8 * DAY_MS),
            callback(2, settled_ms=now_ms - 6 * DAY_MS),
            callback(3, settled_ms=now_ms - 8 * DAY_MS, outcome="dead"),
        ),
    )

    def kept() -> list[str]:
        with database.read() as connection:
            return sorted(row.callback_id for row in queries.list_callbacks(connection, "A").rows)

    retention().delete_expired()
    assert kept() == ["callback2", "callback3"]
    retention(delivered_callbacks_days=5).delete_expired()
    assert kept() == ["callback3"]


def test_one_worker_at_a_time_deletes(redis: Redis, retention: Callable[..., HistoryRetention]):
    redis.set(LOCK_KEY, "another", ex=60)
    retention().delete_expired()
    assert redis.get(LOCK_KEY) == b"another"


# Backup and restore, as docs/operations/history.md says.

PAGE = (Path(__file__).parents[2] / "docs/operations/history.md").read_text()


def test_a_backup_of_a_file_in_use_has_all_that_was_written(tmp_path: Path):
    file, backup = tmp_path / "history.db", tmp_path / "backup.db"
    used = HistoryDatabase(from_environment({"ARI_CONF_DATABASE_URL": f"sqlite:///{file}"}))
    used.migrate()
    with used.read():  # a reader keeps what was written out of the file itself
        writer.write(used, texts(*everything()))
    command = f"sqlite3 /var/lib/ari_conf/{file.name} \".backup '/backup/history.db'\""
    assert command in PAGE
    command = command.replace("/var/lib/ari_conf", str(tmp_path)).replace("/backup/history.db", str(backup))
    subprocess.run(command, shell=True, check=True)
    writer.write(used, texts(call(99)))
    before = _counted(used)
    used.close()
    # The restore: the copy in its place, and the two other files deleted.
    for name in ("history.db", "history.db-wal", "history.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    backup.rename(file)
    restored = HistoryDatabase(from_environment({"ARI_CONF_DATABASE_URL": f"sqlite:///{file}"}))
    assert not restored.migrate() and _counted(restored) == before | {"calls": before["calls"] - 1}
    # Redis still has, or repeats, what is newer and what is in the backup already: each counts once.
    writer.write(restored, texts(*everything(), call(99)))
    assert _counted(restored) == before
    restored.close()


@pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not installed")
def test_a_backup_of_postgresql_is_restored(postgres: PostgresServer, tmp_path: Path):
    assert "pg_dump --format=custom ari_conf` and `pg_restore`" in PAGE
    used, restored = (
        HistoryDatabase(from_environment({"ARI_CONF_DATABASE_URL": postgres.new_database(name)}))
        for name in ("backedup", "restored")
    )
    used.migrate()
    writer.write(used, texts(*everything()))
    before, dump = _counted(used), str(tmp_path / "dump")
    subprocess.run([PROGRAMS[-1] / "pg_dump", "--format=custom", "--file", dump, postgres.url("backedup")], check=True)
    restore = [PROGRAMS[-1] / "pg_restore", "--exit-on-error", "--dbname", postgres.url("restored"), dump]
    subprocess.run(restore, check=True)
    assert not restored.migrate() and _counted(restored) == before and before["calls"]
    for one in (used, restored):
        one.close()


def _counted(database: HistoryDatabase) -> dict[str, int]:
    with database.read() as connection:
        return dict(queries.count_all(connection, "A"))
