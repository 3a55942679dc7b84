"""Commands `ari-conf account …`."""

from __future__ import annotations

import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from redis import Redis

from ari_conf.cli.terminal import console, format_time, print_table, redis, say
from ari_conf.core.account import PLIVOS_MEMBERS
from ari_conf.core.elements import without_login
from ari_conf.errors import AccountError
from ari_conf.queues import dead_letters
from ari_conf.recordings import index
from ari_conf.settings import settings
from ari_conf.store import accounts
from ari_conf.store.accounts import AccountRecord
from ari_conf.store.state_store import names_key

app = typer.Typer(no_args_is_help=True, help="Create, change and remove accounts, and rotate their tokens.")

AuthId = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's Auth ID.")]
Url = Annotated[str | None, typer.Option(metavar="URL")]
Method = Annotated[str, typer.Option(metavar="GET|POST")]
NewUrl = Annotated[str | None, typer.Option(metavar="URL", help="'' for none.")]
NewMethod = Annotated[str | None, typer.Option(metavar="GET|POST")]
MEMBERS = typer.Option(metavar="N", help="Maximum and default of maxMembers of a conference.")
PRICE = typer.Option(metavar="PRICE", help="Price of one minute.")
DAYS = typer.Option(metavar="N", help="Days after its end for which a recording is kept. 0: until it is deleted.")
LANGUAGE = typer.Option(metavar="CODE", help="Language, such as de; auto: the engine detects the language.")
TokenFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="File with the token, 16 to 100 letters and digits; - is standard input. Default: a generated token.",
    ),
]
MAX_TOKEN_CHARACTERS = 1000
"""Maximum number of characters read of the file."""


@app.command()
def add(
    ctx: typer.Context,
    auth_id: Annotated[
        str | None,
        typer.Argument(metavar="[ACCOUNT]", help="Auth ID, 1 to 40 letters and digits. Default: a generated Auth ID."),
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
    recordings_days: Annotated[int, DAYS] = 0,
    token_file: TokenFile = None,
    with_its_data: Annotated[
        bool,
        typer.Option(
            "--with-its-data", help="Also if recordings or dead letters of a removed account with this Auth ID exist."
        ),
    ] = False,
) -> None:
    """Create an account and print its token."""
    fields = _editable_options(ctx)
    with redis() as client:
        if auth_id is not None and not with_its_data:
            _refuse_remaining_data(client, auth_id)
        record = accounts.add(client, _now_ms(client), auth_id, _read_token(token_file), **fields)
    _print_token(record, shown=token_file is None)
    _warn_about_forbidden_hosts(fields)


def _editable_options(ctx: typer.Context) -> dict[str, Any]:
    """Return the options of the command that are fields of an account; they have the same names."""
    return {name: ctx.params[name] for name in accounts.EDITABLE_FIELDS}


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
    recordings_days: Annotated[int | None, DAYS] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="File with a new token; - is standard input. The old token also signs for 24 hours."
        ),
    ] = None,
) -> None:
    """Change the given fields of an account, and nothing else. Calls that arrive from now on use them."""
    fields = {name: value for name, value in _editable_options(ctx).items() if value is not None}
    if not fields and token_file is None:
        raise AccountError("nothing to change: no option was set; see `ari-conf account set --help`")
    with redis() as client:
        if fields:
            accounts.update(client, auth_id, **fields)
        if token_file is not None:
            accounts.rotate_token(client, auth_id, token=_read_token(token_file))
    show(auth_id)
    _warn_about_forbidden_hosts(fields)


@app.command()
def export() -> None:
    """Print all accounts, one per line, with their tokens, for `import`. Keep the output where only you can read it."""
    with redis() as client:
        for record in accounts.list_all(client):
            print(accounts.encode(record).decode())


@app.command("import")
def import_(file: Annotated[Path, typer.Argument(metavar="FILE", help="The output of `export`.")]) -> None:
    """Create the accounts of an export, with their tokens. Accounts that exist are not changed."""
    created, refused = 0, list[str]()
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise AccountError(f"{file} could not be read: {error.strerror}") from None
    with redis() as client:
        for number, line in enumerate(lines, 1):
            try:
                accounts.restore(client, line)
                created += 1
            except AccountError as error:
                refused.append(f"line {number}: {error}")
    say(f"{created} accounts were created.")
    if refused:
        raise AccountError("\n".join(refused))


@app.command("list")
def list_() -> None:
    """List all accounts."""
    with redis() as client:
        records = accounts.list_all(client)
    rows = [
        (record.auth_id, format_time(record.created_ms), without_login(record.answer_url or "")) for record in records
    ]
    print_table(("account", "since", "answer URL"), rows, "No accounts. `ari-conf account add` creates an account.")


@app.command()
def show(
    auth_id: AuthId, token: Annotated[bool, typer.Option("--token", help="Print only the token, a secret.")] = False
) -> None:
    """Show an account without its token."""
    with redis() as client:
        record = accounts.get(client, auth_id)
    if record is None:
        raise AccountError(f"account {auth_id} does not exist")
    if token:
        print(record.token)
        return
    rows = [("auth_id", record.auth_id), ("created", format_time(record.created_ms))]
    rows += [(name, str(getattr(record, name) or "")) for name in accounts.EDITABLE_FIELDS]
    rows += [("an older token signs until", format_time(old.until_ms)) for old in record.old_tokens]
    print_table(("", ""), rows, "")


@app.command()
def remove(
    auth_id: AuthId,
    keep_calls: Annotated[
        bool, typer.Option("--keep-calls", help="Also if it has live conferences, which then continue without it.")
    ] = False,
) -> None:
    """Remove an account. From now on its calls are refused; its queued callbacks become dead letters."""
    with redis() as client:
        live = client.hlen(names_key(auth_id))
        if live and not keep_calls:
            raise AccountError(
                f"account {auth_id} has live conferences ({live}), which the API can't end without it: end them "
                "first, or use `--keep-calls`"
            )
        accounts.remove(client, auth_id)
        left = _remaining_data(client, auth_id)
    stays = f" Its {left} remain, and its Auth ID remains in use." if left else ""
    say(f"Account {auth_id} was removed.{stays}")


@app.command("rotate-token")
def rotate_token(
    auth_id: AuthId,
    keep: Annotated[float, typer.Option(metavar="HOURS", min=0, help="For how long the old token also signs.")] = 24.0,
) -> None:
    """Create a new token. The old token continues to sign too, so that receivers have time to change theirs."""
    with redis() as client:
        record = accounts.rotate_token(client, auth_id, keep_ms=int(keep * 3_600_000))
    _print_token(record)


def _refuse_remaining_data(client: Redis, auth_id: str) -> None:
    """Raise AccountError if a removed account left data, which the new account could read."""
    if accounts.get(client, auth_id) is None and (left := _remaining_data(client, auth_id)):
        raise AccountError(
            f"{left} of a removed account {auth_id} still exist, and the new account could read them: choose another "
            "Auth ID, or use `--with-its-data` if it is the same account"
        )


def _remaining_data(client: Redis, auth_id: str) -> str:
    """Return the kinds of data that remain without the account ("recordings and dead letters"); empty if none."""
    found = {
        "recordings": index.search(client, auth_id, limit=1)[0],
        "dead letters": dead_letters.count(client, auth_id),
    }
    return " and ".join(name for name, exists in found.items() if exists)


def _print_token(record: AccountRecord, *, shown: bool = True) -> None:
    token = [("auth_token", record.token)] if shown else []
    print_table(("", ""), [("auth_id", record.auth_id), *token], "")
    if console.is_terminal and shown:
        say("The token is secret: it signs every request that is sent to your application.", style="dim")


def _read_token(file: str | None) -> str | None:
    """Return the token in the file, or None without a file. Raises AccountError if the file can't be read."""
    if file is None:
        return None
    try:
        with sys.stdin if file == "-" else Path(file).open() as opened:
            return opened.read(MAX_TOKEN_CHARACTERS).strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise AccountError(f"the token could not be read from {file}: {reason}") from None


def _warn_about_forbidden_hosts(fields: dict[str, Any]) -> None:
    """Warn about URLs whose host is an address that is not allowed. Names are skipped: their addresses may change."""
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
                f"ari-conf: {name}: requests to {host} are not allowed, because it is not a public address; add "
                f"{address}/{address.max_prefixlen} or a larger network to ARI_CONF_ALLOWED_NETWORKS of server and "
                "workers",
                file=sys.stderr,
            )


def _now_ms(client: Redis) -> int:
    """Return the time of Redis' clock: this machine's may differ from the clocks that decide when an old token ends."""
    seconds, micros = client.time()
    return seconds * 1000 + micros // 1000
