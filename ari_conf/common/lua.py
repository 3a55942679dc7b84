"""Lua scripts for Redis: each is a `.lua` file in the folder `scripts` of the package that runs it.

A script, or a module that scripts share, names the modules that it uses as Lua does:

    local clock = require('ari_conf.common.scripts.clock')

A module ends with a table of what it exports, `return {now_ms = now_ms}`. The name of a Python module stands for its
integer constants, so that a limit is written once:

    local limits = require('ari_conf.queues.limits')

Redis has no `require`, and a script that builds tables of functions takes Redis a quarter longer. `load` therefore puts
each module into a block before the script, with a local for each export, and writes that local for `clock.now_ms`, and
the number for a constant. `tools/lua.py` checks the files.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module, resources

_COMMENTS = re.compile(r"^ *--.*\n|^\n", re.MULTILINE)
_REQUIRE = re.compile(r"^local (\w+) = require\('([\w.]+)'\)\n", re.MULTILINE)
_EXPORTS = re.compile(r"^return \{((?:\s*\w+ = \w+,?)+\s*)\}\n\Z", re.MULTILINE)
_EXPORT = re.compile(r"(\w+) = (\w+)")
_PACKAGE, _, _ = __name__.partition(".")


@cache
def load(name: str) -> str:
    """Return the text of a script, such as `ari_conf.queues.scripts.claim`, with all modules that it uses.

    Comments are left out, because EVAL sends the text with each call. Raises KeyError for an export or a constant that
    does not exist."""
    blocks: dict[str, str] = {}
    script = _linked(name, blocks)
    return "".join(blocks.values()) + script


def source(name: str) -> str:
    """Return the text of a `.lua` file. Raises FileNotFoundError."""
    _, *folders, file = name.split(".")
    return resources.files(_PACKAGE).joinpath(*folders, f"{file}.lua").read_text(encoding="utf-8")


def without_comments(text: str) -> str:
    """Return the text without empty lines and lines that are a comment."""
    return _COMMENTS.sub("", text)


def exports(name: str) -> dict[str, str]:
    """Return what a module exports: for a Lua module export -> its local, for a Python module constant -> (number)."""
    if ".scripts." not in name:
        constants = vars(import_module(name)).items()
        return {key: f"({value})" for key, value in constants if key.isupper() and type(value) is int}
    return exported(source(name))


def exported(text: str) -> dict[str, str]:
    """Return what the text of a Lua module exports; empty if it does not end with a table of locals."""
    found = _EXPORTS.search(text)
    return dict(_EXPORT.findall(found[1])) if found else {}


def _linked(name: str, blocks: dict[str, str]) -> str:
    """Return the text of a file with its modules' exports in place. Add a block for each module, in order of use."""
    text = without_comments(source(name))
    modules = _REQUIRE.findall(text)
    text = _REQUIRE.sub("", text)
    for alias, module in modules:
        values = exports(module)
        if ".scripts." in module:
            values = {export: _global_name(module, export) for export in values}
            if module not in blocks:
                blocks[module] = _block(module, blocks)
        text = _replaced(text, alias, values)
    return text


def _replaced(text: str, alias: str, values: dict[str, str]) -> str:
    """Return the text with a value for each `alias.name`, but not for that in `other.alias.name`."""
    return re.sub(rf"(?<!\w)(?<![^.]\.){alias}\.(\w+)", lambda use: values[use[1]], text)


def _block(module: str, blocks: dict[str, str]) -> str:
    body = _EXPORTS.sub("", _linked(module, blocks))
    exported = exports(module)
    names = ", ".join(_global_name(module, export) for export in exported)
    return f"local {names}\ndo\n{body}{names} = {', '.join(exported.values())}\nend\n"


def _global_name(module: str, export: str) -> str:
    """Return the name of an export in the whole text, such as `queues_keys_list`."""
    _, *parts = module.split(".")
    return "_".join(part for part in (*parts, export) if part != "scripts")
