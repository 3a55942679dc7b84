"""Command-line interface: the commands and their options. Other modules of cli/ implement them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text
from typer.core import TyperCommand

from ari_conf import settings_warnings
from ari_conf.cli import accounts, asterisk, callbacks, history, recordings
from ari_conf.cli.terminal import console, say, say_with_head
from ari_conf.common.safe_text import visible
from ari_conf.common.version import VERSION

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Conferencing in Plivo's XML on your own Asterisk. `ari-conf serve --help` lists the settings.",
)
documents = typer.Typer(no_args_is_help=True, help="Check the XML documents that calls run; find the samples.")

WARNING_COMMANDS = ("serve", "web", "worker", "doctor")
"""Commands that report warnings about settings themselves: in their log, or as a finding."""


def _print_version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"ari-conf {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand not in WARNING_COMMANDS:
        found = settings_warnings.find_here()
        for text in (*found.unknown, *found.exposed):
            typer.echo(f"ari-conf: warning: {visible(text)}", err=True)


class CommandWithSettings(TyperCommand):
    """Command whose help ends with all settings."""

    def get_help(self, ctx: typer.Context) -> str:  # type: ignore[override]
        text = super().get_help(ctx)
        print_settings()
        return text


def print_settings() -> None:
    from ari_conf.settings import settings_table

    say_with_head("Settings", ", from the environment, a file, or secret files (`ari-conf settings --help`):")
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
def worker(
    ctx: typer.Context,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check this machine's workers and exit, with 0 if they work. -Q names their queues, if these are not "
            "all.",
        ),
    ] = False,
    pid: Annotated[int | None, typer.Option(metavar="N", help="With --check: check only this process.")] = None,
) -> None:
    """Run a worker: it delivers callbacks, stores recordings and transcribes them. You can run any number of workers.

    The options are those of `celery worker`.
    """
    if check:
        from ari_conf.cli import worker_check

        typer.echo(worker_check.run(ctx.args, pid))
        return
    from ari_conf.cli import processes as command

    if pid is not None:
        raise typer.BadParameter("it is for --check only", param_hint="--pid")
    command.worker(ctx.args)


@app.command()
def up(
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder for all data of the system.",
            show_default=".local/up of the checkout; without one ~/.local/share/ari_conf/up",
        ),
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
    from ari_conf.common.installation import data_folder

    command.run(folder or data_folder() / "up", answer_url, listen)


@app.command()
def demo() -> None:
    """Run a conference of three simulated callers on this machine, and report which caller heard which.

    Everything is real: Asterisk, Redis, S3, the worker, SIP and RTP on loopback, HTTP. It takes half a minute, and
    leaves the sound that each caller heard.
    """
    from ari_conf.cli import demo as command

    command.run_demo()


@app.command()
def example(
    port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Run the sample application: it asks each caller for a PIN, 1234, and puts them into a conference.

    It prints the file that is its source, the answer URL for `ari-conf up --answer-url URL`, and the events of the
    conference. With AUTH_TOKEN set to the account's token, it refuses requests that are not signed with it.
    """
    from ari_conf.cli import demo as command

    command.run_example(port)


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs: docs/operations/doctor.md.")] = False,
) -> None:
    """Check every configured component, and say how to fix each that fails.

    Exit code 0: all checks passed; 3: there are warnings; 1: a check failed.
    """
    from ari_conf.cli import doctor as command

    raise typer.Exit(command.run(as_json=json))


@app.command()
def settings(
    changed: Annotated[bool, typer.Option("--changed", help="Print only the settings that a source sets.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    example: Annotated[
        bool, typer.Option("--example", help="Print a TOML file with all settings and their defaults, as comments.")
    ] = False,
) -> None:
    """Print the settings in force, and where each of them is from. Secrets are hidden.

    A setting is taken from the first of: the variable ARI_CONF_NAME; for a secret, the file that ARI_CONF_NAME_FILE
    names; a systemd credential ari_conf_name; the key name of the TOML file that ARI_CONF_CONFIG names, by default
    /etc/ari_conf/ari_conf.toml.
    """
    from ari_conf.cli import settings as command

    if example:
        command.print_example()
    else:
        command.run(only_changed=changed, as_json=json)


@documents.command()
def check(files: Annotated[list[Path], typer.Argument(metavar="FILE...")]) -> None:
    """Read documents as a call would, and print their errors and warnings; - is standard input.

    Exit code 1: a document can't run, an element of one is skipped, or nothing of one runs.
    """
    from ari_conf.cli import documents as command

    raise typer.Exit(command.check(files))


@documents.command()
def samples() -> None:
    """Print the paths of the sample documents, one per line: `cp $(ari-conf documents samples) FOLDER`."""
    from ari_conf.common.installation import bundled_folder

    for path in sorted(bundled_folder("documents").glob("*.xml")):
        print(path)


app.add_typer(accounts.app, name="account")
app.command("audit")(accounts.audit_log)
app.command()(callbacks.problems)
app.command()(callbacks.lanes)
app.add_typer(callbacks.app, name="dead-letters")
app.add_typer(recordings.app, name="recordings")
app.add_typer(history.app, name="history")
app.add_typer(documents, name="documents")
app.add_typer(asterisk.app, name="asterisk")
