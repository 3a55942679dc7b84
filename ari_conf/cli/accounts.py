"""Commands `ari-conf account …`."""

from __future__ import annotations

import sys
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from redis import Redis

from ari_conf.administration import audit, management, remains, removal
from ari_conf.administration.audit import command_user
from ari_conf.cli.terminal import console, format_time, print_table, redis, say
from ari_conf.core.account import PLIVOS_MEMBERS
from ari_conf.core.elements import without_login
from ari_conf.dialing.permissions import NOTHING
from ari_conf.errors import AccountError
from ari_conf.queues.partitioned_queue import prefix
from ari_conf.settings import settings
from ari_conf.store import accounts, removals
from ari_conf.store.accounts import AccountRecord
from ari_conf.store.removals import Calls, Removal

app = typer.Typer(no_args_is_help=True, help="Create, change and remove accounts, and rotate their tokens.")

AuthId = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's Auth ID.")]
Url = Annotated[str | None, typer.Option(metavar="URL")]
Method = Annotated[str, typer.Option(metavar="GET|POST")]
NewUrl = Annotated[str | None, typer.Option(metavar="URL", help="'' for none.")]
NewMethod = Annotated[str | None, typer.Option(metavar="GET|POST")]
MEMBERS = typer.Option(metavar="N", help="Maximum and default of maxMembers of a conference.")
PRICE = typer.Option(metavar="PRICE", help="Price of one minute.")
DAYS = typer.Option(metavar="N", help="Days after its end for which a recording is kept. 0: until it is deleted.")
DIALED = typer.Option(metavar="LIST", help="What it may call: +49, + for all, DE, sip:HOST; ! denies. '': nothing.")
SPECIAL = typer.Option(metavar="LIST", help="Premium, unassigned, short and emergency numbers that it may call.")
CALLER_IDS = typer.Option(metavar="LIST", help="Caller IDs that it may show: numbers, or +4930123*. '': none.")
DIAL_CALLS = typer.Option(metavar="N", min=0, help="Maximum number of its placed calls at the same time.")
DIAL_RATE = typer.Option(metavar="N", min=0, help="Maximum number of calls that it places within a minute.")
DIAL_MINUTES = typer.Option(metavar="N", min=0, help="Maximum minutes of its placed calls per day (UTC).")
LANGUAGE = typer.Option(metavar="CODE", help="Language, such as de; auto: the engine detects the language.")
TokenFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="File with the token, 16 to 100 letters and digits; - is standard input. Default: a generated token.",
    ),
]
HISTORY_DAYS = typer.Option(
    metavar="N", help="Days for which ended calls, conferences and callbacks are kept. 0: until the account is purged."
)
WITH_ITS_DATA = typer.Option(
    "--with-its-data", help="Also if data of a removed account with this Auth ID exists: the new account can read it."
)
MAX_TOKEN_CHARACTERS = 1000
"""Maximum number of characters read of the file."""
MAX_LISTED = 100_000
POLL_S, NO_WORKER_S = 0.5, 5.0
"""Seconds between two looks at a removal, and for which it waits for a worker."""


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
    history_days: Annotated[int, HISTORY_DAYS] = 0,
    dial_prefixes: Annotated[str, DIALED] = "",
    dial_special: Annotated[str, SPECIAL] = "",
    dial_caller_ids: Annotated[str, CALLER_IDS] = "",
    dial_calls: Annotated[int, DIAL_CALLS] = NOTHING.calls,
    dial_calls_per_minute: Annotated[int, DIAL_RATE] = NOTHING.calls_per_minute,
    dial_minutes_per_day: Annotated[int, DIAL_MINUTES] = NOTHING.minutes_per_day,
    token_file: TokenFile = None,
    with_its_data: Annotated[bool, WITH_ITS_DATA] = False,
) -> None:
    """Create an account and print its token."""
    fields = _editable_options(ctx)
    token = _read_token(token_file)
    with redis() as client:
        record = management.create(client, command_user(), auth_id, token, fields, with_its_data=with_its_data)
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
    history_days: Annotated[int | None, HISTORY_DAYS] = None,
    dial_prefixes: Annotated[str | None, DIALED] = None,
    dial_special: Annotated[str | None, SPECIAL] = None,
    dial_caller_ids: Annotated[str | None, CALLER_IDS] = None,
    dial_calls: Annotated[int | None, DIAL_CALLS] = None,
    dial_calls_per_minute: Annotated[int | None, DIAL_RATE] = None,
    dial_minutes_per_day: Annotated[int | None, DIAL_MINUTES] = None,
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
    token = _read_token(token_file)
    with redis() as client:
        management.change(client, command_user(), auth_id, fields, token)
    show(auth_id)
    _warn_about_forbidden_hosts(fields)


@app.command()
def export() -> None:
    """Print all accounts, one per line, with their tokens, for `import`. Keep the output where only you can read it."""
    with redis() as client:
        for record in accounts.list_all(client):
            print(accounts.encode(record).decode())


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The output of `export`.")],
    with_its_data: Annotated[bool, WITH_ITS_DATA] = False,
) -> None:
    """Create the accounts of an export, with their tokens. Accounts that exist are not changed."""
    created, refused = 0, list[str]()
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise AccountError(f"{file} could not be read: {error.strerror}") from None
    if not any(line.strip() for line in lines):
        raise AccountError(f"{file} has no accounts: is it the output of `ari-conf account export`, and complete?")
    with redis() as client:
        for number, line in enumerate(lines, 1):
            try:
                management.import_exported(client, command_user(), line, with_its_data=with_its_data)
                created += 1
            except AccountError as error:
                refused.append(f"line {number}: {error}")
    say(f"{created} accounts were created.")
    if refused:
        raise AccountError("\n".join(refused))


@app.command("list")
def list_() -> None:
    """List all accounts, also those that are being removed."""
    with redis() as client:
        _, found = management.list_page(client, "", MAX_LISTED, 0)
    rows = []
    for one in found:
        if one.record is not None:
            since, about = format_time(one.record.created_ms), without_login(one.record.answer_url or "")
        elif one.removal is not None:
            since, about = "", _removal_text(one.removal)
        else:
            since, about = "", "its record could not be read"
        rows.append((one.auth_id, since, about))
    print_table(("account", "since", "answer URL"), rows, "No accounts. `ari-conf account add` creates an account.")


@app.command()
def show(
    auth_id: AuthId, token: Annotated[bool, typer.Option("--token", help="Print only the token, a secret.")] = False
) -> None:
    """Show an account without its token."""
    with redis() as client:
        record, removal = accounts.get(client, auth_id), removals.get(client, auth_id)
    if record is None and removal is not None:
        print_table(("", ""), [("auth_id", auth_id), ("removal", _removal_text(removal))], "")
        return
    if record is None:
        raise accounts.does_not_exist(auth_id)
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
    hang_up: Annotated[bool, typer.Option("--hang-up", help="Hang up its live calls.")] = False,
    keep_calls: Annotated[
        bool, typer.Option("--keep-calls", help="Let its live calls continue until they end by themselves.")
    ] = False,
    purge: Annotated[
        bool,
        typer.Option("--purge", help="Delete all that is stored of it, in Redis and in S3."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Purge without a question.")] = False,
    wait: Annotated[bool, typer.Option(help="Show the progress until it is done.")] = True,
) -> None:
    """Remove an account. From now on its calls are refused, and its API and dashboard are closed.

    If it has live calls, `--hang-up` or `--keep-calls` is required. Its last callbacks are still signed and delivered.
    A worker does the work, also after this command has ended.
    """
    if hang_up and keep_calls:
        raise AccountError("`--hang-up` and `--keep-calls` exclude each other")
    calls: Calls | None = "end" if hang_up else "keep" if keep_calls else None
    with redis() as client:
        if purge and not yes and sys.stdin.isatty():
            left, _ = remains.count(client, auth_id, removal.lost_ms(settings()))
            typer.confirm(f"Delete {left.described() or 'all data'} of account {auth_id}?", abort=True)
        begun = removal.begin(client, command_user(), settings(), auth_id, calls, purge)
        say(f"Account {auth_id} is being removed: its calls are refused from now on.")
        if left_now := begun.left.described():
            say(f"Left now: {left_now}.")
        if wait:
            _follow(client, begun)


def _follow(client: Redis, begun: Removal) -> None:
    """Show a removal's progress until it is done, or until no more than waiting for kept calls is left."""
    auth_id, shown = begun.auth_id, ""
    missing_since: float | None = None
    while (now := removals.get(client, auth_id)) is not None and now.phase != "removed":
        if now.phase == "calls" and now.calls == "keep" and now.left.is_live:
            say(f"Its calls continue. `ari-conf account show {auth_id}` shows the progress.")
            return
        workers = client.zcard(prefix(removals.QUEUE) + "workers")
        missing_since = None if workers else missing_since or time.monotonic()
        if missing_since is not None and time.monotonic() - missing_since > NO_WORKER_S:
            raise AccountError("no worker removes accounts now: start `ari-conf worker`, which continues the removal")
        if (text := _removal_text(now)) != shown:
            say(f"{text[0].upper()}{text[1:]}.")
        shown = text
        time.sleep(POLL_S)
    left = now.left.described() if now is not None else ""
    stays = f" Left: {left}; its Auth ID remains in use. `--purge` deletes that." if left else ""
    say(f"Account {auth_id} was removed.{stays}")


def _removal_text(found: Removal) -> str:
    """Return how far a removal is."""
    left = found.left.described() or "nothing"
    if found.phase == "removed":
        return f"removed; left: {left}"
    doing = {"calls": "hanging up its calls" if found.calls == "end" else "waiting until its calls have ended"}
    doing |= {"callbacks": "delivering its last callbacks", "data": "deleting its data"}
    return f"being removed: {doing[found.phase]}; left: {left}{f'; {found.error}' if found.error else ''}"


@app.command("rotate-token")
def rotate_token(
    auth_id: AuthId,
    keep: Annotated[float, typer.Option(metavar="HOURS", min=0, help="For how long the old token also signs.")] = 24.0,
) -> None:
    """Create a new token. The old token continues to sign too, so that receivers have time to change theirs."""
    with redis() as client:
        keep_ms, token = int(keep * 3_600_000), accounts.new_token()
        record = management.change(client, command_user(), auth_id, {}, token, keep_ms)
    _print_token(record)


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


def audit_log(
    auth_id: Annotated[str | None, typer.Argument(metavar="[ACCOUNT]", help="Only entries about this account.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Number of entries, the newest.")] = 50,
) -> None:
    """List what administrators have changed, through the API, its page and the commands, the newest first."""
    with redis() as client:
        _, found = audit.read(client, auth_id, limit)
    rows = [
        (
            format_time(one.at_ms),
            one.who,
            one.via,
            one.action,
            one.auth_id,
            ", ".join(f"{name}: {text}" for name, text in one.details.items()),
        )
        for one in found
    ]
    print_table(("time", "who", "via", "action", "account", "what"), rows, "Nothing was changed yet.")
