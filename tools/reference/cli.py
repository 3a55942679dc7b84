"""cli.md, from the Typer application in `ari_conf.cli.main`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from ari_conf.cli.main import app
from tools.reference.markdown import IncompleteTable, code, document, linked, table

INTRODUCTION = """
This page lists every command of `ari-conf` with its arguments and options.

- All commands read the [settings](settings.md) from the environment, secret files and a TOML file, and print a warning
  on standard error about a misspelled one. Commands that look at accounts, callbacks or recordings need Redis only.
- On a terminal, lists are tables. Otherwise they are lines of tab-separated fields without a header, for other
  programs.
- `ari-conf`, and every command except `ari-conf worker`, prints its help with `--help` or `-h`.
"""
STATUS = (
    ("0", "The command succeeded."),
    (
        "1",
        "The command failed; one sentence on standard error says why. `doctor`: a check failed. `documents check`: a "
        "document can't run, an element of one is skipped, or nothing of one runs.",
    ),
    ("2", "The command line is wrong."),
    ("3", "`doctor` only: there are warnings."),
)
NO_HELP = {
    "--answer-url": "URL that is requested for the document of a new call.",
    "--answer-method": "HTTP method of the request to the answer URL.",
    "--fallback-url": "URL that is requested if another URL fails or returns an invalid document.",
    "--fallback-method": "HTTP method of the request to the fallback URL.",
    "--hangup-url": "URL that is requested when a call has ended.",
    "--hangup-method": "HTTP method of the request to the hangup URL.",
    "--recording-auth": "Whether RecordUrl asks for a login.",
    "ID": "The dead letter, as `list` shows it.",
    "FILE...": "The documents; `-` is standard input.",
}
"""Texts for options and arguments without help on the command line."""


def commands(command: Any, path: str = "ari-conf") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


def usage(path: str, command: Any) -> str:
    arguments = [parameter.metavar for parameter in command.params if parameter.param_type_name == "argument"]
    options = ["[OPTIONS]"] if any(p.param_type_name == "option" for p in command.params) else []
    more = ["[CELERY OPTIONS]"] if command.context_settings.get("ignore_unknown_options") else []
    inner = ["COMMAND"] if hasattr(command, "commands") else []
    return " ".join([path, *options, *more, *inner, *arguments])


def paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n")]


def parameters(command: Any) -> Iterator[tuple[str, str, str]]:
    """Yield the syntax, the default and the help of each argument and option, the latter two with code in backticks."""
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name, default = parameter.metavar, "required" if parameter.required else ""
        else:
            name, default = parameter.opts[0], _default(parameter)
        text = parameter.help or ""
        # A help text such as "'' for none." only supplements the option's description.
        if not text or text.startswith("'"):
            text = f"{NO_HELP.get(name, '')} {text}".strip()
        if not text:
            raise IncompleteTable(f"cli.md: {name} of {command.name} has no help")
        yield _parameter_text(parameter, name), default, text


def _parameter_text(parameter: Any, name: str) -> str:
    if parameter.param_type_name == "argument" or parameter.is_flag:
        return name
    return f"{', '.join(parameter.opts)} {parameter.metavar or _value(parameter)}"


def _value(parameter: Any) -> str:
    return "N" if isinstance(parameter.default, int) else str(parameter.name).upper()


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    return "" if parameter.is_flag or parameter.default is None else code(str(parameter.default))


def _section(path: str, command: Any) -> str:
    blocks = [f"## {path}" if path.count(" ") < 2 else f"### {path}", f"```\n{usage(path, command)}\n```"]
    blocks.append(linked("\n\n".join(paragraphs(command.help or ""))))
    if rows := [(code(syntax), default, linked(text)) for syntax, default, text in parameters(command)]:
        blocks.append(table(("Argument or option", "Default", "Meaning"), rows))
    return "\n\n".join(blocks)


def page() -> str:
    found = list(commands(get_command(app)))
    status = table(("Exit status", "Meaning"), STATUS)
    return document("Command line", INTRODUCTION, status, *(_section(path, command) for path, command in found))
