"""URLs of the history's database: a file of SQLite, or PostgreSQL.

They are checked without SQLAlchemy, which `ari-conf serve` does not need.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")
SQLITE = "sqlite"


def check(url: str) -> None:
    """Raises ValueError if the URL can't be used; its text has no part of a password."""
    scheme = url.partition(":")[0]
    if scheme == SQLITE:
        sqlite_file(url)
        return
    if scheme not in POSTGRESQL:
        raise ValueError("must be sqlite:////PATH or postgresql://USER:PASSWORD@HOST/DATABASE")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE; is a % or / unquoted?") from None
    if not parts.path.strip("/"):
        raise ValueError("must name a database: postgresql://USER:PASSWORD@HOST/DATABASE")


def is_sqlite(url: str) -> bool:
    return url.partition(":")[0] == SQLITE


def sqlite_file(url: str) -> PurePosixPath:
    """Return the file of a URL of SQLite. Raises ValueError."""
    rest = url.removeprefix(f"{SQLITE}:///")
    path = PurePosixPath(unquote(rest.partition("?")[0]))
    if rest == url or not path.is_absolute():
        raise ValueError("must name a file with its whole path, after three slashes: sqlite:////var/lib/x/history.db")
    if "?" in rest:
        raise ValueError("must have nothing after the path")
    return path
