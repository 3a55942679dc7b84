"""What has happened. Facts, in the past tense: from Asterisk, from what an effect brought, from the clock.

Times are epoch milliseconds. An id that an effect carried comes back in its event: `playback_id` and `fetch_id` name
their owner (see `ids`), so that nothing has to be remembered to find whom an answer is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ari_conf.core.account import Account
from ari_conf.core.commands import Command
from ari_conf.core.elements import Element, Play, Prompt, Speak
from ari_conf.core.fact import fact

if TYPE_CHECKING:
    from ari_conf.core.effects import Effect


@fact
class CallArrived:
    """A channel entered `Stasis(ari_conf,AUTH_ID[,DOCUMENT[,METHOD]])`."""

    channel_id: str
    call_uuid: str
    request_uuid: str
    auth_id: str
    from_: str
    to: str
    caller_name: str = ""
    direction: str = "inbound"
    document: str | None = None
    """None: the account's answer URL. A URL: that. Else the name of a document kept here."""
    method: str = "POST"
    answered: bool = False


@fact
class CallIdentified:
    """What `IdentifyCall` brought: the account (None: there is none of that id) and the INVITE's X-PH-* headers."""

    call_uuid: str
    account: Account | None
    headers: tuple[tuple[str, str], ...] = ()
    wideband: bool = False
    """His codec carries more than 8 kHz sampled."""
    withheld: bool = False
    """Nobody is to know who calls."""
    warnings: tuple[str, ...] = ()
    """What of the headers is not as it was sent."""


@fact
class ChannelHungUp:
    """The channel has hung up or has left the application in another way. May be told more than once."""

    channel_id: str
    cause: int = 16
    """Q.850, or CANCELED; 0 if Asterisk said none."""


@fact
class ChannelReplaced:
    """Another channel stands in its place, in its bridge too: somebody's phone transferred the call."""

    channel_id: str
    by: str


@fact
class ChannelEnteredBridge:
    channel_id: str
    bridge_id: str


@fact
class ChannelLeftBridge:
    channel_id: str
    bridge_id: str


@fact
class BridgeCreated:
    bridge_id: str


@fact
class BridgeDestroyed:
    bridge_id: str


@fact
class DigitReceived:
    channel_id: str
    digit: str


@fact
class TalkingStarted:
    channel_id: str


@fact
class TalkingFinished:
    channel_id: str


@fact
class PhoneHeld:
    """The phone has put us on hold. What it sends now, music mostly, is nobody's talk."""

    channel_id: str


@fact
class PhoneResumed:
    channel_id: str


@fact
class StreamSeen:
    """What the phone sends comes as this RTP stream."""

    channel_id: str
    source: int
    """Its SSRC."""
    jumped: bool = False
    """Its sequence numbers have jumped, which comes to the same as another stream."""


@fact
class AudioStopped:
    """No sound has come from the phone for so long, not even silence; who talked no longer does."""

    channel_id: str
    for_ms: int


@fact
class NothingSent:
    """Asterisk sends nothing to the phone, which may take the call for dead."""

    channel_id: str


@fact
class BeepHeard:
    """A voicemail beep on a channel that `DetectBeep` listens to."""

    channel_id: str


@fact
class SoundPrepared:
    playback_id: str
    media: str
    """A media URI of Asterisk's: `sound:/path/without/extension` or `sound:http://…`."""


@fact
class SoundFailed:
    playback_id: str
    sound: Play | Speak
    reason: str


@fact
class PlaybackStarted:
    """It is heard now."""

    playback_id: str


@fact
class PlaybackFinished:
    playback_id: str
    failed: bool = False


@fact
class RecordingStarted:
    bridge_id: str
    recording_id: str
    found: bool = False
    """It was found running: it began earlier, when nobody listened."""


@fact
class RecordingFinished:
    bridge_id: str
    recording_id: str
    failed: bool = False


@fact
class DocumentFetched:
    fetch_id: str
    elements: tuple[Element, ...]
    warnings: tuple[str, ...] = ()


@fact
class DocumentFailed:
    fetch_id: str
    invalid: bool
    """True: it came, and can't be run. False: it could not be had."""
    reason: str


@fact
class SoundsFetched:
    """The reply of a sound document: its Play, Speak and Wait in order; perhaps none."""

    fetch_id: str
    sounds: tuple[Prompt, ...]
    warnings: tuple[str, ...] = ()


@fact
class SoundsFailed:
    fetch_id: str
    reason: str


@fact
class NameClaimed:
    conference_id: str


@fact
class NameRefused:
    """Another process holds a live conference of that account and name."""

    conference_id: str
    owner: str


@fact
class EffectFailed:
    effect: Effect
    reason: str
    gone: bool = False
    """What it was about exists no more."""
    refused: bool = False
    """Asterisk said no: it was not done, nor will it be. Else that is not known."""


@fact
class CommandReceived:
    """From the API. Each is received once: its `Reply` is written with what it changes."""

    command_id: str
    auth_id: str
    conference_name: str
    command: Command
    expires_at: int
    """Who asked no longer waits then: it must not be done any more."""


@fact
class AccountWatched:
    """Somebody looks at the account's conferences, and wants to see who talks."""

    auth_id: str
    until: int
    """It is said again while somebody does."""


@fact
class TimePassed:
    """The deadline has come."""


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
    | SoundsFetched
    | SoundsFailed
    | NameClaimed
    | NameRefused
    | EffectFailed
    | CommandReceived
    | AccountWatched
    | TimePassed
)
