"""`ari-conf account …`."""

from __future__ import annotations

import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from redis import Redis

from ari_conf import accounts, dead_letters, recording_index
from ari_conf.accounts import AccountRecord
from ari_conf.commands.terminal import console, moment, print_table, redis, say
from ari_conf.core.account import PLIVOS_MEMBERS
from ari_conf.core.elements import without_login
from ari_conf.errors import AccountRefused
from ari_conf.settings import settings
from ari_conf.store import names_key

app = typer.Typer(no_args_is_help=True, help="Accounts: who may bring calls, where their documents come from.")

AuthId = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's Auth ID.")]
Url = Annotated[str | None, typer.Option(metavar="URL")]
Method = Annotated[str, typer.Option(metavar="GET|POST")]
NewUrl = Annotated[str | None, typer.Option(metavar="URL", help="'' for none.")]
NewMethod = Annotated[str | None, typer.Option(metavar="GET|POST")]
MEMBERS = typer.Option(metavar="N", help="Of a conference: the most that maxMembers may be, and its default.")
PRICE = typer.Option(metavar="PRICE", help="Of a minute.")
LANGUAGE = typer.Option(metavar="CODE", help="Such as de; auto: the engine listens which.")
TokenFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Where its token is, 16 to 100 letters and digits; - is standard input. One is made if not given.",
    ),
]
LONGEST_TOKEN_FILE = 1000
"""Characters that are read of it."""


@app.command()
def add(
    ctx: typer.Context,
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
    max_members: Annotated[int, MEMBERS] = PLIVOS_MEMBERS,
    transcription_rate: Annotated[str, PRICE] = "0",
    transcription_language: Annotated[str, LANGUAGE] = "en",
    recording_auth: Annotated[
        str, typer.Option(metavar="none|basic", help="Whether RecordUrl asks for a login.")
    ] = "none",
    token_file: TokenFile = None,
    with_its_data: Annotated[
        bool, typer.Option("--with-its-data", help="Also if recordings of an account of this id are left.")
    ] = False,
) -> None:
    """Makes an account and shows its token."""
    fields = _settable(ctx)
    with redis() as client:
        if auth_id is not None and not with_its_data:
            _refuse_what_is_left(client, auth_id)
        record = accounts.add(client, _now_ms(client), auth_id, _token_in(token_file), **fields)
    _print_token(record, shown=token_file is None)
    _say_where_no_request_may_go(fields)


def _settable(ctx: typer.Context) -> dict[str, Any]:
    """Of the command's options those that are an account's fields, which have the same names."""
    return {name: ctx.params[name] for name in accounts.SETTABLE}


@app.command("set")
def set_(
    ctx: typer.Context,
    auth_id: AuthId,
    answer_url: NewUrl = None,
    answer_method: NewMethod = None,
    fallback_url: NewUrl = None,
    fallback_method: NewMethod = None,
    hangup_url: NewUrl = None,
    hangup_method: NewMethod = None,
    max_members: Annotated[int | None, MEMBERS] = None,
    transcription_rate: Annotated[str | None, PRICE] = None,
    transcription_language: Annotated[str | None, LANGUAGE] = None,
    recording_auth: Annotated[str | None, typer.Option(metavar="none|basic")] = None,
    token_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A new token; - is standard input. The old one signs as well for 24 hours."),
    ] = None,
) -> None:
    """Changes an account: what is given, and nothing else. Calls that come from now on are run by it."""
    fields = {name: value for name, value in _settable(ctx).items() if value is not None}
    if not fields and token_file is None:
        raise AccountRefused("nothing is to be changed: name an option; see `ari-conf account set --help`")
    with redis() as client:
        if fields:
            accounts.update(client, auth_id, **fields)
        if token_file is not None:
            accounts.rotate_token(client, auth_id, token=_token_in(token_file))
    show(auth_id)
    _say_where_no_request_may_go(fields)


@app.command()
def export() -> None:
    """Prints all accounts, one a line, with their tokens: keep it where only you can read it. `import` reads it."""
    with redis() as client:
        for record in accounts.list_all(client):
            print(accounts.encode(record).decode())


@app.command("import")
def import_(file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export` has printed.")]) -> None:
    """Makes the accounts of an export, with the tokens that they had. Those that are there stay as they are."""
    made, refused = 0, list[str]()
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise AccountRefused(f"{file} can't be read: {error.strerror}") from None
    with redis() as client:
        for number, line in enumerate(lines, 1):
            try:
                accounts.restore(client, line)
                made += 1
            except AccountRefused as error:
                refused.append(f"line {number}: {error}")
    say(f"{made} accounts are made.")
    if refused:
        raise AccountRefused("\n".join(refused))


@app.command("list")
def list_() -> None:
    """All accounts."""
    with redis() as client:
        records = accounts.list_all(client)
    rows = [(record.auth_id, moment(record.created_ms), without_login(record.answer_url or "")) for record in records]
    print_table(("account", "since", "answer URL"), rows, "There is no account; `ari-conf account add` makes one.")


@app.command()
def show(
    auth_id: AuthId, token: Annotated[bool, typer.Option("--token", help="Only its token, which is secret.")] = False
) -> None:
    """All of an account but its token."""
    with redis() as client:
        record = accounts.get(client, auth_id)
    if record is None:
        raise AccountRefused(f"there is no account {auth_id}")
    if token:
        print(record.token)
        return
    rows = [("auth_id", record.auth_id), ("created", moment(record.created_ms))]
    rows += [(name, str(getattr(record, name) or "")) for name in accounts.SETTABLE]
    rows += [("an older token signs until", moment(old.until_ms)) for old in record.old_tokens]
    print_table(("", ""), rows, "")


@app.command()
def remove(
    auth_id: AuthId,
    keep_calls: Annotated[
        bool, typer.Option("--keep-calls", help="Also if it has live conferences, which then go on by themselves.")
    ] = False,
) -> None:
    """Removes an account. Its calls are refused from now on; callbacks that still wait become dead letters."""
    with redis() as client:
        live = client.hlen(names_key(auth_id))
        if live and not keep_calls:
            raise AccountRefused(
                f"the account {auth_id} has live conferences ({live}), which nobody could end any more: end them "
                "before, or give --keep-calls"
            )
        accounts.remove(client, auth_id)
        left = _left(client, auth_id)
    stays = f" Its {left} stay, and with them its id stays taken." if left else ""
    say(f"The account {auth_id} is removed.{stays}")


@app.command("rotate-token")
def rotate_token(
    auth_id: AuthId,
    keep: Annotated[float, typer.Option(metavar="HOURS", min=0, help="For how long the old one signs as well.")] = 24.0,
) -> None:
    """Makes a new token. The old one goes on to sign beside it, so that receivers have time to change theirs."""
    with redis() as client:
        record = accounts.rotate_token(client, auth_id, keep_ms=int(keep * 3_600_000))
    _print_token(record)


def _refuse_what_is_left(client: Redis, auth_id: str) -> None:
    """Recordings and dead letters of an account that was removed would be the new one's to read."""
    if accounts.get(client, auth_id) is None and (left := _left(client, auth_id)):
        raise AccountRefused(
            f"{left} of an account {auth_id} that was removed are still there, and would be the new one's to read: "
            "choose another auth id, or, if it is the same again, give --with-its-data"
        )


def _left(client: Redis, auth_id: str) -> str:
    """What an account has left, or will leave, behind; empty if nothing."""
    found = {
        "recordings": recording_index.listed(client, auth_id, limit=1)[0],
        "dead letters": dead_letters.count(client, auth_id),
    }
    return " and ".join(name for name, there in found.items() if there)


def _print_token(record: AccountRecord, *, shown: bool = True) -> None:
    token = [("auth_token", record.token)] if shown else []
    print_table(("", ""), [("auth_id", record.auth_id), *token], "")
    if console.is_terminal and shown:
        say("The token is secret: it signs every request that is sent to your program.", style="dim")


def _token_in(file: str | None) -> str | None:
    """Raises AccountRefused."""
    if file is None:
        return None
    try:
        with sys.stdin if file == "-" else Path(file).open() as opened:
            return opened.read(LONGEST_TOKEN_FILE).strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise AccountRefused(f"the token can't be read from {file}: {reason}") from None


def _say_where_no_request_may_go(fields: dict[str, Any]) -> None:
    """Of addresses that are written as such. A name may lead anywhere by the time it is asked for."""
    allowed = settings().allowed_networks
    for name, value in fields.items():
        if not name.endswith("_url") or not value:
            continue
        host = urlsplit(value).hostname or ""
        try:
            address = ip_address("127.0.0.1" if host == "localhost" else host)
        except ValueError:
            continue
        if not address.is_global and not any(address in network for network in allowed):
            print(
                f"ari-conf: {name}: no request goes to {host}, which is no public address, unless "
                f"ARI_CONF_ALLOWED_NETWORKS of serve and workers has it, such as {address}/{address.max_prefixlen}",
                file=sys.stderr,
            )


def _now_ms(client: Redis) -> int:
    """By Redis' clock: this machine's may differ from those that will look when an old token ends."""
    seconds, micros = client.time()
    return seconds * 1000 + micros // 1000
