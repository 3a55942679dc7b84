"""The state diagrams of docs/architecture/core.md show the transition tables."""

from __future__ import annotations

import ast
from pathlib import Path

import ari_conf
from ari_conf.core.conferences.member_state import TRANSITIONS, MemberState
from tools.reference import state_diagrams

CORE = Path(ari_conf.__file__).parent / "core"


def tables() -> set[str]:
    """Return the modules of the core that have a transition table."""
    found = set()
    for file in CORE.glob("*/*.py"):
        names = {
            n.target.id
            for n in ast.parse(file.read_text()).body
            if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
        }
        if "TRANSITIONS" in names:
            found.add(f"ari_conf.core.{file.parent.name}.{file.stem}")
    return found


def test_diagrams_are_current() -> None:
    assert state_diagrams.is_current(), "docs/architecture/core.md is not current; run `python -m tools.reference`"


def test_each_table_has_a_diagram() -> None:
    shown = [found["module"] for found in state_diagrams.DIAGRAM.finditer(state_diagrams.PAGE.read_text())]
    assert "ari_conf.core.conferences.member_state" in shown
    assert sorted(shown) == sorted(tables())


def test_a_changed_table_is_seen_and_written(tmp_path, monkeypatch) -> None:
    page = tmp_path / "core.md"
    page.write_text(state_diagrams.PAGE.read_text())
    changed = TRANSITIONS[MemberState.WAITING] | {MemberState.ON_HOLD: "a new way"}
    monkeypatch.setitem(TRANSITIONS, MemberState.WAITING, changed)
    assert not state_diagrams.is_current(page)
    state_diagrams.write(page)
    assert state_diagrams.is_current(page) and "  waiting --> on_hold: a new way\n" in page.read_text()
