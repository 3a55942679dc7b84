"""Commands `ari-conf asterisk …`: Asterisk's configuration, and the files for Asterisk's machine."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperCommand

from ari_conf.asterisk_config.configure import configure as write_configuration
from ari_conf.asterisk_config.configure import list_settings
from ari_conf.asterisk_config.template_settings import Refused
from ari_conf.common.installation import bundled_folder
from ari_conf.errors import SetupFailed

PROGRAM = "ari-conf asterisk configure"

app = typer.Typer(no_args_is_help=True, help="Write Asterisk's configuration, or add what calls need to yours.")


class CommandWithAsterisksSettings(TyperCommand):
    """Command whose help ends with the settings of Asterisk's configuration."""

    def get_help(self, ctx: typer.Context) -> str:  # type: ignore[override]
        text = super().get_help(ctx)
        print(f"Settings, from the environment:\n\n{list_settings()}")
        return text


@app.command(cls=CommandWithAsterisksSettings)
def configure(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER [FILE...]",
            help="Asterisk's folder, /etc/asterisk on most machines, and the files to write. Default: all files. With "
            "`--print`, only files.",
        ),
    ],
    merge: Annotated[
        bool,
        typer.Option(
            "--merge",
            help="Add to the configuration in the folder, which remains as it is. Can be repeated. Deleting "
            "FOLDER/ari_conf removes the additions.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files. Not with `--merge`.")] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show what would change, without passwords, and write nothing.")
    ] = False,
    print_: Annotated[bool, typer.Option("--print", help="Print whole files, and write nothing.")] = False,
) -> None:
    """Write a whole configuration, for an Asterisk that does nothing else, or add to an existing one with `--merge`.

    An existing file is never overwritten without `--force`: if one of the files exists, nothing is written. The
    settings come from the environment, as those of `ari-conf serve` do. `asterisk/configure` of the repository is the
    same command for a machine that has only Python 3.11.
    """
    given = {"--merge": merge, "--force": force, "--diff": diff, "--print": print_}
    try:
        write_configuration({option for option, is_given in given.items() if is_given}, words, PROGRAM)
    except Refused as refused:
        raise SetupFailed(str(refused)) from None
    except OSError as error:
        raise SetupFailed(f"{error.filename}: {error.strerror}") from None


@app.command()
def folder() -> None:
    """Print the folder with the templates, the rules for fail2ban, and the scripts that get and run an Asterisk."""
    print(bundled_folder("asterisk"))
