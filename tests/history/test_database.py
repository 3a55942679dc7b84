"""The database itself: migrations, by one and by several processes, from nothing and from older tables; failures."""

from __future__ import annotations

import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from pydantic import ValidationError
from sqlalchemy import text

from ari_conf.errors import HistoryUnavailable
from ari_conf.history import database as databases
from ari_conf.history import queries, tables, writer
from ari_conf.history.database import HistoryDatabase, head_revision
from ari_conf.settings import Settings
from tests.history.conftest import open_database
from tests.history.samples import call, texts


def test_the_migrations_make_the_tables_of_the_code(database: HistoryDatabase):
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
    assert database.revision() == head_revision() and database.is_migrated()
    assert not database.migrate(), "there is nothing left to do"


def test_without_tables_everything_says_what_to_do(url: str):
    opened = open_database(url)
    assert opened.revision() is None and not opened.is_migrated()
    for use in (opened.read, opened.write):
        with pytest.raises(HistoryUnavailable, match="ari-conf history migrate"), use():
            pass
    with pytest.raises(HistoryUnavailable):
        writer.write(opened, texts(call()))
    assert opened.migrate()
    assert writer.write(opened, texts(call())).rows == 1, "the same object works after the migration"
    opened.close()


def test_of_several_processes_that_migrate_at_once_one_does_it(url: str):
    opened = [open_database(url) for _ in range(5)]
    done, barrier = list[Any](), threading.Barrier(len(opened))

    def migrate(one: HistoryDatabase) -> None:
        barrier.wait()
        try:
            done.append(one.migrate())
        except Exception as error:
            done.append(error)

    threads = [threading.Thread(target=migrate, args=(one,)) for one in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, done)) == ["False"] * 4 + ["True"]
    for one in opened:
        assert one.is_migrated()
        one.close()


def test_tables_of_a_newer_release_are_used_as_they_are(database: HistoryDatabase):
    with database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE calls ADD COLUMN colour VARCHAR"))
        connection.execute(text("UPDATE alembic_version SET version_num = 'of the future'"))
    older = open_database(_url_of(database))
    assert older.is_migrated() and not older.migrate()
    assert writer.write(older, texts(call())).rows == 1
    assert older.revision() == "of the future"
    older.close()


def test_older_tables_are_migrated_with_what_is_in_them(
    database: HistoryDatabase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """A second revision, as the next release may have it, over the tables of the first one."""
    writer.write(database, texts(call()))
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    here = Path(databases.__file__).parent / "migrations"
    for name in ("env.py", "versions/0001_first.py"):
        (folder / name).write_text((here / name).read_text())
    (folder / "versions" / "0002_second.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        'revision, down_revision, branch_labels, depends_on = "0002", "0001", None, None\n'
        'def upgrade():\n    op.add_column("calls", sa.Column("colour", sa.String(), server_default="red"))\n'
    )
    monkeypatch.setattr(databases, "MIGRATIONS", folder)
    for cached in (databases.head_revision, databases._is_known):
        cached.cache_clear()
    try:
        newer = open_database(_url_of(database))
        assert not newer.is_migrated() and newer.migrate()
        with newer.engine.connect() as connection:
            assert connection.execute(text("SELECT call_uuid, colour FROM calls")).all() == [("call1", "red")]
        newer.close()
    finally:
        monkeypatch.undo()
        for cached in (databases.head_revision, databases._is_known):
            cached.cache_clear()
    # A process of the first release continues to write.
    assert writer.write(database, texts(call(2))).rows == 1


def test_a_migration_that_fails_changes_nothing(url: str, monkeypatch: pytest.MonkeyPatch):
    opened = open_database(url)

    def fail(*_: Any) -> None:
        raise databases.CommandError("no")

    with monkeypatch.context() as patched:
        patched.setattr(databases.command, "upgrade", fail)
        with pytest.raises(HistoryUnavailable, match="could not be migrated"):
            opened.migrate()
    assert opened.revision() is None
    assert opened.migrate()
    opened.close()


def test_the_file_is_for_its_owner_alone(tmp_path: Path):
    opened = open_database(f"sqlite:///{tmp_path}/new/history.db")
    opened.migrate()
    writer.write(opened, texts(call()))
    for file in (tmp_path / "new").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    opened.close()


def test_a_folder_that_can_not_be_made(tmp_path: Path):
    (tmp_path / "file").touch()
    opened = open_database(f"sqlite:///{tmp_path}/file/history.db")
    with pytest.raises(HistoryUnavailable, match="ARI_CONF_DATABASE_URL"):
        opened.migrate()


def test_a_server_that_is_away_is_named_without_its_password():
    opened = open_database("postgresql://ari_conf:very-secret@127.0.0.1:1/history")
    with pytest.raises(HistoryUnavailable) as raised:
        opened.migrate()
    assert "very-secret" not in str(raised.value) and "127.0.0.1:1/history" in str(raised.value)
    assert "very-secret" not in opened.shown_url


@pytest.mark.parametrize(
    "given",
    [
        "sqlite:///relative.db", "sqlite://", "sqlite:////x/y.db?mode=ro", "mysql://u:hush@h/d", "history.db", "",
        "postgresql://u:hush@h", "postgresql://u:hush@h:port/d",
    ],
)  # fmt: skip
def test_urls_that_can_not_be_used_are_refused_without_their_password(given: str):
    with pytest.raises(ValidationError) as raised:
        Settings(database_url=given)  # type: ignore[arg-type]
    assert "hush" not in "".join(str(error["msg"]) for error in raised.value.errors())


def test_readers_do_not_wait_for_the_writer(database: HistoryDatabase):
    writer.write(database, texts(call()))
    with database.write() as writing:
        writing.execute(tables.calls.update().values(caller_name="other"))
        with database.read() as reading:
            found = queries.get_call(reading, "A", "call1")
    assert found is not None and found.caller_name == "Ann"


def _url_of(database: HistoryDatabase) -> str:
    url = database.engine.url.render_as_string(hide_password=False)
    return url.replace("+pysqlite", "").replace("+psycopg", "")
