"""Events: facts in the past tense, from Asterisk, from the result of an effect, from the API, or from the clock.

Times are epoch milliseconds. The event about an effect's result carries the effect's id: it names
its owner (see `ids`), so that no table is needed to find the owner of a result.
"""

from __future__ import annotations

from ari_conf.core.account import Account
from ari_conf.core.commands import ForCall, ForConference
from ari_conf.core.effects import Effect
from ari_conf.core.elements import Element, Play, Prompt, Speak
from ari_conf.core.frozen import frozen


@frozen
class CallArrived:
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


@frozen
class CallIdentified:
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


@frozen
class ChannelHungUp:
    """End of a channel, by hangup or by leaving the Stasis application in another way. May arrive more than once."""

    channel_id: str
    cause: int = 16
    """Q.850 cause, CANCELED or NO_MEDIA (see `request_params`); 0 if Asterisk reported none."""


@frozen
class ChannelReplaced:
    """Replacement of a channel by another, also in its bridge, because a phone transferred the call."""

    channel_id: str
    by: str


@frozen
class ChannelEnteredBridge:
    channel_id: str
    bridge_id: str


@frozen
class ChannelLeftBridge:
    channel_id: str
    bridge_id: str


@frozen
class BridgeCreated:
    bridge_id: str


@frozen
class BridgeDestroyed:
    bridge_id: str


@frozen
class DigitReceived:
    channel_id: str
    digit: str


@frozen
class TalkingStarted:
    channel_id: str


@frozen
class TalkingFinished:
    channel_id: str


@frozen
class PhoneHeld:
    """Hold by the phone: the audio that it sends from now on, mostly music, does not count as talking."""

    channel_id: str


@frozen
class PhoneResumed:
    channel_id: str


@frozen
class StreamSeen:
    """RTP stream that the phone's audio arrives in."""

    channel_id: str
    source: int
    """SSRC of the stream."""
    jumped: bool = False
    """The sequence numbers of the stream have jumped, which has the same consequences as another stream."""


@frozen
class AudioStopped:
    """End of the phone's audio: for `for_ms` not even silence has arrived, so a caller who talked no longer does."""

    channel_id: str
    for_ms: int


@frozen
class NothingSent:
    """Lack of packets from Asterisk to the phone, which may consider the call dead."""

    channel_id: str


@frozen
class BeepHeard:
    """Voicemail beep on a channel that `DetectBeep` listens to."""

    channel_id: str


@frozen
class SoundPrepared:
    playback_id: str
    media: str
    """Media URI for Asterisk: `sound:/path/without/extension` or `sound:http://…`."""


@frozen
class SoundFailed:
    playback_id: str
    sound: Play | Speak
    reason: str


@frozen
class PlaybackStarted:
    """Start of a playback: the sound is audible from now on."""

    playback_id: str


@frozen
class PlaybackFinished:
    playback_id: str
    failed: bool = False


@frozen
class RecordingStarted:
    conference_id: str
    recording_id: str
    already_running: bool = False
    """Reconciliation found the recording running: it started earlier, while no server received events."""


@frozen
class RecordingFinished:
    conference_id: str
    recording_id: str
    failed: bool = False


@frozen
class DocumentFetched:
    fetch_id: str
    elements: tuple[Element, ...]
    warnings: tuple[str, ...] = ()


@frozen
class DocumentFailed:
    fetch_id: str
    invalid: bool
    """True: the document arrived but can't be run. False: it could not be fetched."""
    reason: str


@frozen
class SoundDocumentFetched:
    """Content of a sound document: its Play, Speak and Wait elements in order; possibly none."""

    fetch_id: str
    sounds: tuple[Prompt, ...]
    warnings: tuple[str, ...] = ()


@frozen
class SoundDocumentFailed:
    fetch_id: str
    reason: str


@frozen
class NameClaimed:
    conference_id: str


@frozen
class NameTaken:
    """Refusal of a name claim: another server has a live conference with that account and name."""

    conference_id: str
    owner: str


@frozen
class EffectFailed:
    effect: Effect
    reason: str
    target_gone: bool = False
    """The target of the effect no longer exists."""
    refused: bool = False
    """Asterisk rejected the request: it was not and will not be carried out. False: that is unknown."""


@frozen
class CommandReceived:
    """Command from the API. Each is received once: its `CommandReply` is persisted together with its changes."""

    command_id: str
    addressed: ForConference | ForCall
    expires_at: int
    """Time at which the API client stops waiting; afterwards the command must not be applied."""


@frozen
class AccountWatched:
    """Request of a viewer to see the members that talk in the account's conferences."""

    auth_id: str
    until: int
    """Time until which the request applies; it is repeated while a viewer watches."""


@frozen
class DeadlineReached:
    """Passing of the earliest deadline of all calls, conferences and failed requests."""


Event = (
    CallArrived
    | CallIdentified
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
    | BeepHeard
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
