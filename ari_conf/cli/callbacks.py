"""Commands `ari-conf problems`, `lanes` and `dead-letters …`."""

from __future__ import annotations

from typing import Annotated

import typer
from redis import Redis

from ari_conf.cli.accounts import AuthId
from ari_conf.cli.terminal import console, format_duration, format_time, print_table, redis, say
from ari_conf.core.elements import without_login
from ari_conf.errors import AccountError, AriConfError
from ari_conf.queues import dead_letters, outbox
from ari_conf.store import accounts
from ari_conf.store.problems import read_problems

app = typer.Typer(no_args_is_help=True, help="List, show and resend callbacks that could not be delivered.")

Limit = Annotated[int, typer.Option(min=1, help="Maximum number; the newest are listed.")]


def _require_account(client: Redis, auth_id: str) -> None:
    """Raise AccountError if the account does not exist. Callers check data first: a removed account may have some."""
    if accounts.get(client, auth_id) is None:
        raise AccountError(f"account {auth_id} does not exist")


class DeadLetterNotFound(AriConfError):
    pass


def problems(auth_id: AuthId, limit: Limit = 50) -> None:
    """List the problems of an account's calls: invalid documents, URLs that did not respond, missing sounds."""
    with redis() as client:
        found = read_problems(client, auth_id, limit)
        if not found:
            _require_account(client, auth_id)
    rows = [(format_time(p.at_ms), p.kind, p.code or "", p.call_uuid, p.text) for p in found]
    print_table(("when", "kind", "code", "call", "problem"), rows, f"Account {auth_id} has no problems.")


def lanes(limit: Annotated[int, typer.Option(min=1, help="Maximum number.")] = 50) -> None:
    """List undelivered callbacks by lane. A lane has the callbacks of one conference and URL, and is sent in order."""
    with redis() as client:
        totals, found = outbox.totals(client), outbox.list_partitions(client, limit)
    if console.is_terminal:
        say(
            f"{totals.waiting} callbacks wait in {totals.partitions} lanes; {totals.workers} workers with "
            f"{totals.threads} threads. In total: {totals.delivered} delivered, {totals.retried} retried, "
            f"{totals.dead} given up."
        )
    rows = [
        (lane.auth_id, _state(lane), lane.depth, format_duration(lane.oldest_ms), without_login(lane.url))
        for lane in found
    ]
    print_table(("account", "state", "waiting", "oldest", "URL"), rows, "No callback is waiting.")


@app.command("list")
def list_(auth_id: AuthId, limit: Limit = 50) -> None:
    """List the dead letters of an account, the newest first."""
    with redis() as client:
        found = dead_letters.list_newest(client, auth_id, limit)
        if not found:
            _require_account(client, auth_id)
    rows = [
        (letter.id, format_time(letter.died_ms), len(letter.entry.attempts), without_login(letter.entry.url))
        for letter in found
    ]
    print_table(("id", "given up", "attempts", "URL"), rows, f"Account {auth_id} has no dead letters.")


@app.command()
def show(auth_id: AuthId, id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Show a dead letter with its parameters and attempts."""
    with redis() as client:
        letter = dead_letters.get(client, auth_id, id)
    if letter is None:
        raise DeadLetterNotFound(
            f"account {auth_id} has no dead letter {id}: see `ari-conf dead-letters list {auth_id}`"
        )
    entry = letter.entry
    rows: list[tuple[str, object]] = [
        ("request", f"{entry.method} {without_login(entry.url)}"),
        ("created", format_time(entry.at_ms)),
    ]
    if entry.reason:
        rows.append(("reason", entry.reason))
    rows += [(format_time(t.at_ms), f"{t.status or t.error}, after {format_duration(t.ms)}") for t in entry.attempts]
    rows += [(name, "(not shown)" if "digits" in name.lower() else value) for name, value in entry.params]
    print_table(("", ""), rows, "")


@app.command()
def resend(
    auth_id: AuthId,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="IDs to resend. Default: all.")] = None,
) -> None:
    """Return dead letters to their lanes, to be delivered like new callbacks."""
    with redis() as client:
        sent = dead_letters.resend(client, auth_id, ids) if ids else dead_letters.resend_all(client, auth_id)
    say(f"{sent} callback{'' if sent == 1 else 's'} will be resent.")


def _state(lane: outbox.PartitionStatus) -> str:
    if lane.state == "waiting":
        return f"retried in {format_duration(lane.due_in_ms)}"
    return "being sent" if lane.state == "leased" else "ready"
