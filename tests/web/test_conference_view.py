"""The conference view is the only form in which API, event stream and dashboard know a conference. Only the store knows
the persisted form."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ari_conf.web
from ari_conf.core import events as ev
from ari_conf.core.quality import LineFigures, LineMeasurement
from ari_conf.store import live_state
from ari_conf.store.members import members_key
from ari_conf.web.conference_view import ConferenceView
from ari_conf.web.routes.dashboard import FOLDER
from tests.core.stage import Stage, stay
from tests.web.conftest import Api, Owner
from tests.web.test_event_stream import fresh
from tests.web.test_live_view import records

WEB = sorted(Path(ari_conf.web.__file__).parent.glob("**/*.py"))
PERSISTED = {
    "ari_conf.store.state_codec",
    "ari_conf.store.members",
    "ari_conf.core.calls",
    "ari_conf.core.conferences",
    "ari_conf.core.engine",
}
"""Modules that know the persisted form."""
DOCUMENTED = Path(ari_conf.web.__file__).parents[2] / "docs/reference/event-stream.md"
STATE_KEY = "ari_conf:state:fake"
GOOD_LINE = LineFigures(4.41, 0.0, 0.0, 1.0, 1.0, 20.0)


def renamed(thing: Any, name: Callable[[str], str]) -> Any:
    """Return the JSON value with other names. Ids of members are not names."""
    if isinstance(thing, dict):
        return {key if key.isdigit() else name(key): renamed(value, name) for key, value in thing.items()}
    return [renamed(each, name) for each in thing] if isinstance(thing, list) else thing


def test_persisted_names_may_change_and_neither_api_nor_stream_does(
    api: Api, owner: Owner, monkeypatch: pytest.MonkeyPatch
):
    for name in ("ann", "bob"):
        owner.joins(name, record=name == "ann", floor_event=True)
    owner.plays(lambda stage: stage.talk("ann"))
    (before,) = fresh(api).values()
    assert len(before["members"]) == 2 and before["recording"] and before["members"]["1"]["floor"]
    read = live_state.decode

    def decode(text: bytes | None, kind: Any) -> Any:
        original = text and renamed(json.loads(text), lambda name: name.removeprefix("other_"))
        return read(original and json.dumps(original).encode(), kind)

    monkeypatch.setattr(live_state, "decode", decode)
    for key in (STATE_KEY, members_key(before["conference_uuid"])):
        for field, text in owner.redis.hgetall(key).items():
            written = json.dumps(renamed(json.loads(text), lambda name: f"other_{name}"), separators=(",", ":"))
            # The store itself puts the members there.
            owner.redis.hset(key, field, written.replace('"other_members":{}}', '"members":{}}'))
    assert fresh(api) == {before["conference_uuid"]: before}
    response = api.get("Conference/standup/").json
    assert (response["conference_uuid"], response["conference_member_count"]) == (before["conference_uuid"], "2")
    for member in response["members"]:
        live = before["members"][member["member_id"]]
        shared = member.keys() & live.keys()
        assert len(shared) == 9 and {name: member[name] for name in shared} == {name: live[name] for name in shared}


@pytest.mark.parametrize("path", WEB, ids=lambda path: path.stem)
def test_no_module_knows_the_persisted_form(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            assert not {name for name in whole if name.startswith(tuple(PERSISTED))}
            assert not {alias.name for alias in node.names} & {"state_key", "members_key"}


@pytest.fixture
def view() -> ConferenceView:
    stage = Stage()
    stage.call("ann", stay(record=True))
    stage.tell(ev.DeadlineReached(), ev.LineMeasured("ann", LineMeasurement(10.0, GOOD_LINE, GOOD_LINE)))
    conferences, calls = records(stage.engine)
    return ConferenceView.of(*conferences.values(), calls)


def test_the_stream_sends_the_documented_fields(view: ConferenceView):
    text = DOCUMENTED.read_text()
    live = view.to_live()
    sections = {"Conference": live, "Member": live["members"]["1"]}
    for heading, shown in sections.items():
        (section,) = re.findall(rf"^## {heading}\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
        columns = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        names = {name for column in columns for name in re.findall(r"`([\w.]+)`", column)}
        part = {"Conference": "recording", "Member": "quality"}[heading]
        inner = {f"{part}.{name}" for name in shown[part]}
        assert names == {*shown, *inner}


def test_the_dashboard_reads_these_fields_alone(view: ConferenceView):
    live = view.to_live()
    known = {*live, *live["recording"], *live["members"]["1"]}
    (quality,) = re.findall(r"const \{ ([^}]*) \} = quality;", (FOLDER / "js/member.js").read_text())
    assert set(quality.split(", ")) == {"bad", "current"} == set(live["members"]["1"]["quality"])
    figures = set(re.findall(r"\bcurrent\.(\w+)", (FOLDER / "js/member.js").read_text()))
    assert figures == set(live["members"]["1"]["quality"]["current"])
    found: set[str] = set()
    for name in ("live", "conference", "member"):
        text = (FOLDER / f"js/{name}.js").read_text()
        found |= set(re.findall(r"\b(?:conference|member|recording|m|a|b|one|other)\??\.(?!js\b)([a-z_]+)\b", text))
        for taken in re.findall(r"const \{([^}]*)\} = (?:conference|member);", text):
            found |= {part.partition(":")[0].strip() for part in taken.split(",")}
    assert len(found) > 12 and found <= known
