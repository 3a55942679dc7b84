"""Lua check: the `.lua` files that ari_conf runs in Redis.

    python -m tools.lua          # every file that git tracks
    python -m tools.lua FILE …

It prints `file:line: problem` for each finding and exits with status 1 if it has any. A file has findings if

- it cannot be parsed,
- it uses a name that is neither local nor one of Redis' globals, or sets a global,
- it has a local that nothing uses, except `_`,
- it uses a function or constant that the module it requires does not have, or a module in any other way than that,
- it has a local with the name of a module that it requires,
- it is a module and does not end with a table of locals that it exports,
- it reads KEYS or ARGV anywhere but in a `local` statement, which names what is read; a module reads neither,
- its first comment does not say whether it is a script or a module, and for a script KEYS, ARGV and what it returns.

The parser also accepts what is new since Lua 5.1. Redis, which has Lua 5.1, compiles every script in the tests.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from luaparser import ast, astnodes

from ari_conf.common import lua

PROJECT = Path(__file__).parents[1]
REDIS_GLOBALS = {"redis", "cjson", "KEYS", "ARGV"}
LUA_GLOBALS = {
    "ipairs", "math", "next", "pairs", "pcall", "require", "select", "string", "table", "tonumber", "tostring", "type",
    "unpack",
}  # fmt: skip
ARGUMENTS = {"KEYS", "ARGV"}


class Finding(NamedTuple):
    path: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}"


def check(path: str, text: str) -> list[Finding]:
    """Return the findings in one file."""
    found = [Finding(path, line, problem) for line, problem in _header_problems(text)]
    try:
        tree = ast.parse(text)
    except Exception as error:  # the parser's own errors have no common class
        return [*found, Finding(path, 1, f"it cannot be parsed: {error}")]
    checker = _Checker(is_module=text.startswith("-- Module:"))
    checker.visit(tree)
    found += (Finding(path, line, problem) for line, problem in checker.problems)
    return sorted(found)


def _header_problems(text: str) -> Iterator[tuple[int, str]]:
    header = "".join(re.match(r"(?:--.*\n)*", text)[0])  # type: ignore[index]
    if header.startswith("-- Module:"):
        if not lua.exported(text):
            yield text.count("\n"), "a module does not end with `return {name = local, …}`"
        return
    if not header.startswith("-- Script:"):
        yield 1, 'its first comment does not begin with "Script:" or "Module:"'
        return
    wanted = ["KEYS:", "Returns"] + (["ARGV:"] if "ARGV" in text.removeprefix(header) else [])
    for word in wanted:
        if not re.search(rf"^-- {word}", header, re.MULTILINE):
            yield 1, f"its first comment has no line that begins with {word!r}"


class _Local:
    def __init__(self, line: int, module: str | None = None) -> None:
        self.line = line
        self.module = module
        """Name of the module, if the local holds one."""
        self.is_used = False


class _Checker:
    """Visitor that follows the scopes of a file."""

    def __init__(self, *, is_module: bool) -> None:
        self.problems: list[tuple[int, str]] = []
        self._is_module = is_module
        self._scopes: list[dict[str, _Local]] = []
        self._is_naming = False
        """True inside the values of a `local` statement."""

    def visit(self, node: Any) -> None:
        match node:
            case list():
                for each in node:
                    self.visit(each)
            case astnodes.Block():
                with self._scope():
                    self.visit(node.body)
            case astnodes.LocalAssign():
                self._visit_local(node)
            case astnodes.LocalFunction():
                self._declare([node.name])
                self._visit_function(node)
            case astnodes.Function():
                self._assign(node.name)
                self._visit_function(node)
            case astnodes.AnonymousFunction():
                self._visit_function(node)
            case astnodes.Assign():
                self.visit(node.values)
                for target in node.targets:
                    self._assign(target)
            case astnodes.Forin():
                self.visit(node.iter)
                self._visit_loop(node.targets, node.body)
            case astnodes.Fornum():
                self.visit([node.start, node.stop, node.step])
                self._visit_loop([node.target], node.body)
            case astnodes.Repeat():
                with self._scope():
                    self.visit(node.body.body)
                    self.visit(node.test)
            case astnodes.Index():
                self._visit_index(node)
            case astnodes.Invoke():
                self.visit([node.source, *node.args])
            case astnodes.Field():
                if node.between_brackets:
                    self.visit(node.key)
                self.visit(node.value)
            case astnodes.Name():
                self._use(node)
                if (local := self._find(node.id)) is not None and local.module is not None:
                    self.problems.append((_line(node), f"the module {node.id!r} is used as a value"))
            case astnodes.Node():
                self.visit([child for name, child in vars(node).items() if not name.startswith("_")])

    @contextmanager
    def _scope(self) -> Iterator[None]:
        self._scopes.append({})
        yield
        for name, local in self._scopes.pop().items():
            if not local.is_used and name != "_":
                self.problems.append((local.line, f"nothing uses the local {name!r}"))

    def _visit_local(self, node: Any) -> None:
        is_naming, self._is_naming = self._is_naming, True
        self.visit(node.values)
        self._is_naming = is_naming
        self._declare(node.targets, _required_module(node.values))

    def _visit_function(self, node: Any) -> None:
        is_naming, self._is_naming = self._is_naming, False
        with self._scope():
            self._declare([arg for arg in node.args if isinstance(arg, astnodes.Name)])
            self.visit(node.body.body)
        self._is_naming = is_naming

    def _visit_loop(self, targets: Iterable[Any], body: Any) -> None:
        with self._scope():
            self._declare(targets)
            self.visit(body.body)

    def _visit_index(self, node: Any) -> None:
        is_name = isinstance(node.value, astnodes.Name)
        if is_name:
            self._use(node.value)
        else:
            self.visit(node.value)
        if is_name and node.value.id in ARGUMENTS and not self._is_naming:
            self.problems.append((_line(node.value), f"{node.value.id} is read outside a `local` statement"))
        local = self._find(node.value.id) if is_name else None
        if node.notation is not astnodes.IndexNotation.DOT:
            self.visit(node.idx)
            if local is not None and local.module is not None:
                self.problems.append((_line(node.value), f"the module {node.value.id!r} is indexed by a value"))
        elif local is not None and local.module is not None and node.idx.id not in lua.exports(local.module):
            self.problems.append((_line(node.value), f"{local.module} has no {node.idx.id!r}"))

    def _declare(self, names: Iterable[Any], module: str | None = None) -> None:
        for name in names:
            hidden = self._find(name.id)
            if hidden is not None and hidden.module is not None:
                self.problems.append((_line(name), f"the local {name.id!r} hides a module"))
            self._scopes[-1][name.id] = _Local(_line(name), module)

    def _assign(self, target: Any) -> None:
        if not isinstance(target, astnodes.Name):
            self.visit(target)
        elif self._find(target.id) is None:
            self.problems.append((_line(target), f"it sets the global {target.id!r}"))

    def _use(self, name: Any) -> None:
        local = self._find(name.id)
        if local is not None:
            local.is_used = True
        elif name.id not in REDIS_GLOBALS | LUA_GLOBALS:
            self.problems.append((_line(name), f"{name.id!r} is not defined"))
        elif name.id in ARGUMENTS and self._is_module:
            self.problems.append((_line(name), f"a module reads {name.id}"))

    def _find(self, name: str) -> _Local | None:
        return next((scope[name] for scope in reversed(self._scopes) if name in scope), None)


def _required_module(values: list[Any]) -> str | None:
    match values:
        case [astnodes.Call(func=astnodes.Name(id="require"), args=[astnodes.String(raw=name)])]:
            return str(name)
    return None


def _line(node: Any) -> int:
    return node.line or 0


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "*.lua"], cwd=PROJECT, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def main(paths: list[str]) -> int:
    found = list[Finding]()
    for path in paths or tracked():
        found += check(path, (PROJECT / path).read_text())
    for finding in found:
        print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", metavar="FILE")
    sys.exit(main(parser.parse_args().paths))
