"""Commands: requests of the API to a conference, a call or a node, as plain data, and their addresses."""

from __future__ import annotations

from typing import Literal

from ari_conf.core.account import Account
from ari_conf.core.elements import Play, Speak
from ari_conf.core.frozen import Frozen
from ari_conf.core.placing import CallOptions, CallToPlace
from ari_conf.core.queued_sound import QueuedSound

Members = tuple[int, ...] | None
"""Member ids; None: all members who are present."""


class Mute(Frozen):
    members: Members
    on: bool


class Deafen(Frozen):
    members: Members
    on: bool


class Hold(Frozen):
    """Hold, on or off: members leave the bridge and hear music, or return to the bridge."""

    members: Members
    on: bool
    url: str | None = None
    """URL of the hold sound; None: the default music."""


class Kick(Frozen):
    members: Members


class HangUpMembers(Frozen):
    members: Members


class PlayToMembers(Frozen):
    """Private playback to each member, after the sounds already queued for that member."""

    members: Members
    sound: Play | Speak


class StopPlaying(Frozen):
    """Stop of private playback: the current sound if it is of this kind, and the queued sounds of this kind."""

    members: Members
    kind: Literal["Play", "Speak"]


class Announce(Frozen):
    """Announcement to the whole conference, in a single playback."""

    sound: Play | Speak


class StopAnnouncing(Frozen):
    pass


class Lock(Frozen):
    """Lock, on or off: while it is on, no further caller is admitted."""

    on: bool


class Record(Frozen):
    recording_id: str
    file_format: Literal["mp3", "wav"] = "mp3"
    time_limit: int | None = None
    """Seconds. None: until the recording is stopped or the conference ends."""
    callback_url: str | None = None
    callback_method: str = "POST"
    transcription_type: str | None = None
    transcription_url: str | None = None
    transcription_method: str = "POST"
    transcription_language: str | None = None
    """None: the account's language."""


class StopRecording(Frozen):
    pass


class HangUpAll(Frozen):
    pass


class HangUpCall(Frozen):
    pass


Legs = Literal["aleg", "bleg", "both"]
"""Legs of a call: its own (aleg), the one that it is bridged with (bleg), or both."""


class Transfer(Frozen):
    """Break-off of what runs on the legs; each continues with the document of its URL."""

    legs: Legs = "aleg"
    aleg_url: str = ""
    aleg_method: str = "POST"
    bleg_url: str = ""
    bleg_method: str = "POST"


class PlayToCall(Frozen):
    """Playback to a call, after the sounds that the API has already queued for it."""

    sound: QueuedSound
    legs: Legs = "aleg"


class StopPlayingToCall(Frozen):
    """Stop of what the API plays to a call: the current sound if it is of this kind, and the queued ones of it."""

    kind: Literal["Play", "Speak"]


class SendDigitsToCall(Frozen):
    digits: str
    """Digits 0-9 * #, and pauses: w (0.5 s), W (1 s)."""
    legs: Legs = "aleg"


class RecordCall(Frozen):
    recording_id: str
    file_format: Literal["mp3", "wav"] = "mp3"
    stereo: bool = True
    """The caller on the left channel, and what they hear on the right one. False: both mixed."""
    time_limit: int = 60
    """Seconds."""
    callback_url: str | None = None
    callback_method: str = "POST"
    transcription_type: str | None = None
    transcription_url: str | None = None
    transcription_method: str = "POST"
    transcription_language: str | None = None
    """None: the account's language."""


class StopRecordingCall(Frozen):
    url: str | None = None
    """RecordUrl of the recording to stop. None: all that the API has started."""


class HangUpCalls(Frozen):
    """Hangup of the account's calls: of whole conferences first, until at least `at_most` calls are being hung up. The
    reply says how many calls are left."""

    at_most: int


class PlaceCalls(Frozen):
    """Calls to place, each on its own. The reply has the UUIDs of all of them, or none is placed."""

    account: Account
    options: CallOptions
    calls: tuple[CallToPlace, ...]


class WatchAccount(Frozen):
    """Notice that the account's conferences have viewers, until the command expires. Each owner gets it and may get it
    twice; none replies."""

    auth_id: str


ConferenceCommand = (
    Mute
    | Deafen
    | Hold
    | Kick
    | HangUpMembers
    | PlayToMembers
    | StopPlaying
    | Announce
    | StopAnnouncing
    | Lock
    | Record
    | StopRecording
    | HangUpAll
)
"""Commands that `conferences/command_handler.py` applies."""


class ForConference(Frozen):
    """Command to the live conference of that account and name."""

    auth_id: str
    name: str
    command: ConferenceCommand


CallCommand = HangUpCall | Transfer | PlayToCall | StopPlayingToCall | SendDigitsToCall | RecordCall | StopRecordingCall
LiveCommand = Transfer | PlayToCall | StopPlayingToCall | SendDigitsToCall
"""Commands that `calls/live_commands.py` applies."""


class ForCall(Frozen):
    """Command to a live call of that account."""

    auth_id: str
    call_uuid: str
    command: CallCommand


class ForAccount(Frozen):
    """Command about the calls of that account on the server that receives it."""

    auth_id: str
    command: HangUpCalls | PlaceCalls


class ForNode(Frozen):
    """Command to the server that receives it."""

    command: WatchAccount


Addressed = ForConference | ForCall | ForAccount | ForNode
