"""`ari-conf account …`."""

from __future__ import annotations

from typing import Annotated

import typer
from redis import Redis

from ari_conf import accounts
from ari_conf.accounts import AccountRecord
from ari_conf.commands.terminal import console, moment, print_table, redis, say
from ari_conf.errors import AccountRefused

app = typer.Typer(no_args_is_help=True, help="Accounts: who may bring calls, where their documents come from.")

AuthId = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's Auth ID.")]
Url = Annotated[str | None, typer.Option(metavar="URL")]
Method = Annotated[str, typer.Option(metavar="GET|POST")]


@app.command()
def add(
    auth_id: Annotated[
        str | None,
        typer.Argument(metavar="[ACCOUNT]", help="Its Auth ID, 1 to 40 letters and digits; one is made if not given."),
    ] = None,
    answer_url: Url = None,
    answer_method: Method = "POST",
    fallback_url: Url = None,
    fallback_method: Method = "POST",
    hangup_url: Url = None,
    hangup_method: Method = "POST",
    transcription_rate: Annotated[str, typer.Option(metavar="PRICE", help="Of a minute.")] = "0",
    recording_auth: Annotated[
        str, typer.Option(metavar="none|basic", help="Whether RecordUrl asks for a login.")
    ] = "none",
) -> None:
    """Makes an account and shows its token: now, and never again."""
    fields = {
        "answer_url": answer_url,
        "answer_method": answer_method,
        "fallback_url": fallback_url,
        "fallback_method": fallback_method,
        "hangup_url": hangup_url,
        "hangup_method": hangup_method,
        "transcription_rate": transcription_rate,
        "recording_auth": recording_auth,
    }
    with redis() as client:
        record = accounts.add(client, _now_ms(client), auth_id, **fields)
    _print_token(record)


@app.command("list")
def list_() -> None:
    """All accounts."""
    with redis() as client:
        records = accounts.list_all(client)
    rows = [(record.auth_id, moment(record.created_ms), record.answer_url or "") for record in records]
    print_table(("account", "since", "answer URL"), rows, "There is no account; `ari-conf account add` makes one.")


@app.command()
def show(auth_id: AuthId) -> None:
    """All of an account but its token."""
    with redis() as client:
        record = accounts.get(client, auth_id)
    if record is None:
        raise AccountRefused(f"there is no account {auth_id}")
    rows = [("auth_id", record.auth_id), ("created", moment(record.created_ms))]
    rows += [(name, str(getattr(record, name) or "")) for name in accounts.SETTABLE]
    rows += [("an older token signs until", moment(old.until_ms)) for old in record.old_tokens]
    print_table(("", ""), rows, "")


@app.command()
def remove(auth_id: AuthId) -> None:
    """Removes an account. Its calls are refused from now on; callbacks that still wait become dead letters."""
    with redis() as client:
        accounts.remove(client, auth_id)
    say(f"The account {auth_id} is removed.")


@app.command("rotate-token")
def rotate_token(
    auth_id: AuthId,
    keep: Annotated[float, typer.Option(metavar="HOURS", min=0, help="For how long the old one signs as well.")] = 24.0,
) -> None:
    """Makes a new token. The old one goes on to sign beside it, so that receivers have time to change theirs."""
    with redis() as client:
        record = accounts.rotate_token(client, auth_id, keep_ms=int(keep * 3_600_000))
    _print_token(record)


def _print_token(record: AccountRecord) -> None:
    print_table(("", ""), [("auth_id", record.auth_id), ("auth_token", record.token)], "")
    if console.is_terminal:
        say("The token is shown only now. It signs every request that is sent to your program.", style="dim")


def _now_ms(client: Redis) -> int:
    """By Redis' clock: this machine's may differ from those that will look when an old token ends."""
    seconds, micros = client.time()
    return seconds * 1000 + micros // 1000
