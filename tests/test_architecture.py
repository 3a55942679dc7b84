"""Rules for imports of the core and of the tasks. setup.cfg has the other rules, which import-linter checks."""

import ast
import sys
from pathlib import Path

import pytest

import ari_conf

PACKAGE = Path(ari_conf.__file__).parent
ALL = sorted(PACKAGE.glob("**/*.py"))
CORE = sorted((PACKAGE / "core").glob("**/*.py"))
NOT_PURE = {"asyncio", "logging", "random", "secrets", "socket", "subprocess", "threading", "time", "uuid"}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: imports are absolute here"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("file", CORE, ids=lambda file: file.stem)
def test_the_core_imports_the_standard_library_and_itself_alone(file):
    foreign = {
        name
        for name in imported(file)
        if not name.startswith("ari_conf.core") and name.partition(".")[0] not in sys.stdlib_module_names
    }
    assert not foreign


@pytest.mark.parametrize("file", CORE, ids=lambda file: file.stem)
def test_the_core_neither_waits_nor_asks_the_time_nor_draws_lots(file):
    assert not {name.partition(".")[0] for name in imported(file)} & NOT_PURE


def test_ari_conf_knows_nothing_of_the_tasks():
    """Import-linter does not see an import by name, such as `import_module("tasks")`; the worker's command line has the
    name too, and starts a process of its own."""
    named = {
        f"{file.relative_to(PACKAGE)}:{node.lineno}"
        for file in ALL
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(("import_module", "__import__"))
        and any(isinstance(one, ast.Constant) and str(one.value).partition(".")[0] == "tasks" for one in node.args)
    }
    importing = {
        str(file.relative_to(PACKAGE))
        for file in ALL
        if {name.partition(".")[0] for name in imported(file)} & {"tasks", "celery", "kombu"}
    }
    assert not named and not importing
