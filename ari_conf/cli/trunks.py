"""Commands `ari-conf trunk …`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ari_conf.administration import trunk_management
from ari_conf.administration.audit import command_user
from ari_conf.administration.trunk_management import RouteExplanation, shown
from ari_conf.cli.terminal import print_table, redis, say
from ari_conf.dialing import trunks
from ari_conf.dialing.trunks import Trunk
from ari_conf.errors import TrunkError
from ari_conf.settings import settings

app = typer.Typer(no_args_is_help=True, help="Configure the trunks over which calls are placed.")

Name = Annotated[str, typer.Argument(metavar="TRUNK", help="Name of the trunk: letters, digits, _ and -.")]
TEMPLATE = "Such as PJSIP/{number}@provider; {e164} has a plus. digits may stand before it."
DIAL = typer.Option(metavar="TEMPLATE", help=TEMPLATE)
PREFIXES = typer.Option(metavar="LIST", help="Numbers that it is for: +49,+43; + for all; 112 for short numbers.")
CALLER_IDS = typer.Option(metavar="LIST", help="Caller IDs that it may show: +4930123*. '': all of the account.")
HOSTS = typer.Option(metavar="LIST", help="Hosts that SIP URIs may name: sip.example.com,10.0.0.5:5070.")
CALLS = typer.Option(metavar="N", help="Maximum number of calls at the same time. 0: no limit.")
PER_SECOND = typer.Option(metavar="N", help="Maximum number of calls placed per second; more wait. 0: no limit.")
PRIORITY = typer.Option(metavar="N", help="Of trunks with equally long prefixes, the lowest is tried first.")
ENABLED = typer.Option("--enabled/--disabled", help="Whether calls are placed over it.")


@app.command()
def add(
    ctx: typer.Context,
    name: Name,
    dial: Annotated[str, typer.Argument(metavar="TEMPLATE", help=TEMPLATE)],
    prefixes: Annotated[str, PREFIXES] = "",
    caller_ids: Annotated[str, CALLER_IDS] = "",
    hosts: Annotated[str, HOSTS] = "",
    calls: Annotated[int, CALLS] = 30,
    per_second: Annotated[int, PER_SECOND] = 5,
    priority: Annotated[int, PRIORITY] = 0,
    enabled: Annotated[bool, ENABLED] = True,
) -> None:
    """Add a trunk. Calls are placed over it as soon as an account may call a number that it is for."""
    with redis() as client:
        trunk_management.create(client, _of_settings(), command_user(), name, _given(ctx))
    show(name)


@app.command("set")
def set_(
    ctx: typer.Context,
    name: Name,
    dial: Annotated[str | None, DIAL] = None,
    prefixes: Annotated[str | None, PREFIXES] = None,
    caller_ids: Annotated[str | None, CALLER_IDS] = None,
    hosts: Annotated[str | None, HOSTS] = None,
    calls: Annotated[int | None, CALLS] = None,
    per_second: Annotated[int | None, PER_SECOND] = None,
    priority: Annotated[int | None, PRIORITY] = None,
    enabled: Annotated[bool | None, ENABLED] = None,
) -> None:
    """Change the given fields of a trunk, and nothing else. Calls that are placed from now on use them."""
    fields = _given(ctx)
    if not fields:
        raise TrunkError("nothing to change: no option was set; see `ari-conf trunk set --help`")
    with redis() as client:
        trunk_management.change(client, _of_settings(), command_user(), name, fields)
    show(name)


def _given(ctx: typer.Context) -> dict[str, Any]:
    """Return the options of the command that are fields of a trunk; they have the same names."""
    return {name: ctx.params[name] for name in trunks.FIELDS if ctx.params[name] is not None}


def _of_settings() -> tuple[Trunk, ...]:
    return trunks.from_settings(settings().trunks)


@app.command("list")
def list_() -> None:
    """List all trunks."""
    with redis() as client:
        found = trunk_management.list_all(client, _of_settings())
    rows = [
        (
            trunk.name,
            trunk.dial,
            shown(trunk.prefixes or trunk.hosts),
            "settings" if is_setting else "",
            "" if trunk.enabled else "disabled",
        )
        for trunk, is_setting in found
    ]
    print_table(
        ("trunk", "dials", "is for", "from", "state"),
        rows,
        "No trunks, so nothing can be dialed. `ari-conf trunk add` adds one.",
    )


@app.command()
def show(name: Name) -> None:
    """Show a trunk."""
    with redis() as client:
        trunk, is_setting = trunk_management.get(client, _of_settings(), name)
    rows = [("name", trunk.name), ("from", "settings" if is_setting else "administrator")]
    print_table(("", ""), [*rows, *((field, shown(getattr(trunk, field))) for field in trunks.FIELDS)], "")


@app.command()
def remove(name: Name) -> None:
    """Remove a trunk. No call is placed over it from now on; its live calls continue."""
    with redis() as client:
        trunk_management.remove(client, _of_settings(), command_user(), name)
    say(f"Trunk {name} was removed.")


@app.command()
def test(
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="Number or SIP URI, as an application gives it.")],
    account: Annotated[str, typer.Option(metavar="ACCOUNT", help="Auth ID of the account that calls.")],
    from_: Annotated[
        str | None,
        typer.Option("--from", metavar="NUMBER", help="Caller ID. Default: the first number that it may show."),
    ] = None,
) -> None:
    """Show how a number would be dialed for an account, or why it is refused. Nothing is dialed."""
    with redis() as client:
        found = trunk_management.explain_route(
            client, _of_settings(), account, number, from_, settings().default_country
        )
    _print_route(found)
    if found.denial is not None:
        raise typer.Exit(1)


def _print_route(found: RouteExplanation) -> None:
    rows = [("number", found.destination), ("kind", found.category), ("caller ID", found.caller_id)]
    print_table(("", ""), [row for row in rows if row[1]], "")
    if found.verdicts:
        print_table(
            ("trunk", "prefix", "verdict"),
            [(verdict.trunk.name, verdict.prefix, verdict.refusal or "can be used") for verdict in found.verdicts],
            "",
        )
    if found.denial is not None:
        say(f"Refused, {found.denial.reason}: {found.denial.text}.")
        return
    for order, dialed in enumerate(found.dialed, 1):
        say(f"{order}. {dialed}")
