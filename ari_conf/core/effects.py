"""What is to be done: plain data, each named by the verb of the ARI operation or of the task that it becomes.

The interpreter (`service`) runs the effects of one channel in order, and those of one bridge in order. What spans both
is put in order by events: a member is added to a bridge once `BridgeCreated` was seen. An effect that fails comes
back as `EffectFailed`.
"""

from __future__ import annotations

from typing import Literal

from ari_conf.core.elements import Play, Speak
from ari_conf.core.fact import fact

Params = tuple[tuple[str, str], ...]


# To Asterisk, about a channel.


@fact
class Ring:
    """Tell the caller that it rings: whoever hears nothing for some seconds gives up, and carriers do."""

    channel_id: str


@fact
class Answer:
    channel_id: str


@fact
class HangUp:
    channel_id: str
    reason: Literal["normal", "busy", "rejected"] = "normal"


@fact
class AddChannel:
    channel_id: str
    bridge_id: str
    member_id: int = 0
    """Whose stay it is for: a failure that comes late is not another's. 0: no member's."""


@fact
class RemoveChannel:
    channel_id: str
    bridge_id: str
    member_id: int = 0


@fact
class MuteChannel:
    """What the channel says is heard by nobody, or is heard again."""

    channel_id: str
    muted: bool


@fact
class DeafenChannel:
    channel_id: str
    deaf: bool


@fact
class StartMusic:
    """The default music-on-hold class, for this channel alone."""

    channel_id: str


@fact
class StopMusic:
    channel_id: str


@fact
class SendSilence:
    """The phone is sent packets of silence, until something is played or this is undone: in a bridge it would hear
    nothing else."""

    channel_id: str
    silence: bool


@fact
class SendDigits:
    """To the phone: RFC 4733 events, one after another."""

    channel_id: str
    digits: str


@fact
class DetectTalking:
    """TalkingStarted and TalkingFinished from now on, or no longer (silence_ms None)."""

    channel_id: str
    silence_ms: int | None
    """How much silence ends talking."""


@fact
class DetectBeep:
    channel_id: str
    on: bool


# To Asterisk, about a bridge.


@fact
class CreateBridge:
    bridge_id: str


@fact
class DestroyBridge:
    bridge_id: str


@fact
class StartRecording:
    bridge_id: str
    recording_id: str
    auth_id: str
    wideband: bool = False
    """At 16 kHz; else at 8."""


@fact
class StopRecording:
    bridge_id: str
    recording_id: str
    auth_id: str


# To Asterisk, about one or the other.


@fact
class Target:
    """Who hears a sound."""

    kind: Literal["channel", "bridge"]
    id: str


@fact
class PlayMedia:
    target: Target
    playback_id: str
    media: tuple[str, ...]


@fact
class StopPlayback:
    target: Target
    playback_id: str


# To the outside.


@fact
class IdentifyCall:
    """Look the account up, and read the INVITE's X-PH-* headers: CallIdentified."""

    call_uuid: str
    channel_id: str
    auth_id: str


@fact
class FetchDocument:
    """DocumentFetched or DocumentFailed."""

    fetch_id: str
    auth_id: str
    source: str
    """A URL, or the name of a document kept here."""
    method: str
    params: Params


@fact
class FetchSounds:
    """SoundsFetched or SoundsFailed."""

    fetch_id: str
    auth_id: str
    url: str
    params: Params


@fact
class PrepareSound:
    """SoundPrepared or SoundFailed."""

    playback_id: str
    sound: Play | Speak


@fact
class WarmSounds:
    """Prepare these for the call, since they may be wanted soon. Nothing comes back."""

    call_uuid: str
    auth_id: str
    sounds: tuple[Play | Speak, ...]


@fact
class StopPreparing:
    """The call or the conference has ended: nothing is prepared or fetched for it any more. Nothing comes back."""

    owner: str
    """The call's UUID, or the conference's id."""


@fact
class ClaimName:
    """NameClaimed or NameRefused."""

    auth_id: str
    name: str
    conference_id: str


@fact
class ReleaseName:
    auth_id: str
    name: str
    conference_id: str


@fact
class PostCallback:
    """Deliver it, in the order of its lane; nothing comes back to the core."""

    lane: str
    """The conference's or call's UUID: with the URL it makes a lane."""
    auth_id: str
    url: str
    method: str
    params: Params


@fact
class NoteStay:
    """Kept beside the recording: who was in the conference meanwhile. The same note twice is one."""

    recording_id: str
    member_id: int
    call_uuid: str
    from_: str
    to: str
    entered_ms: int
    left_ms: int | None
    """None: he was still in when the recording ended."""


@fact
class NoteTalk:
    """Kept beside the recording: who spoke when, epoch ms. The same note twice is one."""

    recording_id: str
    member_id: int
    start_ms: int
    end_ms: int


@fact
class StoreRecording:
    """Put the file that Asterisk has into the bucket, then send the callback, then have it transcribed."""

    recording_id: str
    auth_id: str
    conference_id: str
    conference_name: str
    call_uuid: str
    """The call whose element asked for it."""
    record_url: str
    file_format: str
    start_ms: int
    end_ms: int
    callback: PostCallback | None
    """Without the parameters that only the file tells: RecordingDuration, RecordingDurationMs. If the API asked for the
    recording (`api_id` is among them) these are recording_duration, recording_duration_ms."""
    transcribe: bool
    transcription_url: str | None
    transcription_method: str
    failed: bool = False
    """Asterisk said that it failed: there may be no file."""
    transcription_language: str | None = None
    """None: the account's."""


@fact
class ReportProblem:
    """A sentence for the account's problem list and the log."""

    auth_id: str
    call_uuid: str
    code: int | None
    text: str


Undoing = StopMusic | SendSilence | StopPlayback | MuteChannel | DeafenChannel | DetectTalking | StopRecording
Undone = tuple[tuple[int, Undoing], ...]
"""When, and what was no longer to be: done again after a crash, unless it is to be once more."""

Field = tuple[str, str | tuple[str, ...]]


@fact
class Reply:
    """What a command of the API is answered, once it is written what it changed."""

    command_id: str
    status: int
    """As in HTTP."""
    body: tuple[Field, ...] = ()


Effect = (
    Ring
    | Answer
    | HangUp
    | AddChannel
    | RemoveChannel
    | MuteChannel
    | DeafenChannel
    | StartMusic
    | StopMusic
    | SendSilence
    | SendDigits
    | DetectTalking
    | DetectBeep
    | CreateBridge
    | DestroyBridge
    | StartRecording
    | StopRecording
    | PlayMedia
    | StopPlayback
    | IdentifyCall
    | FetchDocument
    | FetchSounds
    | PrepareSound
    | WarmSounds
    | StopPreparing
    | ClaimName
    | ReleaseName
    | PostCallback
    | NoteStay
    | NoteTalk
    | StoreRecording
    | ReportProblem
    | Reply
)
