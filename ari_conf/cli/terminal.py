"""Output to the terminal and connection to Redis, shared by all commands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from redis import Redis, RedisError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ari_conf.common import state_version
from ari_conf.common.redis_client import connect_in_threads, explain_to_user
from ari_conf.common.safe_text import visible
from ari_conf.errors import StoreUnavailable
from ari_conf.settings import settings

console = Console(highlight=False, markup=False)
"""Console without markup: the output quotes callers, documents and servers, which could contain markup. See `say`."""


def say(text: str, *, style: str = "", soft_wrap: bool = False) -> None:
    """Print a text with its control characters escaped, so that untrusted text can't control the terminal."""
    console.print(Text(visible(text, lines=True), style), soft_wrap=soft_wrap)


def say_with_head(head: str, text: str) -> None:
    """Print a line that starts with a bold head."""
    console.print(Text.assemble((head, "bold"), visible(text)), soft_wrap=True)


@contextmanager
def redis() -> Iterator[Redis]:
    """Yield a client for Redis.

    Raises StoreUnavailable if Redis is unreachable or refuses a command, and StateVersionRefused."""
    client = connect_in_threads(settings().redis_url.get_secret_value(), socket_timeout=5.0, socket_connect_timeout=5.0)
    try:
        state_version.check(client)
        yield client
    except (RedisError, OSError) as error:
        raise StoreUnavailable(explain_to_user(error)) from None
    finally:
        client.close()


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]], empty: str) -> None:
    """Print a table on a terminal; otherwise tab-separated lines without a header, for other programs."""
    found = [[visible(str(cell)) for cell in row] for row in rows]
    if not console.is_terminal:
        for row in found:
            print("\t".join(row))
        return
    if not found:
        say(empty)
        return
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in found:
        table.add_row(*map(Text, row))
    console.print(table)


def format_time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def format_duration(ms: int) -> str:
    seconds = ms / 1000
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
