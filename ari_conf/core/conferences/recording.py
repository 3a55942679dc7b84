"""Recording of a conference, from its start until its file is handed over."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from ari_conf.core import ids
from ari_conf.core.conferences.member import Member
from ari_conf.core.effects import (
    AddSpeechNote,
    Effect,
    Params,
    PostCallback,
    StartRecording,
    StopRecording,
    StoreRecording,
)
from ari_conf.core.elements import Conference as Element
from ari_conf.core.events import RecordingFinished, RecordingStarted
from ari_conf.core.expectations import AsteriskState, Expectation
from ari_conf.core.messages import AttendanceNoted, Outputs
from ari_conf.core.request_params import as_params

STOP_TIMEOUT_MS = 5000
"""Milliseconds after which a recording counts as stopped if Asterisk, which normally confirms immediately, has not."""


class RecordingState(StrEnum):
    REQUESTED = "requested"
    """StartRecording is in progress: Asterisk has not reported the start."""
    RUNNING = "running"
    """Asterisk has reported the start. If the recording no longer exists, it has ended and was not lost before that."""
    STOPPING = "stopping"
    """StopRecording is in progress."""
    STOPPED = "stopped"
    """Ended: it is handed over once."""
    REFUSED = "refused"
    """Never existed: it has no callback, and no sequence number is used for one."""


class Recording(msgspec.Struct):
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
    state: RecordingState = RecordingState.REQUESTED
    may_have_no_file: bool = False
    """True if Asterisk did not report the start, or reported a failure: only its disk shows whether a file exists."""
    ended_at: int | None = None
    deadline: int | None = None
    """Epoch milliseconds of the API's time limit; of a recording that is stopping, those at which it counts as stopped.
    """
    handed_over: bool = False
    api_id: str = ""
    """Id of the API request that started the recording; empty: an element did."""

    @property
    def is_running(self) -> bool:
        """Return True if the recording runs, or is about to, and is not being stopped."""
        return self.state in (RecordingState.REQUESTED, RecordingState.RUNNING)

    @property
    def is_finished(self) -> bool:
        return self.state in (RecordingState.STOPPED, RecordingState.REFUSED)

    def url(self, public_url: str) -> str:
        form = self.element.record_file_format
        return f"{public_url}/v1/Account/{self.auth_id}/Recording/{self.recording_id}.{form}"

    def start(self) -> list[Effect]:
        return [StartRecording(self.bridge_id, self.recording_id, self.auth_id, self.wideband)]

    def mark_started(self, now: int) -> None:
        if self.is_running:
            self.started_at, self.state = now, RecordingState.RUNNING

    def stop(self, now: int) -> list[Effect]:
        if not self.is_running:
            return []
        self.state, self.ended_at, self.deadline = RecordingState.STOPPING, now, now + STOP_TIMEOUT_MS
        return [StopRecording(self.bridge_id, self.recording_id, self.auth_id)]

    def mark_stopped(self, now: int, failed: bool = False) -> None:
        if not self.is_finished:
            self.state, self.deadline = RecordingState.STOPPED, None
            self.may_have_no_file = self.may_have_no_file or failed
            self.ended_at = self.ended_at or now

    def mark_refused(self) -> None:
        self.state, self.deadline, self.handed_over = RecordingState.REFUSED, None, True

    def on_deadline(self, now: int) -> list[Effect]:
        if self.deadline is None or self.deadline > now:
            return []
        if self.is_running:
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
        unconfirmed = self.state is RecordingState.REQUESTED
        yield about._replace(if_there=runs, confirmed_started=False) if unconfirmed else about

    def resume(self, there: AsteriskState) -> list[Effect]:
        """Return the effects in progress, which may have been lost with the previous process."""
        lost = self.state is RecordingState.REQUESTED and self.recording_id not in there.recordings
        return self.start() if lost else []

    # Attendance, speech, and the hand-over.

    def note_attendance(self, member: Member, now: int, left: int | None) -> Outputs:
        """Note a member's attendance and their speech so far. `left`: epoch milliseconds; None: not left yet."""
        if self.handed_over or not member.has_entered_bridge:
            return []
        attendance = AttendanceNoted(member.call_uuid, self.recording_id, member.member_id, member.joined_at, left)
        return [*self.note_speech(member, now), attendance]

    def note_speech(self, member: Member, end: int) -> list[Effect]:
        if self.handed_over or not member.talking or member.silenced:
            return []
        start = max(member.talking_at, self.started_at)
        return [AddSpeechNote(self.recording_id, member.member_id, start, end)] if end > start else []

    def hand_over(self, conference_id: str, name: str, sequence: int, public_url: str) -> StoreRecording:
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
            self.may_have_no_file,
            element.transcription_language,
        )
