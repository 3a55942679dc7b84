"""Effects: orders of the engine to the outside, as plain data. Each has the name of its ARI operation or task.

The effect runner (`server/effect_runner.py`) executes the effects on one channel in order, and those on one bridge in
order. Events provide the order across both: a member is added to a bridge only after `BridgeCreated`. An effect that
fails leads to the event `EffectFailed`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from ari_conf.core.elements import Play, Speak
from ari_conf.core.frozen import Frozen
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.quality import LineQuality

Params = tuple[tuple[str, str], ...]


# Effects on a channel in Asterisk.
#
# `retry_on_disconnect`: Asterisk may have executed the effect when the connection breaks. A second request does no
# harm, and is needed: for most of these effects, no event would reveal that the first one was lost.


class CreateChannel(Frozen):
    """Channel for a call that is placed. Nothing is dialed yet. Event: ChannelCreated."""

    # Asterisk answers 409 to a second request, so the effect runner retries this one with more care.
    retry_on_disconnect: ClassVar[bool] = False
    channel_id: str
    endpoint: str
    """Dial string of Asterisk's, such as `PJSIP/15551234@provider`."""
    from_: str
    caller_name: str
    headers: Params = ()
    """Headers of the INVITE: name, value."""
    not_after: int = 0
    """Time after which the request for the call has been refused: then no channel may be created. 0: no such time."""


class DialChannel(Frozen):
    """Dialing of a created channel. Events: ChannelRinging, ChannelProgress, ChannelAnswered."""

    # The second request would end the call.
    retry_on_disconnect: ClassVar[bool] = False
    channel_id: str
    timeout_s: int
    """Seconds after which Asterisk gives up, should the server be away."""
    repeated: bool = False
    """A process that no longer exists may have dialed the channel: dial only if it has not. Event: DialUnconfirmed."""


class Ring(Frozen):
    """Ringing signal to the caller: callers and carriers give up a call that stays silent for some seconds."""

    retry_on_disconnect: ClassVar[bool] = True
    channel_id: str


class Answer(Frozen):
    retry_on_disconnect: ClassVar[bool] = True
    channel_id: str


class HangUp(Frozen):
    retry_on_disconnect: ClassVar[bool] = True
    channel_id: str
    reason: Literal["normal", "busy", "rejected", "answered_elsewhere"] = "normal"
    """answered_elsewhere: phones list no missed call."""


class AddChannel(Frozen):
    # A channel that is added twice leaves the bridge and re-enters it.
    retry_on_disconnect: ClassVar[bool] = False
    channel_id: str
    bridge_id: str
    member_id: int = 0
    """Member that the effect is for, so that a late failure is not taken for another membership's. 0: no member."""


class RemoveChannel(Frozen):
    retry_on_disconnect: ClassVar[bool] = True
    channel_id: str
    bridge_id: str
    member_id: int = 0


class MuteChannel(Frozen):
    """Mute, on or off: while it is on, nobody hears the channel."""

    retry_on_disconnect: ClassVar[bool] = True
    channel_id: str
    muted: bool


class DeafenChannel(Frozen):
    retry_on_disconnect: ClassVar[bool] = True
    channel_id: str
    deaf: bool


class StartMusic(Frozen):
    """Music of the default music-on-hold class, for this channel only."""

    retry_on_disconnect: ClassVar[bool] = True
    channel_id: str


class StopMusic(Frozen):
    retry_on_disconnect: ClassVar[bool] = True
    channel_id: str


class SendSilence(Frozen):
    """Silence, on or off: packets of silence to the phone until a sound is played or the effect is switched off.

    In a bridge, the phone would hear nothing else.
    """

    retry_on_disconnect: ClassVar[bool] = True
    channel_id: str
    silence: bool


class SendDigits(Frozen):
    """Digits to the phone, as RFC 4733 events in sequence."""

    # The phone would get the digits twice.
    retry_on_disconnect: ClassVar[bool] = False
    channel_id: str
    digits: str
    tone_ms: int = 0
    """Length of each tone in milliseconds. 0: Asterisk's, 100."""


class DetectTalking(Frozen):
    """Talk detection, on or off: while it is on, Asterisk sends TalkingStarted and TalkingFinished."""

    retry_on_disconnect: ClassVar[bool] = True
    channel_id: str
    silence_ms: int | None
    """Milliseconds of silence that end talking. None: talk detection is off."""


class DetectBeep(Frozen):
    channel_id: str
    on: bool
    call_uuid: str
    """Call that the channel belongs to: the ids of what listens to the channel name it."""


class ListenForMachine(Frozen):
    """Listening, on or off, for what tells an answering machine from a person. Results: ListeningStarted,
    PhraseStarted, PhraseEnded and ToneHeard, or ListeningFailed."""

    channel_id: str
    on: bool
    call_uuid: str
    """Call that the channel belongs to: the ids of what listens to the channel name it."""


# Effects on a bridge in Asterisk.


class CreateBridge(Frozen):
    # Asterisk answers 409 to a second request, so the effect runner retries this one with more care.
    retry_on_disconnect: ClassVar[bool] = False
    bridge_id: str


class DestroyBridge(Frozen):
    retry_on_disconnect: ClassVar[bool] = True
    bridge_id: str


# Effects on a recording in Asterisk.


class Snoop(Frozen):
    """Snoop channel, which hears what another channel does: what is recorded of a call."""

    channel_id: str
    """Channel of the call."""
    direction: Literal["in", "out", "both"]
    """in: what the caller says. out: what they hear. both: the two mixed."""


class StartRecording(Frozen):
    # Asterisk answers 409 to a second request, so the effect runner retries this one with more care.
    retry_on_disconnect: ClassVar[bool] = False
    source_id: str
    """Bridge that is recorded, or snoop channel, which is created before."""
    recording_id: str
    auth_id: str
    wideband: bool = False
    """Sample rate of 16 kHz; otherwise 8 kHz."""
    snoop: Snoop | None = None
    """None: the source is a bridge."""


class StopRecording(Frozen):
    """End of a recording; a snoop channel that was recorded is hung up."""

    retry_on_disconnect: ClassVar[bool] = True
    source_id: str = msgspec.field(name="bridge_id")
    """As in `StartRecording`. Calls and conferences remember the effect under the older name."""
    recording_id: str
    auth_id: str


# Effects on a channel or a bridge in Asterisk.


class Target(Frozen):
    """Channel or bridge that a sound is played to."""

    kind: Literal["channel", "bridge"]
    id: str


class PlayMedia(Frozen):
    # The sound might be heard twice.
    retry_on_disconnect: ClassVar[bool] = False
    target: Target
    playback_id: str
    media: tuple[str, ...]
    offset_ms: int = 0
    """Milliseconds of the first sound to skip: it continues after an interruption."""


class StopPlayback(Frozen):
    retry_on_disconnect: ClassVar[bool] = True
    target: Target
    playback_id: str


# Effects on other components.


class IdentifyCall(Frozen):
    """Lookup of the account and of the INVITE's X-PH-* headers. Result: CallIdentified."""

    call_uuid: str
    channel_id: str
    auth_id: str


class ReadCodec(Frozen):
    """Lookup of the codec of a call that was placed and is answered. Result: CodecRead."""

    call_uuid: str
    channel_id: str


class FetchDocument(Frozen):
    """Request for a document. Result: DocumentFetched or DocumentFailed."""

    fetch_id: str
    auth_id: str
    source: str
    """URL, or name of a local document."""
    method: str
    params: Params


class FetchSoundDocument(Frozen):
    """Request for a sound document. Result: SoundDocumentFetched or SoundDocumentFailed."""

    fetch_id: str
    auth_id: str
    url: str
    params: Params


class PrepareSound(Frozen):
    """Preparation of a sound for playback. Result: SoundPrepared or SoundFailed."""

    playback_id: str
    sound: Play | Speak


class WarmSounds(Frozen):
    """Prefetching of sounds that the call may need soon. No result."""

    call_uuid: str
    auth_id: str
    sounds: tuple[Play | Speak, ...]


class StopPreparing(Frozen):
    """End of all preparing and fetching for a call or conference that has ended. No result."""

    owner: str
    """UUID of the call, or id of the conference."""


class ClaimName(Frozen):
    """Name claim for a conference. Result: NameClaimed or NameTaken."""

    auth_id: str
    name: str
    conference_id: str


class ReleaseName(Frozen):
    auth_id: str
    name: str
    conference_id: str


class PostCallback(Frozen):
    """Callback to deliver, in the order of its partition. The core gets no result."""

    ordering_scope: str
    """UUID of the conference or call; together with the URL it determines the partition."""
    auth_id: str
    url: str
    method: str
    params: Params


class AdmitDial(Frozen):
    """Question whether a Dial may place its calls, and by which ways. Result: DialAdmitted. It may be repeated: a call
    that is admitted again under its UUID counts once."""

    dial_id: str
    auth_id: str
    legs: tuple[tuple[str, str], ...]
    """UUID and destination of each call."""
    caller_ids: tuple[str, ...]
    """Caller IDs to show, the first that the account may show."""
    caller_name: str
    """Empty: the caller ID."""
    time_limit_s: int


class RecordDialing(Frozen):
    """Place of a placed call in the dialing limits: it counts from its admission until its end. Times in epoch ms."""

    auth_id: str
    call_uuid: str
    trunk: str
    """Trunk over which the call is dialed now, or was answered."""
    ends_ms: int
    """Time until which the call lives at the latest."""
    answered_ms: int | None = None
    ended_ms: int | None = None
    """Time at which the call has ended; None: it lives."""
    previous_trunk: str = ""
    """Trunk over which it was dialed before, if it was another one."""


class AddAttendanceNote(Frozen):
    """Recording note: when a member was in the recorded conference, in epoch ms. Duplicates count as one note."""

    recording_id: str
    member_id: int
    call_uuid: str
    from_: str
    to: str
    entered_ms: int
    left_ms: int | None
    """None: the member was still in the conference when the recording ended."""


class AddSpeechNote(Frozen):
    """Recording note: when a member spoke, in epoch ms. Duplicates count as one note."""

    recording_id: str
    member_id: int
    start_ms: int
    end_ms: int


class StoreRecording(Frozen):
    """Recording job: upload Asterisk's file to the bucket, then send the callback, then transcribe the recording."""

    recording_id: str
    auth_id: str
    conference_id: str
    """Empty, like the name: the recording of a call."""
    conference_name: str
    call_uuid: str
    """Call whose element requested the recording, or that is recorded itself."""
    record_url: str
    file_format: str
    start_ms: int
    end_ms: int
    callback: PostCallback | None
    """Record callback without the parameters that depend on the file: RecordingDuration and RecordingDurationMs.

    If the API requested the recording (`api_id` is among the parameters), these are recording_duration and
    recording_duration_ms.
    """
    transcribe: bool
    transcription_url: str | None
    transcription_method: str
    failed: bool = False
    """Asterisk reported that the recording failed: the file may not exist."""
    transcription_language: str | None = None
    """None: the account's language."""
    tracks: tuple[str, ...] = ()
    """Tracks of a call's recording: one is stored as mono, two as the left and right channel. Empty: a conference's."""


class ReportProblem(Frozen):
    """Problem, as one sentence for the account's problem list and the log."""

    auth_id: str
    call_uuid: str
    kind: ProblemKind
    code: int | None
    text: str


class ArchiveCall(Frozen):
    """Call that has ended, for the history. Times are epoch ms; numbers have no leading +."""

    call_uuid: str
    auth_id: str
    request_uuid: str
    direction: str
    from_: str
    to: str
    caller_name: str
    initiated_ms: int
    answered_ms: int | None
    ended_ms: int
    status: str
    """CallStatus of the hangup callback."""
    hangup_cause: int
    """Q.850 cause, as `Call.hangup_cause`."""
    hangup_code: int
    """HangupCauseCode."""
    hangup_source: str
    parent_call_uuid: str | None = None
    trunk: str | None = None
    """Trunk of a call that was placed."""
    answered_by: str | None = None
    """human or machine, if that was detected."""


class ArchiveMember(Frozen):
    """Member who has left a conference, for the history. Times are epoch ms."""

    conference_id: str
    member_id: int
    auth_id: str
    call_uuid: str
    joined_ms: int
    left_ms: int
    exit_reason: str
    from_: str = ""
    to: str = ""
    caller_name: str = ""
    talk_ms: int | None = None
    """Total time of talking; None: nothing listened for it."""
    talks: tuple[tuple[int, int], ...] = ()
    """(start, end) of the talks that no ArchiveTalks has."""
    quality: LineQuality | None = None


class ArchiveTalks(Frozen):
    """Talks of a member who is still in the conference, in epoch ms, for the history."""

    conference_id: str
    member_id: int
    auth_id: str
    talks: tuple[tuple[int, int], ...]


class ArchiveConference(Frozen):
    """Conference that has ended, for the history. Times are epoch ms."""

    conference_id: str
    auth_id: str
    name: str
    created_ms: int
    started: bool
    ended_ms: int
    end_reason: str
    members: int
    """Number of members that were ever admitted."""


ArchiveEffect = ArchiveCall | ArchiveMember | ArchiveTalks | ArchiveConference
"""Effects that become entries of the history."""

SwitchOffEffect = StopMusic | SendSilence | StopPlayback | MuteChannel | DeafenChannel | DetectTalking | StopRecording
SwitchOffs = tuple[tuple[int, SwitchOffEffect], ...]
"""(epoch ms, effect) of recent switch-off effects.

They are repeated after a crash unless the feature has been switched on again.
"""

ReplyField = tuple[str, str | tuple[str, ...]]


class CommandReply(Frozen):
    """Reply to an API command, sent once the command's changes have been persisted."""

    command_id: str
    status: int
    """HTTP status."""
    body: tuple[ReplyField, ...] = ()


AsteriskEffect = (
    CreateChannel
    | DialChannel
    | Ring
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
    | CreateBridge
    | DestroyBridge
    | StartRecording
    | StopRecording
    | PlayMedia
    | StopPlayback
)
"""Effects that become requests to Asterisk."""
ExecutedEffect = (
    AsteriskEffect
    | DetectBeep
    | ListenForMachine
    | IdentifyCall
    | ReadCodec
    | FetchDocument
    | FetchSoundDocument
    | PrepareSound
    | WarmSounds
    | StopPreparing
    | ClaimName
    | AdmitDial
)
"""Effects that the effect runner executes once the step is written."""
PersistedEffect = (
    ReleaseName
    | PostCallback
    | RecordDialing
    | AddAttendanceNote
    | AddSpeechNote
    | StoreRecording
    | ReportProblem
    | CommandReply
    | ArchiveEffect
)
"""Effects that are part of the step that is written."""
Effect = ExecutedEffect | PersistedEffect
