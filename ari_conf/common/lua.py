"""Lua scripts for Redis: each is a `.lua` file in the folder `scripts` of the package that runs it.

A script, or a module that scripts share, names the modules that it uses as Lua does:

    local clock = require('ari_conf.common.scripts.clock')

A module returns a table of its functions. Redis has no `require`, so `load` puts the modules before the script. The
name of a Python module stands for a table of its integer constants, so that a limit is written once:

    local limits = require('ari_conf.queues.limits')

`tools/lua.py` checks the files.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module, resources

_REQUIRED = re.compile(r"^local \w+ = require\('([\w.]+)'\)$", re.MULTILINE)
_COMMENTS = re.compile(r"^ *--.*\n|^\n", re.MULTILINE)
_PACKAGE, _, _ = __name__.partition(".")

_BUNDLE = """\
local modules = {{}}
local function require(name) return modules[name] end
{modules}{script}"""
_MODULE = """\
modules['{name}'] = (function()
{source}end)()
"""


@cache
def load(name: str) -> str:
    """Return the text of a script, such as `ari_conf.queues.scripts.claim`, with all modules that it uses.

    Comments are left out, because EVAL sends the text with each call."""
    script = without_comments(source(name))
    modules: dict[str, str] = {}
    _add_modules(script, modules)
    if not modules:
        return script
    texts = (_MODULE.format(name=module, source=text) for module, text in modules.items())
    return _BUNDLE.format(modules="".join(texts), script=script)


def without_comments(text: str) -> str:
    """Return the text without empty lines and lines that are a comment."""
    return _COMMENTS.sub("", text)


def source(name: str) -> str:
    """Return the text of a `.lua` file. Raises FileNotFoundError."""
    _, *folders, file = name.split(".")
    return resources.files(_PACKAGE).joinpath(*folders, f"{file}.lua").read_text(encoding="utf-8")


def required(text: str) -> list[str]:
    """Return the names of the modules that a Lua text uses itself."""
    return _REQUIRED.findall(text)


def constants(name: str) -> dict[str, int]:
    """Return the integer constants of a Python module."""
    return {key: value for key, value in vars(import_module(name)).items() if key.isupper() and type(value) is int}


def _add_modules(text: str, modules: dict[str, str]) -> None:
    """Add the modules that a text uses, each after those that it uses itself."""
    for name in required(text):
        if name in modules:
            continue
        if ".scripts." in name:
            module = without_comments(source(name))
            _add_modules(module, modules)
        else:
            fields = "".join(f"  {key} = {value},\n" for key, value in constants(name).items())
            module = f"return {{\n{fields}}}\n"
        modules[name] = module
