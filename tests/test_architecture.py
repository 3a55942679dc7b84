"""Rules for imports of the core. setup.cfg has the other rules, which import-linter checks."""

import ast
import sys
from pathlib import Path

import pytest

import ari_conf

PACKAGE = Path(ari_conf.__file__).parent
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


def test_a_state_is_changed_by_its_owner_alone_and_by_its_table_if_it_has_one():
    for file in CORE:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                methods = {m.name: m for m in node.body if isinstance(m, ast.FunctionDef)}
                for name, method in methods.items():
                    if set(assigned_states(method)) == {"self"} and "change_state" in methods:
                        assert name == "change_state", f"{file.name}: {node.name}.{name} assigns self.state"
            elif isinstance(node, ast.FunctionDef):
                others = set(assigned_states(node)) - {"self"}
                assert not others, f"{file.name}: {node.name} assigns the state of {others}"


def assigned_states(function: ast.FunctionDef) -> list[str]:
    """Return whose `.state` the function assigns."""
    return [
        ast.unparse(node.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr == "state" and isinstance(node.ctx, ast.Store)
    ]
