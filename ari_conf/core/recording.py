"""The recording of a conference, from its first instant to the file being handed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ari_conf.core.callbacks import frozen
from ari_conf.core.effects import Effect, Params, PostCallback, StartRecording, StopRecording, StoreRecording
from ari_conf.core.elements import Conference as Element

STOPPING_MS = 5000
"""Asterisk says at once that a recording has stopped; one of which it never does counts as stopped then."""


@dataclass(slots=True)
class Recording:
    recording_id: str
    bridge_id: str
    auth_id: str
    call_uuid: str
    """The call whose element asked for it."""
    element: Element
    """"that member's element decides the format, the transcription and where the record callback goes"."""
    started_at: int
    """From when on it sounds, once Asterisk has said so."""
    wideband: bool = False
    params: Params = ()
    """The standard parameters of the record callback: those of the call whose element asked, as they were then."""
    state: Literal["running", "stopping", "stopped", "refused"] = "running"
    begun: bool = False
    """Asterisk has said so: if it is there no more it has ended, and was not lost before it began."""
    doubtful: bool = False
    """Asterisk did not say whether it began: only its disk says whether there is a file."""
    ended_at: int | None = None
    deadline: int | None = None
    handed_on: bool = False
    api_id: str = ""
    """Of the API's call that asked for it, rather than an element."""

    @property
    def finished(self) -> bool:
        return self.state in ("stopped", "refused")

    def url(self, public_url: str) -> str:
        form = self.element.record_file_format
        return f"{public_url}/v1/Account/{self.auth_id}/Recording/{self.recording_id}.{form}"

    def start(self) -> list[Effect]:
        return [StartRecording(self.bridge_id, self.recording_id, self.auth_id, self.wideband)]

    def sounds(self, now: int) -> None:
        if self.state == "running":
            self.started_at, self.begun = now, True

    def stop(self, now: int) -> list[Effect]:
        if self.state != "running":
            return []
        self.state, self.ended_at, self.deadline = "stopping", now, now + STOPPING_MS
        return [StopRecording(self.bridge_id, self.recording_id, self.auth_id)]

    def stopped(self, now: int, failed: bool = False) -> None:
        if not self.finished:
            self.state, self.deadline = "stopped", None
            self.doubtful = self.doubtful or failed
            self.ended_at = self.ended_at or now

    def refused(self) -> None:
        """There is nothing of it, and never will be: no callback, and no number that one would have had."""
        self.state, self.deadline, self.handed_on = "refused", None, True

    def time(self, now: int) -> list[Effect]:
        if self.deadline is None or self.deadline > now:
            return []
        if self.state == "running":
            # The API's time_limit.
            return self.stop(now)
        self.stopped(now)
        return []

    def hand_on(self, conference_id: str, name: str, sequence: int, public_url: str) -> StoreRecording:
        element, ended_at = self.element, self.ended_at or self.started_at
        params = dict(self.params) | {
            "ConferenceAction": "record",
            "ConferenceName": name,
            "ConferenceUUID": conference_id,
            "RecordUrl": self.url(public_url),
            "RecordingID": self.recording_id,
            "RecordingStartMs": str(self.started_at),
            "RecordingEndMs": str(ended_at),
            "ConferenceSequence": str(sequence),
            "Timestamp": str(ended_at),
        }
        if self.api_id:
            # "Its callback is snake_case"
            params = {
                "api_id": self.api_id,
                "record_url": self.url(public_url),
                "recording_id": self.recording_id,
                "conference_name": name,
                "recording_start_ms": str(self.started_at),
                "recording_end_ms": str(ended_at),
            }
        url, method = element.callback_url, element.callback_method
        return StoreRecording(
            self.recording_id,
            self.auth_id,
            conference_id,
            name,
            self.call_uuid,
            self.url(public_url),
            element.record_file_format,
            self.started_at,
            ended_at,
            PostCallback(conference_id, self.auth_id, url, method, frozen(params)) if url else None,
            element.transcription_type is not None,
            element.transcription_url,
            element.transcription_method,
            self.doubtful,
            element.transcription_language,
        )
