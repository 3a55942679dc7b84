"""Call log: one line for each call that is over, with the caller, what was run, the duration, and why it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import structlog

from ari_conf.core import effects as do
from ari_conf.core import ids
from ari_conf.core.calls.call import Call
from ari_conf.core.engine import Engine
from ari_conf.core.hangup_codes import cause_name, status_of
from ari_conf.observability.log_setup import bare_urls

log = structlog.get_logger()


@dataclass(slots=True)
class _Notes:
    document: str = ""
    """Source of the first document."""
    documents: int = 0
    conference: str = ""
    """Name of the latest conference."""


class CallLog:
    def __init__(self, engine: Engine, count_placed: Callable[[str, str], None] = lambda trunk, outcome: None) -> None:
        """Create the log. `count_placed` gets the trunk and the outcome of each placed call that is over."""
        self._engine = engine
        self._count_placed = count_placed
        self._notes: dict[str, _Notes] = {}
        """Notes on live calls, as far as this process has seen them."""

    def step(self, effects: Iterable[do.Effect]) -> None:
        """Take notes from the effects of a step, then log the calls that are over."""
        for effect in effects:
            if isinstance(effect, do.FetchDocument):
                if (notes := self._notes_of(ids.call_of(effect.fetch_id))) is not None:
                    notes.document = notes.document or effect.source
                    notes.documents += 1
            elif isinstance(effect, do.AddChannel):
                conference = self._engine.registry.conference_of_bridge(effect.bridge_id)
                call_uuid = self._engine.log_context(effect.channel_id).get("call_uuid")
                if conference is not None and (notes := self._notes_of(call_uuid)) is not None:
                    notes.conference = conference.name
        ended_calls = self._engine.registry.ended_calls
        while ended_calls:
            call = ended_calls.popleft()
            log.info("call", **_fields(call, self._notes.pop(call.call_uuid, _Notes())))
            if call.outgoing is not None:
                outcome = "answered" if call.answered_at is not None else status_of(call.hangup_code)
                self._count_placed(call.outgoing.present.trunk, outcome)

    def _notes_of(self, call_uuid: str | None) -> _Notes | None:
        if not call_uuid or call_uuid not in self._engine.calls:
            return None
        return self._notes.setdefault(call_uuid, _Notes())


def _fields(call: Call, notes: _Notes) -> dict[str, Any]:
    ended_at = call.started_at if call.ended_at is None else call.ended_at
    fields = {
        "call_uuid": call.call_uuid,
        "auth_id": call.auth_id,
        # A caller who hung up before they were identified may have wanted to withhold the number.
        "from": call.from_ if call.account is not None else "",
        "to": call.to,
        "document": bare_urls(notes.document),
        "documents": notes.documents,
        "conference": notes.conference,
        "answered": call.answered_at is not None,
        "duration_s": max(0, ended_at - call.started_at) / 1000,
        "trunk": call.outgoing.present.trunk if call.outgoing is not None else "",
        "cause": cause_name(call.hangup_cause),
        "code": call.hangup_code,
    }
    return {name: value for name, value in fields.items() if value != ""}
