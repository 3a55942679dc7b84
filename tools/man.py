"""Write the manual pages of `ari-conf`: ari-conf.1, and one of each command, such as ari-conf-account-add.1.

    python -m tools.man FOLDER

They are made of the commands' own help, as docs/reference/cli.md is. Their date is that of SOURCE_DATE_EPOCH, or today.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from ari_conf.asterisk_config import template_settings
from ari_conf.cli.main import app
from ari_conf.common.version import VERSION
from ari_conf.settings import settings_table
from tools.reference.cli import STATUS, commands, paragraphs, parameters, usage

IN_CODE = {"-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", "\\": r"\e"}
"""Character -> its escape where it must be shown as typed (groff_char(7))."""


def text(source: str) -> str:
    """Return roff for a line of prose, in which code is between backticks."""
    found = []
    for number, part in enumerate(source.split("`")):
        found.append(bold(part) if number % 2 else part.replace("\\", r"\e"))
    line = "".join(found)
    return rf"\&{line}" if line.startswith((".", "'")) else line


def typed(source: str) -> str:
    return "".join(IN_CODE.get(character, character) for character in source)


def bold(source: str) -> str:
    return rf"\fB{typed(source)}\fR"


def syntax(source: str) -> str:
    """Return roff for a syntax: names of values, which are in capitals, in italics, all else in bold."""
    parts = re.split(r"([A-Z]{2,}|[\[\]| ,]+)", source)
    return "".join(
        rf"\fI{part}\fR" if part.isupper() else part if re.fullmatch(r"[\[\]| ,]*", part) else bold(part)
        for part in parts
    )


def items(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the lines of a list of terms, which are roff, and their texts."""
    for term, meaning in rows:
        yield from (".TP", term, text(meaning))


def settings() -> dict[str, list[tuple[str, str, str]]]:
    """Return the environment variables of the pages that list them: (variable, default, meaning)."""
    of_asterisk = template_settings.SETTINGS.items()
    return {
        "ari-conf serve": list(settings_table()),
        "ari-conf asterisk configure": [(f"ARI_CONF_{name}", *described) for name, described in of_asterisk],
    }


def manual(path: str) -> str:
    """Return the name of the page of a command: "ari-conf-account-add" of "ari-conf account add"."""
    return path.replace(" ", "-")


def page(path: str, command: Any, date: str) -> str:
    """Return the page of a command; `path` is how it is typed, such as "ari-conf account add"."""
    summary, *described = paragraphs(command.help or "")
    name = typed(manual(path))
    purpose = summary.replace("`", "").partition(". ")[0].removesuffix(".")
    lines = [
        f'.TH "{name.upper()}" "1" "{date}" "ari_conf {typed(VERSION)}" "ari_conf"',
        *(".nh", ".ad l"),
        *(".SH NAME", rf"{name} \- {text(purpose)}"),
        *(".SH SYNOPSIS", f"{bold(path)} {syntax(usage(path, command).removeprefix(path).strip())}".strip()),
        ".SH DESCRIPTION",
    ]
    for part in (summary, *described):
        lines += [".PP", text(part)]
    inner = getattr(command, "commands", {})
    if inner:
        lines.append(".SH COMMANDS")
        for word, one in inner.items():
            lines += items([(f"{bold(manual(f'{path} {word}'))}(1)", paragraphs(one.help or "")[0])])
    options = [
        (syntax(one), f"{meaning} Default: {default}." if default not in ("", "required") else meaning)
        for one, default, meaning in parameters(command)
    ]
    if "help_option_names" not in command.context_settings:
        options.append((syntax("-h, --help"), "Show the help, and exit."))
    if options:
        lines += [".SH OPTIONS", *items(options)]
    if path == "ari-conf":
        lines += [".SH EXIT STATUS", *items((bold(code), meaning) for code, meaning in STATUS)]
    lines.append(".SH ENVIRONMENT")
    if variables := settings().get(path):
        for variable, default, meaning in variables:
            lines += items([(bold(variable), f"{meaning} (`{default}`)" if default else meaning)])
    else:
        lines.append(text("Variables that begin with `ARI_CONF_` are settings: `ari-conf-serve`(1) lists them."))
    above = manual(path.rpartition(" ")[0])
    others = dict.fromkeys([above, "ari-conf", "ari-conf-serve", "ari-conf-doctor"])
    see = [rf"{bold(other)}(1)" for other in others if other and other != manual(path)]
    return "\n".join([*lines, ".SH SEE ALSO", ", ".join(see)]) + "\n"


def pages() -> dict[str, str]:
    """Return the pages by the names of their files."""
    date = time.strftime("%Y-%m-%d", time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    return {f"{manual(path)}.1": page(path, command, date) for path, command in commands(get_command(app))}


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, written in pages().items():
        (folder / name).write_text(written)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.man", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
