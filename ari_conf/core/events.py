"""Events: facts in the past tense, from Asterisk, from the result of an effect, from the API, or from the clock.

Times are epoch milliseconds. The event about an effect's result carries the effect's id: it names
its owner (see `ids`), so that no table is needed to find the owner of a result.
"""

from __future__ import annotations

from ari_conf.core.account import Account
from ari_conf.core.commands import ForAccount, ForCall, ForConference
from ari_conf.core.effects import Effect
from ari_conf.core.elements import Element, Play, Prompt, Speak
from ari_conf.core.frozen import Frozen
from ari_conf.core.placing import CallToPlace
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.quality import LineMeasurement


class CallArrived(Frozen):
    """Arrival of a channel in `Stasis(ari_conf,AUTH_ID[,DOCUMENT[,METHOD]])`."""

    channel_id: str
    call_uuid: str
    request_uuid: str
    auth_id: str
    from_: str
    to: str
    caller_name: str = ""
    direction: str = "inbound"
    document: str | None = None
    """URL, or name of a local document. None: the account's answer URL."""
    method: str = "POST"
    answered: bool = False


class CallIdentified(Frozen):
    """Result of `IdentifyCall`: the account (None: no account has that id) and the INVITE's X-PH-* headers."""

    call_uuid: str
    account: Account | None
    headers: tuple[tuple[str, str], ...] = ()
    wideband: bool = False
    """The call's codec has a sample rate above 8 kHz."""
    withheld: bool = False
    """The caller's number and name must not be disclosed."""
    warnings: tuple[str, ...] = ()
    """Problems with headers that are missing, or not as they were sent."""


class ChannelCreated(Frozen):
    """Existence of a channel that the server has requested, in the Stasis application: it can be dialed now."""

    channel_id: str


class ChannelRinging(Frozen):
    """Ringing of the phone that is dialed. May arrive more than once."""

    channel_id: str


class ChannelProgress(Frozen):
    """Audio from the far end before the answer: early media. May arrive more than once."""

    channel_id: str


class ChannelAnswered(Frozen):
    """Answer of the phone that is dialed. May arrive more than once."""

    channel_id: str


class DialUnconfirmed(Frozen):
    """It is unknown whether a channel was dialed: the process that ordered it no longer exists."""

    channel_id: str


class CodecRead(Frozen):
    """Result of `ReadCodec`."""

    call_uuid: str
    wideband: bool
    """The call's codec has a sample rate above 8 kHz."""


class DialAdmitted(Frozen):
    """Result of `AdmitDial`: the calls that may be placed, and why others may not."""

    dial_id: str
    calls: tuple[CallToPlace, ...]
    refusals: tuple[str, ...] = ()


class MinutesUsedUp(Frozen):
    """End of the time that the account's placed calls may take on this day: this one is hung up. May arrive twice."""

    call_uuid: str


class ChannelHungUp(Frozen):
    """End of a channel, by hangup or by leaving the Stasis application in another way. May arrive more than once."""

    channel_id: str
    cause: int = 16
    """Q.850 cause, CANCELED or NO_MEDIA (see `request_params`); 0 if Asterisk reported none."""
    sip_status: int = 0
    """SIP status with which the phone that was dialed has refused; 0 if it has not, or Asterisk reported none."""


class ChannelReplaced(Frozen):
    """Replacement of a channel by another, also in its bridge, because a phone transferred the call."""

    channel_id: str
    by: str


class ChannelEnteredBridge(Frozen):
    channel_id: str
    bridge_id: str


class ChannelLeftBridge(Frozen):
    channel_id: str
    bridge_id: str


class BridgeCreated(Frozen):
    bridge_id: str


class BridgeDestroyed(Frozen):
    bridge_id: str


class DigitReceived(Frozen):
    channel_id: str
    digit: str


class TalkingStarted(Frozen):
    channel_id: str


class TalkingFinished(Frozen):
    channel_id: str


class PhoneHeld(Frozen):
    """Hold by the phone: the audio that it sends from now on, mostly music, does not count as talking."""

    channel_id: str


class PhoneResumed(Frozen):
    channel_id: str


class StreamSeen(Frozen):
    """RTP stream that the phone's audio arrives in."""

    channel_id: str
    source: int
    """SSRC of the stream."""
    jumped: bool = False
    """The sequence numbers of the stream have jumped, which has the same consequences as another stream."""


class AudioStopped(Frozen):
    """End of the phone's audio: for `for_ms` not even silence has arrived, so a caller who talked no longer does."""

    channel_id: str
    for_ms: int


class NothingSent(Frozen):
    """Lack of packets from Asterisk to the phone, which may consider the call dead."""

    channel_id: str


class LineMeasured(Frozen):
    """Measurement of the quality of a line; only those of members have an effect."""

    channel_id: str
    measurement: LineMeasurement


class BeepHeard(Frozen):
    """Voicemail beep on a channel that `DetectBeep` listens to."""

    channel_id: str


class ListeningEvent(Frozen):
    """Base of the events that `ListenForMachine` leads to."""

    channel_id: str


class ListeningStarted(ListeningEvent):
    """First audio that arrived for `ListenForMachine`; again after each start of a listener."""


class ListeningFailed(ListeningEvent):
    """End of the listening of `ListenForMachine`: what is said on the channel can't be heard."""

    reason: str


class PhraseStarted(ListeningEvent):
    """Start of a phrase, heard by `ListenForMachine`."""

    ago_ms: int
    """Milliseconds since then."""


class PhraseEnded(ListeningEvent):
    """End of a phrase, heard by `ListenForMachine`."""

    ago_ms: int
    is_speech: bool = True
    """False: what began was noise or a tone, not speech."""


class ToneHeard(ListeningEvent):
    """Beep, heard by `ListenForMachine`."""


class SoundPrepared(Frozen):
    playback_id: str
    media: str
    """Media URI for Asterisk: `sound:/path/without/extension` or `sound:http://…`."""


class SoundFailed(Frozen):
    playback_id: str
    sound: Play | Speak
    kind: ProblemKind
    reason: str


class PlaybackStarted(Frozen):
    """Start of a playback: the sound is audible from now on."""

    playback_id: str


class PlaybackFinished(Frozen):
    playback_id: str
    failed: bool = False


class RecordingStarted(Frozen):
    conference_id: str
    recording_id: str
    already_running: bool = False
    """Reconciliation found the recording running: it started earlier, while no server received events."""
    call_uuid: str = ""
    """Call that is recorded; empty: the conference is."""
    track: str = ""


class RecordingFinished(Frozen):
    """End of a recording, or of one track of a call's recording."""

    conference_id: str
    recording_id: str
    failed: bool = False
    call_uuid: str = ""
    track: str = ""


class DocumentFetched(Frozen):
    fetch_id: str
    elements: tuple[Element, ...]
    warnings: tuple[str, ...] = ()


class DocumentFailed(Frozen):
    fetch_id: str
    kind: ProblemKind
    reason: str

    @property
    def invalid(self) -> bool:
        """Return True if the document arrived but can't be run, False if it could not be fetched."""
        return self.kind == ProblemKind.DOCUMENT_INVALID


class SoundDocumentFetched(Frozen):
    """Content of a sound document: its Play, Speak and Wait elements in order; possibly none."""

    fetch_id: str
    sounds: tuple[Prompt, ...]
    warnings: tuple[str, ...] = ()


class SoundDocumentFailed(Frozen):
    fetch_id: str
    kind: ProblemKind
    reason: str


class NameClaimed(Frozen):
    conference_id: str


class NameTaken(Frozen):
    """Refusal of a name claim: another server has a live conference with that account and name."""

    conference_id: str
    owner: str


class EffectFailed(Frozen):
    effect: Effect
    reason: str
    target_gone: bool = False
    """The target of the effect no longer exists."""
    refused: bool = False
    """Asterisk rejected the request: it was not and will not be carried out. False: that is unknown."""


class CommandReceived(Frozen):
    """Command from the API. Each is received once: its `CommandReply` is persisted together with its changes."""

    command_id: str
    addressed: ForConference | ForCall | ForAccount
    expires_at: int
    """Time at which the API client stops waiting; afterwards the command must not be applied."""


class AccountWatched(Frozen):
    """Request of a viewer to see the members that talk in the account's conferences."""

    auth_id: str
    until: int
    """Time until which the request applies; it is repeated while a viewer watches."""


class DeadlineReached(Frozen):
    """Passing of the earliest deadline of all calls, conferences and failed requests."""


Event = (
    CallArrived
    | CallIdentified
    | ChannelCreated
    | ChannelRinging
    | ChannelProgress
    | ChannelAnswered
    | DialUnconfirmed
    | CodecRead
    | DialAdmitted
    | MinutesUsedUp
    | ChannelHungUp
    | ChannelReplaced
    | ChannelEnteredBridge
    | ChannelLeftBridge
    | BridgeCreated
    | BridgeDestroyed
    | DigitReceived
    | TalkingStarted
    | TalkingFinished
    | PhoneHeld
    | PhoneResumed
    | StreamSeen
    | AudioStopped
    | NothingSent
    | LineMeasured
    | BeepHeard
    | ListeningStarted
    | ListeningFailed
    | PhraseStarted
    | PhraseEnded
    | ToneHeard
    | SoundPrepared
    | SoundFailed
    | PlaybackStarted
    | PlaybackFinished
    | RecordingStarted
    | RecordingFinished
    | DocumentFetched
    | DocumentFailed
    | SoundDocumentFetched
    | SoundDocumentFailed
    | NameClaimed
    | NameTaken
    | EffectFailed
    | CommandReceived
    | AccountWatched
    | DeadlineReached
)
