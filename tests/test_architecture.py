"""Rules for imports of the core and of the tasks. setup.cfg has the other rules, which import-linter checks."""

import ast
import sys
from pathlib import Path

import msgspec
import pytest

import ari_conf
from ari_conf.core.abort import AbortHandler
from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member import Member
from ari_conf.core.dispatcher import Dispatcher
from ari_conf.core.engine import Engine
from ari_conf.core.registry import Registry
from ari_conf.core.restoration import Restoration

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
def test_the_core_imports_the_standard_library_msgspec_and_itself_alone(file):
    foreign = {
        name
        for name in imported(file)
        if not name.startswith("ari_conf.core") and name.partition(".")[0] not in {*sys.stdlib_module_names, "msgspec"}
    }
    assert not foreign


@pytest.mark.parametrize("file", CORE, ids=lambda file: file.stem)
def test_the_core_neither_waits_nor_asks_the_time_nor_draws_lots(file):
    assert not {name.partition(".")[0] for name in imported(file)} & NOT_PURE


@pytest.mark.parametrize("part", [Engine, Registry, Dispatcher, AbortHandler, Restoration, Call, Conference, Member])
def test_the_engine_and_its_calls_hold_their_parts_and_inherit_none(part: type) -> None:
    """Persisted classes are structs. Attributes that are not persisted have a base class, which has nothing else."""
    for base in part.__bases__:
        if base not in (object, msgspec.Struct):
            assert base.__bases__ == (object,) and not any(map(callable, vars(base).values()))


def test_the_reconciliation_compares_and_knows_no_machine_s_state():
    """Each machine says itself what it expects, and what it does again."""
    inside = {"state", "claim", "bridge", "players", "player", "recordings", "shared_playback", "private_playback"}
    for file in (PACKAGE / "core/reconciliation").glob("*.py"):
        used = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
        assert not used & inside
        assert not {name for name in imported(file) if "state" in name or ".playback" in name or ".gather" in name}


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
