"""The commands, and how they are shown. What they do is in commands/, imported when one runs."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text
from typer.core import TyperCommand

from ari_conf.commands import accounts, callbacks, recordings
from ari_conf.commands.terminal import console, say, say_of

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Conferencing in Plivo's XML on your own Asterisk. `ari-conf serve --help` lists the settings.",
)
documents = typer.Typer(no_args_is_help=True, help="The XML documents that calls are run by.")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ari-conf {version('ari_conf')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Its version, and no more.")
    ] = False,
) -> None:
    pass


class WithSettings(TyperCommand):
    """Its help ends with every setting."""

    def get_help(self, ctx: typer.Context) -> str:  # type: ignore[override]
        text = super().get_help(ctx)
        print_settings()
        return text


def print_settings() -> None:
    from ari_conf.settings import table

    say_of("Settings", ", from the environment:")
    say("")
    for variable, default, meaning in table():
        console.print(Text.assemble(f"  {variable}", (f"  ({default})" if default else "", "dim")))
        console.print(Padding(Text(meaning), (0, 0, 0, 6)))
    say("")


@app.command(cls=WithSettings)
def serve() -> None:
    """The application: takes the calls of one Asterisk and runs their documents."""
    from ari_conf.commands import serve as command

    command.serve()


@app.command()
def web() -> None:
    """The REST API, on ARI_CONF_WEB_LISTEN; any number of them."""
    from ari_conf.commands import serve as command

    command.web()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def worker(ctx: typer.Context) -> None:
    """Delivers callbacks, stores recordings, transcribes; any number of them. Options are those of `celery worker`."""
    from ari_conf.commands import serve as command

    command.worker(ctx.args)


@app.command()
def up(
    folder: Annotated[
        Path | None, typer.Option(help="For all that it keeps.", show_default=".local/up of the project")
    ] = None,
    answer_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Your program: calls to a number are answered by it.")
    ] = None,
    listen: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="The address of this machine on which phones and browsers reach it. Anybody who does can call: only "
            "in a network that you trust.",
        ),
    ] = "127.0.0.1",
) -> None:
    """The whole system on this machine, in the foreground: Redis, S3 and Asterisk too, where none is configured."""
    from ari_conf.commands import up as command
    from ari_conf.up import PROJECT

    command.run(folder or PROJECT / ".local" / "up", answer_url, listen)


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="For programs: docs/operations/doctor.md.")] = False,
) -> None:
    """Examines every part that is configured, and says what to do for each that fails.

    Exit code 0: all is well; 3: there are warnings; 1: something fails.
    """
    from ari_conf.commands import doctor as command

    raise typer.Exit(command.run(as_json=json))


@documents.command()
def check(files: Annotated[list[Path], typer.Argument(metavar="FILE...")]) -> None:
    """Reads documents as a call would, and prints what is wrong with them; - is standard input. Exit code 1 if one
    can't be run, if an element of one is skipped, or if nothing of it runs."""
    from ari_conf.commands import documents as command

    raise typer.Exit(command.check(files))


app.add_typer(accounts.app, name="account")
app.command()(callbacks.problems)
app.command()(callbacks.lanes)
app.add_typer(callbacks.app, name="dead-letters")
app.add_typer(recordings.app, name="recordings")
app.add_typer(documents, name="documents")
