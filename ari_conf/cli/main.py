"""Command-line interface: the commands and their options. Other modules of cli/ implement them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text
from typer.core import TyperCommand

from ari_conf.cli import accounts, callbacks, recordings
from ari_conf.cli.terminal import console, say, say_with_head
from ari_conf.common.version import VERSION

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Conferencing in Plivo's XML on your own Asterisk. `ari-conf serve --help` lists the settings.",
)
documents = typer.Typer(no_args_is_help=True, help="Check the XML documents that calls run.")


def _print_version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"ari-conf {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


class CommandWithSettings(TyperCommand):
    """Command whose help ends with all settings."""

    def get_help(self, ctx: typer.Context) -> str:  # type: ignore[override]
        text = super().get_help(ctx)
        print_settings()
        return text


def print_settings() -> None:
    from ari_conf.settings import settings_table

    say_with_head("Settings", ", from the environment:")
    say("")
    for variable, default, meaning in settings_table():
        console.print(Text.assemble(f"  {variable}", (f"  ({default})" if default else "", "dim")))
        console.print(Padding(Text(meaning), (0, 0, 0, 6)))
    say("")


@app.command(cls=CommandWithSettings)
def serve() -> None:
    """Run the server: it accepts the calls of one Asterisk and runs their documents."""
    from ari_conf.cli import processes as command

    command.serve()


@app.command()
def web() -> None:
    """Run a web process: REST API and dashboard, on ARI_CONF_WEB_LISTEN. You can run any number of them."""
    from ari_conf.cli import processes as command

    command.web()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def worker(ctx: typer.Context) -> None:
    """Run a worker: it delivers callbacks, stores recordings and transcribes them. You can run any number of workers.

    The options are those of `celery worker`.
    """
    from ari_conf.cli import processes as command

    command.worker(ctx.args)


@app.command()
def up(
    folder: Annotated[
        Path | None, typer.Option(help="Folder for all data of the system.", show_default=".local/up of the project")
    ] = None,
    answer_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Answer URL of your application, for calls to a number.")
    ] = None,
    listen: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address of this machine on which phones and browsers reach the system. Anyone in its network can "
            "call: use it only in a network that you trust.",
        ),
    ] = "127.0.0.1",
) -> None:
    """Run the whole system on this machine, in the foreground; also Redis, S3 and Asterisk if not configured."""
    from ari_conf.cli import up as command
    from ari_conf.local.system import PROJECT

    command.run(folder or PROJECT / ".local" / "up", answer_url, listen)


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs: docs/operations/doctor.md.")] = False,
) -> None:
    """Check every configured component, and say how to fix each that fails.

    Exit code 0: all checks passed; 3: there are warnings; 1: a check failed.
    """
    from ari_conf.cli import doctor as command

    raise typer.Exit(command.run(as_json=json))


@documents.command()
def check(files: Annotated[list[Path], typer.Argument(metavar="FILE...")]) -> None:
    """Read documents as a call would, and print their errors and warnings; - is standard input.

    Exit code 1: a document can't run, an element of one is skipped, or nothing of one runs.
    """
    from ari_conf.cli import documents as command

    raise typer.Exit(command.check(files))


app.add_typer(accounts.app, name="account")
app.command("audit")(accounts.audit_log)
app.command()(callbacks.problems)
app.command()(callbacks.lanes)
app.add_typer(callbacks.app, name="dead-letters")
app.add_typer(recordings.app, name="recordings")
app.add_typer(documents, name="documents")
