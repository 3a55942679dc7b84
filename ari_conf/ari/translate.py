"""Translation of ARI's messages to the core's events, and of the core's effects to ARI requests. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from ari_conf.common.safe_text import stripped
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.hangup_codes import CANCELED_CAUSE, NO_MEDIA_CAUSE
from ari_conf.core.placing import MAX_TIME_LIMIT_S

INAUDIBLE = -32768
"""Value of VOLUME() for a deafened channel: divides the amplitude of each sample by 32768."""
BRIDGE_TYPE = "mixing,dtmf_events,video_sfu"
LONGEST_PLACED_CALL_S = MAX_TIME_LIMIT_S + 3600
"""Seconds from its creation after which Asterisk itself ends a placed call, in case no server is left that could: more
than the longest time limit, queueing excluded, so that the server's own limit always comes first."""
BRIDGE_NAME = "ari_conf"
"""Name of each bridge that the server creates; other bridges are not touched."""

NON_CALL_PREFIXES = ("Snoop/", "MulticastRTP/", "UnicastRTP/", "WebSocket/", "AudioSocket/", "Message/")
"""Name prefixes of channels that enter the Stasis application as calls do, and are not calls: those that the server
creates to listen, and the one by which Asterisk runs the dialplan for texts outside of calls."""
WRITTEN_NUMBER = re.compile(r"([+]?[-./() ]*[0-9*#][-./() 0-9*#]*)(?:[;,].*)?", re.DOTALL)
SEPARATORS = re.compile(r"[-./() ]")
QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


def to_event(message: Any, new_id: Callable[[], str]) -> ev.Event | None:
    """Return the event of a message from Asterisk; None if it doesn't concern a call, is unknown, or is malformed.
    Never raises.

    `new_id` creates the call's UUID and its request's.
    """
    match message:
        case {"channel": {"name": str(name)}} if name.startswith(NON_CALL_PREFIXES):
            return None
        case {"bridge": {"id": str(bridge_id)}} if ids.tap_creator(bridge_id) is not None:
            return None
        case {
            "type": "StasisStart",
            "channel": {"id": str(new_channel_id)},
            "replace_channel": {"id": str(channel_id)},
        }:
            return ev.ChannelReplaced(channel_id, new_channel_id)
        case {"type": "StasisStart", "channel": {"id": str(channel_id)}} if ids.is_placed(channel_id):
            return ev.ChannelCreated(channel_id)
        case {"type": "StasisStart", "channel": dict(channel)}:
            return _decode_arrival(channel, message.get("args"), new_id)
        case {"type": str(kind)} if (read := EVENT_DECODERS.get(kind)) is not None:
            return read(kind, message)
    return None


def _decode_arrival(channel: Mapping[str, Any], args: Any, new_id: Callable[[], str]) -> ev.CallArrived | None:
    """Return the arrival at `Stasis(ari_conf,ACCOUNT[,DOCUMENT[,METHOD]])`. A call without an account arrives as well;
    it is ended."""
    match channel:
        case {"id": str(channel_id), "name": str()}:
            account, document, method, *_ = (*_texts(args), "", "", "")
            return ev.CallArrived(
                channel_id=channel_id,
                call_uuid=new_id(),
                request_uuid=new_id(),
                auth_id=account,
                from_=_clean_number(stripped(_text(channel, "caller", "number"))),
                to=_clean_number(stripped(_text(channel, "dialplan", "exten"))),
                caller_name=stripped(_caller_name(channel)),
                document=document or None,
                method=method.upper() if method.upper() in ("GET", "POST") else "POST",
                answered=channel.get("state") == "Up",
            )
    return None


def _clean_number(text: str) -> str:
    """Return a phone number without what carriers append to it (`;npdi;rn=…`, `;phone-context=…`), without what a phone
    sends only after the answer (`,1234`), and without the separators that people write (RFC 3966, 5.1.1). Other text is
    unchanged."""
    found = WRITTEN_NUMBER.fullmatch(text)
    return SEPARATORS.sub("", found[1]) if found else text


def _caller_name(channel: Mapping[str, Any]) -> str:
    name = _text(channel, "caller", "name")
    # Asterisk leaves the backslashes in SIP's quoted strings (RFC 3261, 25.1; seen on 22.10.1).
    return QUOTED_PAIR.sub(r"\1", name) if str(channel["name"]).startswith("PJSIP/") else name


def _hangup_cause(message: Mapping[str, Any]) -> int:
    match message:
        case {"soft": True, "cause": 1}:
            # A soft hangup comes from inside Asterisk, and its "cause" is an internal flag. 1 is the channel's own
            # driver, which has received nothing for `rtp_timeout` (seen on 22.10.1). 32 is a request of the server.
            return NO_MEDIA_CAUSE
        case {"soft": True}:
            return 0
        case {"tech_cause": 487}:
            # The caller sent CANCEL; its Reason doesn't matter.
            return CANCELED_CAUSE
        case {"type": "ChannelHangupRequest", "channel": {"state": "Down" | "Ring" | "Ringing"}}:
            # The caller sent BYE before the answer.
            return CANCELED_CAUSE if message.get("cause") in (None, 0, 16, 26, 31, 127) else _cause_number(message)
    return _cause_number(message)


def _cause_number(message: Mapping[str, Any]) -> int:
    cause = message.get("cause")
    return cause if isinstance(cause, int) else 0


def _decode_channel_event(kind: str, message: Mapping[str, Any]) -> ev.Event | None:
    match message.get("channel"):
        case {"id": str(channel_id)}:
            match kind:
                case "ChannelTalkingStarted":
                    return ev.TalkingStarted(channel_id)
                case "ChannelTalkingFinished":
                    return ev.TalkingFinished(channel_id)
                case "ChannelHold":
                    return ev.PhoneHeld(channel_id)
                case "ChannelUnhold":
                    return ev.PhoneResumed(channel_id)
                case "ChannelDtmfReceived":
                    digit = message.get("digit")
                    return ev.DigitReceived(channel_id, digit) if isinstance(digit, str) else None
            if ids.is_placed(channel_id):
                return _decode_placed_hangup(channel_id, message)
            return ev.ChannelHungUp(channel_id, _hangup_cause(message))
    return None


def _decode_placed_hangup(channel_id: str, message: Mapping[str, Any]) -> ev.ChannelHungUp:
    """Return the end of a channel that the server requested. A status that a request of the server has led to is no
    refusal by the phone."""
    if message.get("soft") is True:
        return ev.ChannelHungUp(channel_id, NO_MEDIA_CAUSE if message.get("cause") == 1 else 0)
    status = message.get("tech_cause")
    return ev.ChannelHungUp(channel_id, _cause_number(message), status if isinstance(status, int) else 0)


def _decode_dial_event(kind: str, message: Mapping[str, Any]) -> ev.Event | None:
    match message.get("peer"):
        case {"id": str(channel_id)} if ids.is_placed(channel_id):
            match message.get("dialstatus"):
                case "RINGING":
                    return ev.ChannelRinging(channel_id)
                case "PROGRESS":
                    return ev.ChannelProgress(channel_id)
                case "ANSWER":
                    return ev.ChannelAnswered(channel_id)
    return None


def _decode_bridge_event(kind: str, message: Mapping[str, Any]) -> ev.Event | None:
    match message.get("bridge"), kind, message.get("channel"):
        case {"id": str(bridge_id)}, "ChannelEnteredBridge", {"id": str(channel_id)}:
            return ev.ChannelEnteredBridge(channel_id, bridge_id)
        case {"id": str(bridge_id)}, "ChannelLeftBridge", {"id": str(channel_id)}:
            return ev.ChannelLeftBridge(channel_id, bridge_id)
        case {"id": str(bridge_id)}, "BridgeDestroyed", _:
            return ev.BridgeDestroyed(bridge_id)
    return None


def _decode_playback_event(kind: str, message: Mapping[str, Any]) -> ev.Event | None:
    playback: Any = message.get("playback")
    match playback:
        case {"id": str(playback_id)} if kind == "PlaybackStarted":
            return ev.PlaybackStarted(playback_id)
        case {"id": str(playback_id)}:
            return ev.PlaybackFinished(playback_id, failed=playback.get("state") == "failed")
    return None


def _decode_recording_event(kind: str, message: Mapping[str, Any]) -> ev.Event | None:
    match message.get("recording"):
        case {"name": str(name)} if (found := ids.parse_recording_name(name)) is not None:
            named, of_call = (found.conference_id, found.recording_id), (found.call_uuid, found.track)
            if kind == "RecordingStarted":
                return ev.RecordingStarted(*named, False, *of_call)
            return ev.RecordingFinished(*named, kind == "RecordingFailed", *of_call)
    return None


EVENT_DECODERS: dict[str, Callable[[str, Mapping[str, Any]], ev.Event | None]] = {
    **dict.fromkeys(("StasisEnd", "ChannelDestroyed", "ChannelHangupRequest"), _decode_channel_event),
    **dict.fromkeys(("ChannelDtmfReceived", "ChannelTalkingStarted", "ChannelTalkingFinished"), _decode_channel_event),
    **dict.fromkeys(("ChannelHold", "ChannelUnhold"), _decode_channel_event),
    **dict.fromkeys(("ChannelEnteredBridge", "ChannelLeftBridge", "BridgeDestroyed"), _decode_bridge_event),
    **dict.fromkeys(("PlaybackStarted", "PlaybackFinished"), _decode_playback_event),
    "Dial": _decode_dial_event,
    **dict.fromkeys(("RecordingStarted", "RecordingFinished", "RecordingFailed"), _decode_recording_event),
}
EVENTS = ("StasisStart", *EVENT_DECODERS)
"""Event types that `to_event` understands. Subscribe to no others: a join alone would send a ChannelVarset for every
member."""


def _texts(args: Any) -> list[str]:
    return [arg if isinstance(arg, str) else "" for arg in args] if isinstance(args, list) else []


def _text(outer: Mapping[str, Any], key: str, inner: str) -> str:
    match outer.get(key):
        case {**found} if isinstance(text := found.get(inner), str):
            return text
    return ""


@dataclass(frozen=True, slots=True)
class Request:
    """Request in the form that `Client.request` takes."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    over: Literal["http", "socket"] = "socket"
    """http: for a request that waits for the channel's thread, or for a disk. On the socket it would delay all requests
    behind it."""
    body: Any = None
    """Sent as JSON."""


def to_requests(effect: do.AsteriskEffect, app: str = "") -> tuple[Request, ...]:
    """Return the requests of an effect, to be sent sequentially. `app`: the Stasis application. Raises TypeError for an
    effect that isn't for Asterisk."""
    match effect:
        case do.CreateChannel():
            return (_creation_request(effect, app),)
        case do.CreateBridge() | do.DestroyBridge():
            return (_bridge_request(effect),)
        case do.StartRecording() | do.StopRecording():
            return (_recording_request(effect),)
        case do.PlayMedia() | do.StopPlayback():
            return (_playback_request(effect),)
        case do.AddChannel() | do.RemoveChannel():
            return (_membership_request(effect),)
    return (_channel_request(effect),)


def _creation_request(effect: do.CreateChannel, app: str) -> Request:
    query = {"endpoint": effect.endpoint, "app": app, "appArgs": "placed", "channelId": effect.channel_id}
    # The number that the phone is shown is that of the connected line, not the caller's (seen on 22.10.1).
    variables = {
        "CONNECTEDLINE(num,i)": effect.from_,
        "CONNECTEDLINE(name,i)": effect.caller_name,
        "TIMEOUT(absolute)": str(LONGEST_PLACED_CALL_S),
    }
    headers = {f"PJSIP_HEADER(add,{name})": value for name, value in effect.headers}
    return Request("POST", "/channels/create", query, "http", {"variables": variables | headers})


def _channel_request(effect: do.AsteriskEffect) -> Request:
    match effect:
        case do.DialChannel(channel_id, timeout_s):
            return Request("POST", path("channels", channel_id, "dial"), {"timeout": str(timeout_s)}, over="http")
        case do.Ring(channel_id):
            return Request("POST", path("channels", channel_id, "ring"))
        case do.Answer(channel_id):
            return Request("POST", path("channels", channel_id, "answer"), over="http")
        case do.HangUp(channel_id, reason):
            return Request("DELETE", path("channels", channel_id), {"reason": reason})
        case do.MuteChannel(channel_id, on):
            return Request("POST" if on else "DELETE", path("channels", channel_id, "mute"), {"direction": "in"})
        case do.DeafenChannel(channel_id, on):
            # If the outward direction were muted, a phone would get no packets at all, and many then hang up.
            query = {"variable": "VOLUME(TX)", "value": str(INAUDIBLE if on else 0)}
            return Request("POST", path("channels", channel_id, "variable"), query, over="http")
        case do.StartMusic(channel_id):
            return Request("POST", path("channels", channel_id, "moh"))
        case do.StopMusic(channel_id):
            return Request("DELETE", path("channels", channel_id, "moh"))
        case do.SendSilence(channel_id, on):
            return Request("POST" if on else "DELETE", path("channels", channel_id, "silence"))
        case do.SendDigits(channel_id, digits, tone_ms):
            length = {"duration": str(tone_ms)} if tone_ms else {}
            return Request("POST", path("channels", channel_id, "dtmf"), {"dtmf": digits, **length})
        case do.DetectTalking(channel_id, silence_ms):
            return Request("POST", path("channels", channel_id, "variable"), _talk_detect(silence_ms), over="http")
    raise TypeError(f"{type(effect).__name__} is not an effect for Asterisk")


def _talk_detect(silence_ms: int | None) -> dict[str, str]:
    if silence_ms is None:
        return {"variable": "TALK_DETECT(remove)", "value": ""}
    # 256 is the mean amplitude of a sample from which a frame counts as talking: Asterisk's default.
    return {"variable": "TALK_DETECT(set)", "value": f"{silence_ms},256"}


def _membership_request(effect: do.AddChannel | do.RemoveChannel) -> Request:
    # The channel's own thread does both, and a playback or an answer keeps it busy.
    match effect:
        case do.AddChannel(channel_id, bridge_id):
            # absorbDTMF: a digit reaches the server, and not the other members. The server relays it, so that
            # digitsMatch can be silent.
            query = {"channel": channel_id, "absorbDTMF": "true"}
            return Request("POST", path("bridges", bridge_id, "addChannel"), query, over="http")
        case do.RemoveChannel(channel_id, bridge_id):
            query = {"channel": channel_id}
            return Request("POST", path("bridges", bridge_id, "removeChannel"), query, over="http")


def _bridge_request(effect: do.CreateBridge | do.DestroyBridge) -> Request:
    match effect:
        case do.CreateBridge(bridge_id):
            # dtmf_events: without it, two members that are bridged send the server no digits. video_sfu (without any
            # video): the bridge always mixes. Otherwise Asterisk mixes from the third member on, and each change leaves
            # out 0.1 s. Nothing is then recorded of one or two silent members, so a recording would be too short.
            return Request("POST", "/bridges", {"type": BRIDGE_TYPE, "bridgeId": bridge_id, "name": BRIDGE_NAME})
        case do.DestroyBridge(bridge_id):
            # On the WebSocket, requests run sequentially, as deletes of bridges must (asterisk#211, #1201).
            return Request("DELETE", path("bridges", bridge_id))


def _recording_request(effect: do.StartRecording | do.StopRecording) -> Request:
    name = str(ids.recording_name(effect.source_id, effect.auth_id, effect.recording_id))
    is_of_call = ids.call_of(effect.source_id) is not None
    match effect:
        case do.StartRecording(source_id, _, _, wideband):
            query = {"name": name, "format": "wav", "ifExists": "fail"}
            if wideband:
                query["format"] = "wav16"
                # A channel is recorded at the rate of the file.
                query |= {} if is_of_call else {"recorder_format": "slin16"}
            kind = "channels" if is_of_call else "bridges"
            return Request("POST", path(kind, source_id, "record"), query, over="http")
        case do.StopRecording(source_id) if is_of_call:
            # The recording ends with the snoop channel, whose only purpose it was.
            return Request("DELETE", path("channels", source_id))
        case do.StopRecording():
            return Request("POST", path("recordings", "live", name, "stop"), over="http")


def snoop_request(source_id: str, snoop: do.Snoop, app: str) -> Request:
    """Return the request for the snoop channel `source_id`, which enters the Stasis application `app`."""
    return Request("POST", path("channels", snoop.channel_id, "snoop", source_id), {"spy": snoop.direction, "app": app})


def _playback_request(effect: do.PlayMedia | do.StopPlayback) -> Request:
    match effect:
        case do.PlayMedia(target, playback_id, media, offset_ms):
            query = {"media": ",".join(media), "playbackId": playback_id}
            if offset_ms:
                query["offsetms"] = str(offset_ms)
            return Request("POST", path(f"{target.kind}s", target.id, "play"), query)
        case do.StopPlayback(_, playback_id):
            return Request("DELETE", path("playbacks", playback_id))


def path(*parts: str) -> str:
    return "".join(f"/{quote(part, safe='')}" for part in parts)
