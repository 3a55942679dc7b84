"""One line of the log for each call, when it is over: who called, what was run, for how long, and why it ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from ari_conf.core import effects as do
from ari_conf.core import ids
from ari_conf.core.callbacks import CAUSES
from ari_conf.logs import bare_urls

if TYPE_CHECKING:
    from ari_conf.core.call import Call
    from ari_conf.core.directory import Directory

log = structlog.get_logger()


@dataclass(slots=True)
class _Notes:
    document: str = ""
    """The first."""
    documents: int = 0
    conference: str = ""
    """The latest."""


class CallLog:
    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._notes: dict[str, _Notes] = {}
        """Of calls that live, as far as this process has seen them."""

    def step(self, effects: Iterable[do.Effect]) -> None:
        """What was decided; then the calls that are over are told."""
        for effect in effects:
            if isinstance(effect, do.FetchDocument):
                if (notes := self._of(ids.call_of(effect.fetch_id))) is not None:
                    notes.document = notes.document or effect.source
                    notes.documents += 1
            elif isinstance(effect, do.AddChannel):
                conference = self._directory.conferences.get(effect.bridge_id)
                call_uuid = self._directory.whose(effect.channel_id).get("call_uuid")
                if conference is not None and (notes := self._of(call_uuid)) is not None:
                    notes.conference = conference.name
        while self._directory.over:
            call = self._directory.over.popleft()
            log.info("call", **_fields(call, self._notes.pop(call.call_uuid, _Notes())))

    def _of(self, call_uuid: str | None) -> _Notes | None:
        if not call_uuid or call_uuid not in self._directory.calls:
            return None
        return self._notes.setdefault(call_uuid, _Notes())


def _fields(call: Call, notes: _Notes) -> dict[str, Any]:
    ended_at = call.started_at if call.ended_at is None else call.ended_at
    told = {
        "call_uuid": call.call_uuid,
        "auth_id": call.auth_id,
        # Of one who was gone at once: it isn't known whether they wanted to be known.
        "from": call.from_ if call.account is not None else "",
        "to": call.to,
        "document": bare_urls(notes.document),
        "documents": notes.documents,
        "conference": notes.conference,
        "answered": call.answered_at is not None,
        "duration_s": max(0, ended_at - call.started_at) / 1000,
        "cause": CAUSES.get(call.cause, "NORMAL_UNSPECIFIED"),
        "code": call.code,
    }
    return {name: value for name, value in told.items() if value != ""}
