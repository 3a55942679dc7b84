"""Recording of a conference, from its start until its file is handed over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ari_conf.core import ids
from ari_conf.core.effects import Effect, Params, PostCallback, StartRecording, StopRecording, StoreRecording
from ari_conf.core.elements import Conference as Element
from ari_conf.core.events import RecordingFinished, RecordingStarted
from ari_conf.core.expectations import AsteriskState, Expectation
from ari_conf.core.request_params import as_params

STOP_TIMEOUT_MS = 5000
"""Milliseconds after which a recording counts as stopped if Asterisk, which normally confirms immediately, has not."""


@dataclass(slots=True)
class Recording:
    recording_id: str
    bridge_id: str
    auth_id: str
    call_uuid: str
    """UUID of the call whose element requested the recording; empty: the API did."""
    element: Element
    """Element of that call, or one made for the API. It "decides the format, the transcription and where the record
    callback goes" (spec)."""
    started_at: int
    """Epoch milliseconds of the request, or of the audible start once Asterisk has reported it."""
    wideband: bool = False
    params: Params = ()
    """Standard parameters of the record callback: those of the requesting call at the time of the request."""
    state: Literal["running", "stopping", "stopped", "refused"] = "running"
    begun: bool = False
    """True if Asterisk has reported the start. If the recording no longer exists, it has therefore ended and was not
    lost before it started."""
    doubtful: bool = False
    """True if Asterisk did not report the start, or reported a failure: only its disk shows whether a file exists."""
    ended_at: int | None = None
    deadline: int | None = None
    handed_on: bool = False
    api_id: str = ""
    """Id of the API request that started the recording; empty: an element did."""

    @property
    def is_finished(self) -> bool:
        return self.state in ("stopped", "refused")

    def url(self, public_url: str) -> str:
        form = self.element.record_file_format
        return f"{public_url}/v1/Account/{self.auth_id}/Recording/{self.recording_id}.{form}"

    def start(self) -> list[Effect]:
        return [StartRecording(self.bridge_id, self.recording_id, self.auth_id, self.wideband)]

    def mark_started(self, now: int) -> None:
        if self.state == "running":
            self.started_at, self.begun = now, True

    def stop(self, now: int) -> list[Effect]:
        if self.state != "running":
            return []
        self.state, self.ended_at, self.deadline = "stopping", now, now + STOP_TIMEOUT_MS
        return [StopRecording(self.bridge_id, self.recording_id, self.auth_id)]

    def mark_stopped(self, now: int, failed: bool = False) -> None:
        if not self.is_finished:
            self.state, self.deadline = "stopped", None
            self.doubtful = self.doubtful or failed
            self.ended_at = self.ended_at or now

    def mark_refused(self) -> None:
        """Mark the recording as nonexistent for good: it has no callback, and no sequence number is used for one."""
        self.state, self.deadline, self.handed_on = "refused", None, True

    def on_deadline(self, now: int) -> list[Effect]:
        if self.deadline is None or self.deadline > now:
            return []
        if self.state == "running":
            # The deadline of a running recording is the API's time_limit.
            return self.stop(now)
        self.mark_stopped(now)
        return []

    # Recovery.

    def expectations(self) -> Iterator[Expectation]:
        """Yield what the recording expects of Asterisk: see `expectations.py`."""
        if self.is_finished:
            return
        key = ids.conference_of(self.bridge_id) or "", self.recording_id
        over, runs = RecordingFinished(*key), RecordingStarted(*key, already_running=True)
        about = Expectation("recording", self.recording_id, self.bridge_id, self.bridge_id, self.auth_id, if_gone=over)
        unconfirmed = self.state == "running" and not self.begun
        yield about._replace(if_there=runs, confirmed_started=False) if unconfirmed else about

    def resume(self, there: AsteriskState) -> list[Effect]:
        """Return the effects in progress, which may have been lost with the previous process."""
        lost = self.state == "running" and not self.begun and self.recording_id not in there.recordings
        return self.start() if lost else []

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
            # Spec: "Its callback is snake_case"
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
            PostCallback(conference_id, self.auth_id, url, method, as_params(params)) if url else None,
            element.transcription_type is not None,
            element.transcription_url,
            element.transcription_method,
            self.doubtful,
            element.transcription_language,
        )
