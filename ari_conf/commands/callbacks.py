"""What became of what was sent: `ari-conf problems`, `lanes` and `dead-letters …`."""

from __future__ import annotations

from typing import Annotated

import typer
from redis import Redis

from ari_conf import accounts, dead_letters, outbox
from ari_conf.commands.accounts import AuthId
from ari_conf.commands.terminal import console, duration, moment, print_table, redis, say
from ari_conf.core.elements import without_login
from ari_conf.errors import AccountRefused, AriConfError
from ari_conf.problems import read_problems

app = typer.Typer(no_args_is_help=True, help="Callbacks that could not be delivered: see them, send them again.")

Limit = Annotated[int, typer.Option(min=1, help="How many at most, the newest.")]


def _known(client: Redis, auth_id: str) -> None:
    """Raises AccountRefused. What is left of an account that was removed can still be seen."""
    if accounts.get(client, auth_id) is None:
        raise AccountRefused(f"there is no account {auth_id}")


class NoSuchLetter(AriConfError):
    pass


def problems(auth_id: AuthId, limit: Limit = 50) -> None:
    """What went wrong with an account's calls: invalid documents, URLs that did not answer, missing sounds."""
    with redis() as client:
        found = read_problems(client, auth_id, limit)
        if not found:
            _known(client, auth_id)
    rows = [(moment(p.at_ms), p.code or "", p.call_uuid, p.text) for p in found]
    print_table(("when", "code", "call", "problem"), rows, f"The account {auth_id} has no problems.")


def lanes(limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50) -> None:
    """The callbacks that wait: a lane for each conference and URL, in which each waits for the one before it."""
    with redis() as client:
        totals, found = outbox.totals(client), outbox.overview(client, limit)
    if console.is_terminal:
        say(
            f"{totals.waiting} callbacks wait in {totals.lanes} lanes; {totals.workers} workers with {totals.threads} "
            f"threads. Since ever: {totals.delivered} delivered, {totals.retried} tried again, {totals.dead} given up."
        )
    rows = [
        (lane.auth_id, _state(lane), lane.depth, duration(lane.oldest_ms), without_login(lane.url)) for lane in found
    ]
    print_table(("account", "state", "waiting", "oldest", "URL"), rows, "No callback waits.")


@app.command("list")
def list_(auth_id: AuthId, limit: Limit = 50) -> None:
    """An account's dead letters, the newest first."""
    with redis() as client:
        found = dead_letters.listed(client, auth_id, limit)
        if not found:
            _known(client, auth_id)
    rows = [
        (letter.id, moment(letter.died_ms), len(letter.entry.tries), without_login(letter.entry.url))
        for letter in found
    ]
    print_table(("id", "given up", "tries", "URL"), rows, f"The account {auth_id} has no dead letters.")


@app.command()
def show(auth_id: AuthId, id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """One of them: its parameters and every try."""
    with redis() as client:
        letter = dead_letters.show(client, auth_id, id)
    if letter is None:
        raise NoSuchLetter(f"the account {auth_id} has no dead letter {id}; `ari-conf dead-letters list {auth_id}`")
    entry = letter.entry
    rows: list[tuple[str, object]] = [
        ("request", f"{entry.method} {without_login(entry.url)}"),
        ("made", moment(entry.at_ms)),
    ]
    if entry.reason:
        rows.append(("reason", entry.reason))
    rows += [(moment(t.at_ms), f"{t.status or t.error}, after {duration(t.ms)}") for t in entry.tries]
    rows += [(name, "(not shown)" if "digits" in name.lower() else value) for name, value in entry.params]
    print_table(("", ""), rows, "")


@app.command()
def resend(
    auth_id: AuthId,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Which; all if none is given.")] = None,
) -> None:
    """Puts them back into their lanes, to be tried as if they were new."""
    with redis() as client:
        sent = dead_letters.resend(client, auth_id, ids or None)
    say(f"{sent} callback{'' if sent == 1 else 's'} will be sent again.")


def _state(lane: outbox.Lane) -> str:
    if lane.state == "waiting":
        return f"tried again in {duration(lane.due_in_ms)}"
    return "being sent" if lane.state == "leased" else "ready"
