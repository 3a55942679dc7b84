"""Each problem has a kind, and each kind has a producer and advice on the dashboard."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import fields

import ari_conf
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.store.problems import Problem

PACKAGE = Path(ari_conf.__file__).parent
SOURCES = [*PACKAGE.glob("**/*.py"), *(PACKAGE.parent / "tasks").glob("*.py")]
SCRIPTS = PACKAGE.glob("**/*.lua")
ADVICE = PACKAGE / "web/static/js/advice.js"


def test_a_kind_is_its_name_in_small_letters():
    assert all(kind == kind.name.lower() for kind in ProblemKind)


@pytest.mark.parametrize(
    "made",
    [do.ReportProblem, ev.DocumentFailed, ev.SoundDocumentFailed, ev.SoundFailed, Problem],
    ids=lambda kind: kind.__name__,
)
def test_no_problem_is_made_or_stored_without_a_kind(made: type[Struct]):
    (kind,) = [field for field in fields(made) if field.name == "kind"]
    assert kind.type is ProblemKind and kind.required


def test_each_kind_has_a_producer():
    produced = {
        node.attr
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ProblemKind"
    }
    by_scripts = {kind for path in SCRIPTS for kind in re.findall(r"\bkind = '(\w+)'", path.read_text())}
    assert produced | {ProblemKind(kind).name for kind in by_scripts} == set(ProblemKind.__members__)


def test_each_kind_has_advice_on_the_dashboard():
    (table,) = re.findall(r"export const ADVICE = \{\n(.*?)\n\};", ADVICE.read_text(), re.DOTALL)
    assert re.findall(r"^  (\w+): ", table, re.MULTILINE) == list(ProblemKind)
