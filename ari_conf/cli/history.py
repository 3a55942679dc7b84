"""Commands `ari-conf history …`: the database of what has ended."""

from __future__ import annotations

from typing import Annotated

import typer

from ari_conf.cli.terminal import format_duration, print_table, redis, say
from ari_conf.errors import HistoryUnavailable
from ari_conf.history.database import HistoryDatabase, head_revision
from ari_conf.queues import history_inbox
from ari_conf.settings import settings
from ari_conf.store import accounts

app = typer.Typer(no_args_is_help=True, help="The history of ended calls and conferences: its database.")


@app.command()
def migrate() -> None:
    """Bring the tables of the database up to date, or create them. Workers do the same before they first write."""
    database = HistoryDatabase(settings())
    try:
        done = database.migrate()
        say(f"{database.shown_url}: {'migrated to' if done else 'up to date,'} revision {database.revision()}.")
    finally:
        database.close()


@app.command()
def check() -> None:
    """Show the state of the database, and what waits for it. Exit code 1: it can't be used now."""
    database = HistoryDatabase(settings())
    try:
        revision, usable = database.revision(), database.is_migrated()
    finally:
        database.close()
    with redis() as client:
        found = history_inbox.backlog(client)
    rows = [
        ("database", database.shown_url),
        ("revision", f"{revision or 'none'}; this release's: {head_revision()}"),
        ("waiting", f"{found.entries}, the oldest for {format_duration(found.oldest_ms)}"),
        ("written", found.written),
        ("failed attempts", found.failures),
        ("dropped", found.dropped),
        ("unreadable", found.unreadable),
    ]
    print_table(("", ""), rows, "")
    if not usable:
        raise HistoryUnavailable("the tables are not up to date: start a worker, or run `ari-conf history migrate`")


@app.command()
def retry(
    auth_id: Annotated[str | None, typer.Argument(metavar="[ACCOUNT]", help="Default: all accounts.")] = None,
) -> None:
    """Write entries again that could not be written, such as those of a newer release before the upgrade."""
    with redis() as client:
        sent = sum(history_inbox.retry(client, one) for one in ([auth_id] if auth_id else accounts.ids(client)))
    say(f"{sent} entr{'y' if sent == 1 else 'ies'} will be written again.")
