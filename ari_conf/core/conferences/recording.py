"""Recording of a conference, from its start until its file is handed over."""

from __future__ import annotations

from ari_conf.core import ids
from ari_conf.core.conferences.member import Member
from ari_conf.core.effects import AddSpeechNote, Effect, PostCallback, StoreRecording
from ari_conf.core.elements import Conference as Element
from ari_conf.core.events import RecordingFinished, RecordingStarted
from ari_conf.core.messages import AttendanceNoted, Outputs
from ari_conf.core.recording import Recording, Track
from ari_conf.core.request_params import as_params


class ConferenceRecording(Recording, kw_only=True):
    """Recording of a conference's bridge. Its `params` are those of the record callback."""

    bridge_id: str
    call_uuid: str
    """UUID of the call whose element requested the recording; empty: the API did."""
    element: Element
    """Element of that call, or one made for the API. It "decides the format, the transcription and where the record
    callback goes" (spec)."""

    def url(self, public_url: str) -> str:
        form = self.element.record_file_format
        return f"{public_url}/v1/Account/{self.auth_id}/Recording/{self.recording_id}.{form}"

    @property
    def tracks(self) -> tuple[Track, ...]:
        return (Track("", self.bridge_id),)

    def started_event(self, track: Track) -> RecordingStarted:
        return RecordingStarted(ids.conference_of(self.bridge_id) or "", self.recording_id, already_running=True)

    def finished_event(self, track: Track) -> RecordingFinished:
        return RecordingFinished(ids.conference_of(self.bridge_id) or "", self.recording_id)

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
