"""Recording of a call: what the caller says, or both what they say and what they hear.

Asterisk records snoop channels, which listen to the call's channel. Unlike a recording of the channel itself, they go
on wherever the call is: in a conference, on hold, between elements. They write silence where the phone sends nothing,
so that the file is as long as the time that it covers.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Protocol

from ari_conf.core import ids
from ari_conf.core.bounds import MAX_CALL_RECORDINGS
from ari_conf.core.commands import RecordCall, StopRecordingCall
from ari_conf.core.effects import (
    AddAttendanceNote,
    CommandReply,
    Effect,
    Params,
    PostCallback,
    ReportProblem,
    Snoop,
    StartRecording,
    StopRecording,
    StoreRecording,
)
from ari_conf.core.elements import Record
from ari_conf.core.events import (
    DeadlineReached,
    EffectFailed,
    Event,
    RecordingFinished,
    RecordingStarted,
)
from ari_conf.core.expectations import AsteriskState
from ari_conf.core.messages import Outputs
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.recording import Recording, RecordingState, Track
from ari_conf.core.request_params import as_params, plausible

VOICE, MIX, STEREO = ("in",), ("both",), ("in", "out")
"""Tracks by what they hear of the call: the caller alone, both mixed in one, or both apart."""
CALLBACK_EVENT = "Record"
BACKGROUND_PARAMS = {"RecordingDuration": "-1", "RecordingDurationMs": "-1"}
"""Parameters of the action of a recording that still runs. Spec: "durations −1 while a background recording runs"."""


class CallRecording(Recording, kw_only=True):
    """Recording of a call. Its `params` are the standard parameters of an element's callback."""

    call_uuid: str
    channel_id: str
    url: str
    """RecordUrl."""
    track_names: tuple[str, ...]
    """VOICE, MIX or STEREO."""
    file_format: str = "mp3"
    callback_url: str | None = None
    callback_method: str = "POST"
    transcribe: bool = False
    transcription_url: str | None = None
    transcription_method: str = "POST"
    transcription_language: str | None = None
    time_limit: int | None = None
    """Seconds from the start."""

    @property
    def tracks(self) -> tuple[Track, ...]:
        def track(name: str) -> Track:
            source_id = ids.snoop_channel_id(self.call_uuid, self.recording_id, name)
            return Track(name, source_id, Snoop(self.channel_id, name))  # type: ignore[arg-type]

        return tuple(map(track, self.track_names))

    def started_event(self, track: Track) -> RecordingStarted:
        return RecordingStarted("", self.recording_id, True, self.call_uuid, track.name)

    def finished_event(self, track: Track) -> RecordingFinished:
        return RecordingFinished("", self.recording_id, False, self.call_uuid, track.name)

    def begin(self, now: int) -> list[Effect]:
        self.started_at = now
        self.deadline = now + self.time_limit * 1000 if self.time_limit else None
        return self.start()

    def resume(self, there: AsteriskState) -> list[Effect]:
        if self.state is not RecordingState.STOPPING:
            return super().resume(there)
        return [self.stop_effect(track) for track in self.open_tracks if track.source_id in there.recordings]

    def on_started(self, event: RecordingStarted, now: int) -> None:
        if self.state is RecordingState.REQUESTED:
            self.mark_started(self.started_at if event.already_running else now)
            self.deadline = self.started_at + self.time_limit * 1000 if self.time_limit else None

    @property
    def file_params(self) -> dict[str, str]:
        """Return the parameters that name the recording and its time, for an action."""
        ended_at = self.ended_at or self.started_at
        duration_ms = max(0, ended_at - self.started_at)
        return {
            **self.name_params,
            "RecordingDuration": str(round(duration_ms / 1000)),
            "RecordingDurationMs": str(duration_ms),
            "RecordingStartMs": str(self.started_at),
            "RecordingEndMs": str(ended_at),
        }

    @property
    def name_params(self) -> dict[str, str]:
        return {"RecordUrl": self.url, "RecordingID": self.recording_id}

    def hand_over(self) -> StoreRecording:
        ended_at = self.ended_at or self.started_at
        times = {"RecordingStartMs": str(self.started_at), "RecordingEndMs": str(ended_at)}
        params = dict(self.params) | self.name_params | times | {"Timestamp": str(ended_at)}
        if self.api_id:
            params = {
                "api_id": self.api_id,
                "record_url": self.url,
                "call_uuid": self.call_uuid,
                "recording_id": self.recording_id,
                "recording_start_ms": str(self.started_at),
                "recording_end_ms": str(ended_at),
            }
        callback = None
        if self.callback_url:
            callback = PostCallback(
                self.call_uuid, self.auth_id, self.callback_url, self.callback_method, as_params(params)
            )
        return StoreRecording(
            self.recording_id,
            self.auth_id,
            "",
            "",
            self.call_uuid,
            self.url,
            self.file_format,
            self.started_at,
            ended_at,
            callback,
            self.transcribe,
            self.transcription_url,
            self.transcription_method,
            self.may_have_no_file,
            self.transcription_language,
            self.track_names,
        )


class RecordedCall(Protocol):
    """Part of a call that the functions below use."""

    call_uuid: str
    channel_id: str
    auth_id: str
    from_: str
    to: str
    wideband: bool
    recordings: dict[str, CallRecording]
    step_reports: list[Effect]

    def standard_params(self, event: str) -> Params: ...

    def problem(self, kind: ProblemKind, text: str) -> ReportProblem: ...


# Starting.


def requested_by(call: RecordedCall, element: Record, recording_id: str, public_url: str, now: int) -> CallRecording:
    """Return the recording that the element asks for."""
    stereo = STEREO if element.record_channel_type == "stereo" else MIX
    recording = _recording(call, recording_id, element.file_format, public_url, now)
    recording.track_names = stereo if element.in_background else VOICE
    recording.params = call.standard_params(CALLBACK_EVENT)
    # The element ends a recording of the caller's voice itself, see `record_element`.
    recording.time_limit = element.max_length if element.in_background else None
    recording.callback_url, recording.callback_method = element.callback_url, element.callback_method
    recording.transcribe = element.transcription_type is not None
    recording.transcription_url = element.transcription_url
    recording.transcription_method = element.transcription_method
    recording.transcription_language = element.transcription_language
    return recording


def _recording(call: RecordedCall, recording_id: str, file_format: str, public_url: str, now: int) -> CallRecording:
    return CallRecording(
        recording_id=recording_id,
        auth_id=call.auth_id,
        call_uuid=call.call_uuid,
        channel_id=call.channel_id,
        started_at=now,
        url=f"{public_url}/v1/Account/{call.auth_id}/Recording/{recording_id}.{file_format}",
        track_names=MIX,
        file_format=file_format,
        wideband=call.wideband,
    )


def begin(call: RecordedCall, recording: CallRecording, now: int) -> list[Effect] | None:
    """Begin the recording, or return None if the call has as many as it may."""
    if len(call.recordings) >= MAX_CALL_RECORDINGS:
        return None
    call.recordings[recording.recording_id] = recording
    return recording.begin(now)


TOO_MANY = f"{MAX_CALL_RECORDINGS} recordings of this call are running: stop one, or wait for its end"


# Commands of the API.


def handle_command(
    call: RecordedCall, command_id: str, command: RecordCall | StopRecordingCall, public_url: str, now: int
) -> Outputs:
    if isinstance(command, RecordCall):
        return _record(call, command_id, command, public_url, now)
    running = [r for r in call.recordings.values() if r.is_running and _is_meant(r, command.url)]
    if not running:
        return [_refusal(command_id, HTTPStatus.NOT_FOUND, "the call is not being recorded")]
    stops: Outputs = [effect for recording in running for effect in recording.stop(now)]
    return [*stops, CommandReply(command_id, HTTPStatus.NO_CONTENT.value)]


def _is_meant(recording: CallRecording, url: str | None) -> bool:
    return recording.url == url if url else bool(recording.api_id)


def _record(call: RecordedCall, command_id: str, wanted: RecordCall, public_url: str, now: int) -> Outputs:
    recording = _recording(call, wanted.recording_id, wanted.file_format, public_url, now)
    recording.track_names = STEREO if wanted.stereo else MIX
    recording.api_id, recording.time_limit = command_id, wanted.time_limit
    recording.callback_url, recording.callback_method = wanted.callback_url, wanted.callback_method
    recording.transcribe = wanted.transcription_type is not None
    recording.transcription_url, recording.transcription_method = wanted.transcription_url, wanted.transcription_method
    recording.transcription_language = wanted.transcription_language
    started = begin(call, recording, now)
    if started is None:
        return [_refusal(command_id, HTTPStatus.CONFLICT, TOO_MANY)]
    body = (("url", recording.url), ("message", "call recording started"), ("recording_id", recording.recording_id))
    return [*started, CommandReply(command_id, HTTPStatus.ACCEPTED.value, body)]


def _refusal(command_id: str, status: HTTPStatus, error: str) -> CommandReply:
    return CommandReply(command_id, status.value, (("error", error),))


# Events.


def handle_event(call: RecordedCall, event: Event, now: int) -> tuple[Outputs, list[CallRecording]]:
    """Handle what concerns the call's recordings, hand over those that have ended, and return these as well."""
    out: Outputs = []
    match event:
        case RecordingStarted(recording_id=recording_id) if recording := call.recordings.get(recording_id):
            recording.on_started(event, now)
        case RecordingFinished(recording_id=recording_id) if recording := call.recordings.get(recording_id):
            out += _on_finished(call, recording, event, now)
        case EffectFailed():
            out += _on_effect_failed(call, event, now)
        case DeadlineReached():
            for recording in call.recordings.values():
                out += recording.on_deadline(now)
    ended = [r for r in call.recordings.values() if r.is_finished]
    return out + _hand_over_all(call, ended, now), ended


def _on_finished(call: RecordedCall, recording: CallRecording, event: RecordingFinished, now: int) -> Outputs:
    by_itself = recording.is_running
    tracks = {track.name: track for track in recording.tracks}
    out: Outputs = [*recording.mark_track_ended(event.track, now, event.failed)]
    if by_itself and event.track in tracks:
        # Its snoop channel would otherwise listen until the end of the call.
        out.append(recording.stop_effect(tracks[event.track]))
        # A hangup that explains it may be on its way: then the problem is one too many, and nothing else is wrong.
        text = f"recording {recording.recording_id} stopped unexpectedly; the call continues: is Asterisk's disk full?"
        out.append(call.problem(ProblemKind.RECORDING_FAILED, text))
    return out


def _on_effect_failed(call: RecordedCall, failure: EffectFailed, now: int) -> Outputs:
    effect = failure.effect
    if not isinstance(effect, StartRecording | StopRecording):
        return []
    recording = call.recordings.get(effect.recording_id)
    track = next((t for t in recording.tracks if t.source_id == effect.source_id), None) if recording else None
    if recording is None or track is None:
        return []
    if isinstance(effect, StopRecording):
        # Otherwise it may still run: StopRecording is repeated, and the recording's deadline decides.
        return [*recording.mark_track_ended(track.name, now)] if failure.target_gone else []
    recording.may_have_no_file = True
    out: Outputs = []
    if failure.refused and recording.state is RecordingState.REQUESTED and len(recording.tracks) == 1:
        recording.mark_refused()
    elif failure.refused:
        out += recording.mark_track_ended(track.name, now)
    if not failure.target_gone:
        text = f"recording {recording.recording_id} of the call could not be started: {failure.reason}"
        out.append(call.problem(ProblemKind.RECORDING_FAILED, text))
    return out


# The end.


def end_all(call: RecordedCall, now: int) -> Outputs:
    """End the recordings of a call whose channel has ended, and hand them over. Asterisk ends the snoop channels with
    it; the worker that stores a file waits until it is complete."""
    out: Outputs = []
    for recording in call.recordings.values():
        recording.may_have_no_file = recording.may_have_no_file or recording.state is RecordingState.REQUESTED
        recording.started_at = recording.started_at if plausible(recording.started_at) else now
        recording.ended_at = recording.ended_at if plausible(recording.ended_at) else now
        out += recording.stop(now)
        recording.mark_stopped(now)
    return out + _hand_over_all(call, list(call.recordings.values()), now)


def _hand_over_all(call: RecordedCall, ended: list[CallRecording], now: int) -> Outputs:
    out: Outputs = []
    for recording in ended:
        if not recording.handed_over:
            job: list[Effect] = [_note_of_numbers(call, recording), recording.hand_over()]
            call.step_reports += job
            out += job
            recording.handed_over = True
        del call.recordings[recording.recording_id]
    return out


def _note_of_numbers(call: RecordedCall, recording: CallRecording) -> AddAttendanceNote:
    """Return the note of the call's numbers, by which its recording is found. The call is no member: its id is 0."""
    from_, to = call.from_.removeprefix("+"), call.to.removeprefix("+")
    times = recording.started_at, recording.ended_at
    return AddAttendanceNote(recording.recording_id, 0, call.call_uuid, from_, to, *times)
