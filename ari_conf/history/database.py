"""Database of the history: SQLite in a file, or PostgreSQL.

All methods block. What makes the database unreachable raises HistoryUnavailable, whose text says what to do; nothing
else of the system waits for it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.exc import TimeoutError as NoFreeConnection

from ari_conf.common import database_url
from ari_conf.errors import HistoryRefused, HistoryUnavailable
from ari_conf.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"
CONNECT_S = 3
"""Seconds for a connection to PostgreSQL."""
STATEMENT_S = 20
"""Seconds after which PostgreSQL ends a statement, and for which SQLite waits for another process's transaction."""
NETWORK_S = 10
"""Seconds after which a connection on which PostgreSQL acknowledges nothing counts as lost."""
MIGRATION_LOCK = 0x6172695F636F6E66
"""Key of PostgreSQL's advisory lock: one process migrates at a time."""
CONNECTIONS = 8
"""Maximum connections of a process; a thread waits STATEMENT_S for one."""


class HistoryDatabase:
    def __init__(self, settings: Settings) -> None:
        self._url = parse_url(settings.database_url.get_secret_value())
        self.engine = _engine(self._url)
        self._is_ready = False

    @property
    def shown_url(self) -> str:
        """Return the URL without its password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @property
    def file_exists(self) -> bool:
        """Return whether the file of SQLite exists."""
        return Path(self._url.database or "").exists()

    @property
    def file_id(self) -> str:
        """Return what tells SQLite's file from those of other machines; "" without a file."""
        if not self.is_sqlite or not self.file_exists:
            return ""
        return str(Path(self._url.database or "").stat().st_ino)

    @property
    def is_ready(self) -> bool:
        """True once the tables were found to be up to date, until the database fails."""
        return self._is_ready

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction for queries. Raises HistoryUnavailable, also if the tables are not up to date."""
        with self._explained():
            self._check_ready()
            with self.engine.connect() as connection:
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that is committed at the end. Raises HistoryUnavailable; HistoryRefused if the database
        refuses the data itself, so that another attempt would not help."""
        with self._explained():
            self._check_ready()
            with self._transaction() as connection:
                yield connection

    def close(self) -> None:
        self.engine.dispose()

    # Migrations.

    def revision(self) -> str | None:
        """Return the revision of the tables; None: there are none. Raises HistoryUnavailable."""
        if self.is_sqlite:
            self._make_file()
        with self._explained(), self.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def is_migrated(self) -> bool:
        """Return whether this release can use the tables: they have its revision, or a newer release's.

        Raises HistoryUnavailable."""
        return _is_usable(self.revision())

    def migrate(self) -> bool:
        """Bring the tables up to date, unless another process has. Return whether anything was done.

        Safe while other processes use the database: see docs/operations/history.md. Raises HistoryUnavailable."""
        if self.is_migrated():
            return False
        with self._explained(), self._transaction() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            if _is_usable(MigrationContext.configure(connection).get_current_revision()):
                return False
            configuration = _alembic()
            configuration.attributes["connection"] = connection
            command.upgrade(configuration, "head")
        return True

    def _make_file(self) -> None:
        """Make the file of SQLite, which no other user may read: it has phone numbers."""
        file = Path(self._url.database or "")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
                if os.geteuid() == 0:  # a command of root's, before the services have made it
                    owner = file.parent.stat()
                    os.chown(file, owner.st_uid, owner.st_gid)
        except OSError as error:
            raise HistoryUnavailable(
                f"the file of the history database, {file}, can't be opened ({error.strerror}): make its folder "
                "writable, or change ARI_CONF_DATABASE_URL"
            ) from None

    def _check_ready(self) -> None:
        if self._is_ready:
            return
        if not self.is_migrated():
            raise HistoryUnavailable(
                "the tables of the history database are not up to date: start a worker, which brings them up to date, "
                "or run `ari-conf history migrate`"
            )
        self._is_ready = True

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self.engine.connect().execution_options(is_write=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except NoFreeConnection as error:
            raise HistoryUnavailable("all connections to the history database are in use") from error
        except StatementError as error:
            self._is_ready = False
            raise _explanation(error, self.shown_url) from error
        except OverflowError as error:  # a number that SQLite can't hold
            raise HistoryRefused(f"the history database refuses the data: {error}") from error
        except CommandError as error:
            raise HistoryUnavailable(f"the history database could not be migrated: {error}") from error


def parse_url(given: str) -> URL:
    """Return the URL with the driver of its database. Raises ValueError, whose text has no part of a password."""
    database_url.check(given)
    if database_url.is_sqlite(given):
        return URL.create("sqlite+pysqlite", database=str(database_url.sqlite_file(given)))
    try:
        return make_url(given).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError):
        raise ValueError("must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE; is a % or / unquoted?") from None


@lru_cache(maxsize=1)
def head_revision() -> str:
    """Return the newest revision that this release knows."""
    return str(ScriptDirectory.from_config(_alembic()).get_current_head())


def _is_usable(revision: str | None) -> bool:
    """Return whether this release can use tables of this revision: its own, or one of a newer release's."""
    return revision is not None and (revision == head_revision() or not _is_known(revision))


@lru_cache(maxsize=16)
def _is_known(revision: str) -> bool:
    """Return whether this release has the revision; otherwise a newer release has migrated the database."""
    try:
        return ScriptDirectory.from_config(_alembic()).get_revision(revision) is not None
    except CommandError:
        return False


def _alembic() -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return configuration


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url,
            connect_args={"timeout": STATEMENT_S, "check_same_thread": False},
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=STATEMENT_S,
        )
        folder = Path(url.database or "").parent
        event.listen(engine, "connect", lambda connection, _record: _set_up_sqlite(connection, folder))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        url,
        connect_args={
            "connect_timeout": CONNECT_S,
            "tcp_user_timeout": NETWORK_S * 1000,
            "keepalives_idle": NETWORK_S,
            "keepalives_interval": NETWORK_S // 3,
            "keepalives_count": 3,
            "application_name": "ari_conf",
            "options": f"-c statement_timeout={STATEMENT_S * 1000} -c idle_in_transaction_session_timeout=60000",
        },
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=STATEMENT_S,
        pool_pre_ping=True,
        pool_recycle=1800,
    )


def _set_up_sqlite(connection: sqlite3.Connection, folder: Path) -> None:
    # Transactions begin where `_begin_sqlite` says, and not where the driver guesses.
    connection.isolation_level = None
    # What is committed is on the disk: it is in Redis no more.
    connection.execute("PRAGMA synchronous=FULL").close()
    # Readers and the writer do not wait for each other. Of two connections that make a file a WAL file at once, SQLite
    # refuses one without waiting; each connection begins with this, so that nothing else has the file open before.
    with _lock(folder):
        connection.execute("PRAGMA journal_mode=WAL").close()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder: one holder at a time, in all processes. The kernel ends it with the process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes then could not wait for another writer.
    is_write = connection.get_execution_options().get("is_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def _explanation(error: StatementError, shown_url: str) -> HistoryUnavailable | HistoryRefused:
    reason = " ".join(str(error.orig).split())
    # Without an error of the database, a value could not even be sent.
    if isinstance(error, DataError | IntegrityError) or not isinstance(error, DBAPIError):
        return HistoryRefused(f"the history database refuses the data: {reason}")
    return HistoryUnavailable(f"the history database {shown_url} is not available: {reason}")
