"""Tests of the translation of messages as Asterisk 22.10.1 sent them, without the fields that are not read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from ari_conf.ari.translate import EVENTS, Request, to_event, to_requests
from ari_conf.core import effects as do
from ari_conf.core import events as seen

CHANNEL = {
    "id": "1795342997.0",
    "name": "PJSIP/anonymous-00000000",
    "state": "Ring",
    "caller": {"name": "Ada Caller", "number": "+14155550100"},
    "dialplan": {"context": "ari_conf", "exten": "14155550199", "app_data": 'ari_conf,MA1,""'},
}


def start(*args: Any, **channel: Any) -> dict[str, Any]:
    return {"type": "StasisStart", "args": list(args), "channel": CHANNEL | channel}


def event(message: Any) -> seen.Event | None:
    ids = iter(("call-uuid", "request-uuid"))
    return to_event(message, lambda: next(ids))


def test_a_call_arrives() -> None:
    assert event(start("MA1", "")) == seen.CallArrived(
        channel_id="1795342997.0",
        call_uuid="call-uuid",
        request_uuid="request-uuid",
        auth_id="MA1",
        from_="+14155550100",
        to="14155550199",
        caller_name="Ada Caller",
        document=None,
        method="POST",
        answered=False,
    )


def test_control_characters_of_a_caller_are_removed() -> None:
    """The text reaches callbacks, logs, the dashboard and the API."""
    reported = event(
        start("MA1", caller={"name": "\x1b]0;A\x07d\u202ea\r\n", "number": "\x9b1\x00"}, dialplan={"exten": "1\x1b"})
    )
    assert isinstance(reported, seen.CallArrived)
    assert (reported.caller_name, reported.from_, reported.to) == ("]0;Ada", "1", "1")


@pytest.mark.parametrize(
    ("args", "auth_id", "document", "method"),
    [
        (("MA1",), "MA1", None, "POST"),
        (("MA1", "lunch"), "MA1", "lunch", "POST"),
        (("MA1", "http://127.0.0.1/a,b", "get"), "MA1", "http://127.0.0.1/a,b", "GET"),
        (("MA1", "lunch", "DELETE"), "MA1", "lunch", "POST"),
        (("MA1", "lunch", "GET", "more"), "MA1", "lunch", "GET"),
        # A dialplan that names no account: the call is reported nevertheless, since the server must end it.
        ((), "", None, "POST"),
    ],
)
def test_the_arguments_of_stasis(args: tuple[str, ...], auth_id: str, document: str | None, method: str) -> None:
    arrived = event(start(*args))

    assert isinstance(arrived, seen.CallArrived)
    assert (arrived.auth_id, arrived.document, arrived.method) == (auth_id, document, method)


def test_a_call_that_the_dialplan_answered() -> None:
    arrived = event(start("MA1", state="Up"))

    assert isinstance(arrived, seen.CallArrived)
    assert arrived.answered


@pytest.mark.parametrize(
    "name",
    [
        "Snoop/1795342997.0-00000000",
        "MulticastRTP/127.0.0.1:4000-0x1",
        "UnicastRTP/127.0.0.1:4000-0x1",
        "WebSocket/INCOMING/1",
        "Message/ast_msg_queue",
    ],
)
def test_a_channel_of_our_own_or_of_texts_is_no_call_and_no_member(name: str) -> None:
    assert event(start(name=name)) is None
    for kind in ("StasisEnd", "ChannelDestroyed", "ChannelHangupRequest", "ChannelEnteredBridge", "ChannelLeftBridge"):
        assert event({"type": kind, "channel": CHANNEL | {"name": name}, "bridge": {"id": "b1"}}) is None


def test_nor_is_their_bridge_a_conference() -> None:
    assert event({"type": "BridgeDestroyed", "bridge": {"id": "c.u1.tap.conf.0a.1"}}) is None


def test_a_channel_that_takes_another_ones_place_is_no_call() -> None:
    reported = start(id="new") | {"replace_channel": CHANNEL}
    assert event(reported) == seen.ChannelReplaced("1795342997.0", by="new")


@pytest.mark.parametrize(
    ("written", "reported"),
    [
        ("14155550100", "14155550100"),
        ("+14155550100", "+14155550100"),
        ("+14155550100;npdi;rn=+14155550199", "+14155550100"),
        ("14155550100;phone-context=+1", "14155550100"),
        ("5550100;isub=1;x=a-b", "5550100"),
        ("030-1234567", "0301234567"),
        ("+1 (415) 555-0100", "+14155550100"),
        ("1.415.555.0100", "14155550100"),
        ("1415555 0100", "14155550100"),
        ("089/1234", "0891234"),
        ("*21#", "*21#"),
        ("ann.lee-smith_1", "ann.lee-smith_1"),
        ("standup;x=1", "standup;x=1"),
        ("14155550100,1234", "14155550100"),
        ("ann,lee", "ann,lee"),
        ("-", "-"),
        ("", ""),
        ("anonymous", "anonymous"),
    ],
)
def test_a_number_is_reported_without_what_is_no_number(written: str, reported: str) -> None:
    arrived = event(start("MA1", caller={"name": "", "number": written}, dialplan={"exten": written}))
    assert isinstance(arrived, seen.CallArrived)
    assert (arrived.from_, arrived.to) == (reported, reported)


@pytest.mark.parametrize(
    ("name", "written", "reported"),
    [
        ("PJSIP/a-1", r"Ann \"the boss\" Lee", 'Ann "the boss" Lee'),
        ("PJSIP/a-1", r"C:\\Ann", r"C:\Ann"),
        ("PJSIP/a-1", "Lee, Ann; x", "Lee, Ann; x"),
        ("PJSIP/a-1", "cut off\\", "cut off\\"),
        ("DAHDI/1-1", r"C:\Ann", r"C:\Ann"),
    ],
)
def test_a_display_name_is_reported_as_it_was_written(name: str, written: str, reported: str) -> None:
    arrived = event(start("MA1", name=name, caller={"name": written, "number": "1"}))
    assert isinstance(arrived, seen.CallArrived)
    assert arrived.caller_name == reported


ON_CHANNEL = {"channel": CHANNEL}
UP = {"channel": CHANNEL | {"state": "Up"}}
CANCELED = seen.ChannelHungUp("1795342997.0", 487)
ON_BRIDGE = {"bridge": {"id": "b1"}}
OF_CALL = {"recording": {"name": "MA1/c.u1.recording.r1.in", "state": "done"}}
RECORDING = {"recording": {"name": "MA1/b.id1.recording.r1", "target_uri": "bridge:b.id1.bridge", "state": "done"}}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "StasisEnd", **ON_CHANNEL}, seen.ChannelHungUp("1795342997.0", 0)),
        ({"type": "ChannelDestroyed", "cause": 17, **ON_CHANNEL}, seen.ChannelHungUp("1795342997.0", 17)),
        # CANCEL; CANCEL with a reason; BYE before the answer; refused by a server on the path.
        ({"type": "ChannelHangupRequest", "cause": 127, "tech_cause": 487, **ON_CHANNEL}, CANCELED),
        ({"type": "ChannelHangupRequest", "cause": 16, "tech_cause": 487, **ON_CHANNEL}, CANCELED),
        ({"type": "ChannelHangupRequest", "cause": 102, "tech_cause": 487, "channel": CHANNEL}, CANCELED),
        ({"type": "ChannelDestroyed", "cause": 21, "tech_cause": 487, "channel": CHANNEL}, CANCELED),
        ({"type": "ChannelHangupRequest", **ON_CHANNEL}, CANCELED),
        ({"type": "ChannelHangupRequest", "cause": 38, **ON_CHANNEL}, seen.ChannelHungUp("1795342997.0", 38)),
        # The CANCEL crossed the server's answer.
        ({"type": "ChannelHangupRequest", "cause": 127, "tech_cause": 487, **UP}, CANCELED),
        # BYE, and BYE with a reason.
        ({"type": "ChannelHangupRequest", **UP}, seen.ChannelHungUp("1795342997.0", 0)),
        (
            {"type": "ChannelHangupRequest", "cause": 31, "tech_cause": 480, **UP},
            seen.ChannelHungUp("1795342997.0", 31),
        ),
        # Asterisk heard nothing from the phone for a while.
        ({"type": "ChannelHangupRequest", "cause": 1, "soft": True, **UP}, seen.ChannelHungUp("1795342997.0", 44)),
        # 32 is not a cause here, but a flag of Asterisk's own.
        (
            {"type": "ChannelHangupRequest", "cause": 32, "soft": True, **ON_CHANNEL},
            seen.ChannelHungUp("1795342997.0", 0),
        ),
        ({"type": "ChannelEnteredBridge", **ON_CHANNEL, **ON_BRIDGE}, seen.ChannelEnteredBridge("1795342997.0", "b1")),
        ({"type": "ChannelLeftBridge", **ON_CHANNEL, **ON_BRIDGE}, seen.ChannelLeftBridge("1795342997.0", "b1")),
        ({"type": "BridgeDestroyed", **ON_BRIDGE}, seen.BridgeDestroyed("b1")),
        ({"type": "ChannelDtmfReceived", "digit": "#", **ON_CHANNEL}, seen.DigitReceived("1795342997.0", "#")),
        ({"type": "ChannelTalkingStarted", **ON_CHANNEL}, seen.TalkingStarted("1795342997.0")),
        ({"type": "ChannelTalkingFinished", "duration": 9, **ON_CHANNEL}, seen.TalkingFinished("1795342997.0")),
        ({"type": "PlaybackStarted", "playback": {"id": "p", "state": "playing"}}, seen.PlaybackStarted("p")),
        ({"type": "PlaybackFinished", "playback": {"id": "p", "state": "done"}}, seen.PlaybackFinished("p")),
        (
            {"type": "PlaybackFinished", "playback": {"id": "p", "state": "failed"}},
            seen.PlaybackFinished("p", failed=True),
        ),
        ({"type": "RecordingStarted", **RECORDING}, seen.RecordingStarted("id1", "r1")),
        ({"type": "RecordingFinished", **RECORDING}, seen.RecordingFinished("id1", "r1")),
        ({"type": "RecordingFailed", **RECORDING}, seen.RecordingFinished("id1", "r1", failed=True)),
        ({"type": "RecordingStarted", **OF_CALL}, seen.RecordingStarted("", "r1", call_uuid="u1", track="in")),
        ({"type": "RecordingFailed", **OF_CALL}, seen.RecordingFinished("", "r1", True, "u1", "in")),
    ],
)
def test_asterisk_message_becomes_an_event(message: dict[str, Any], expected: seen.Event) -> None:
    assert message["type"] in EVENTS
    assert event(message) == expected


@pytest.mark.parametrize("type_", ["ChannelVarset", "BridgeCreated", "ApplicationReplaced", "PlaybackContinuing"])
def test_other_messages_are_no_event(type_: str) -> None:
    assert event({"type": type_, **ON_CHANNEL, **ON_BRIDGE, **RECORDING, "playback": {"id": "p"}}) is None


leaf = some.none() | some.booleans() | some.integers() | some.text(max_size=3)
named = some.dictionaries(some.sampled_from(("id", "name", "state", "number", "exten", "target_uri")), leaf, max_size=3)
anything = leaf | named | some.lists(leaf, max_size=4)
KEYS = ("args", "channel", "bridge", "playback", "recording", "digit", "cause", "soft")
CHANNELS = some.fixed_dictionaries({"id": leaf, "name": leaf, "caller": anything, "dialplan": anything})


@settings(deadline=None)  # a busy machine is not a failure
@given(some.sampled_from((*EVENTS, None, 7)), some.dictionaries(some.sampled_from(KEYS), anything | CHANNELS))
def test_no_message_is_an_exception(type_: object, message: dict[str, Any]) -> None:
    found = to_event(message | {"type": type_}, lambda: "id")

    assert found is None or isinstance(found, seen.Event)


@given(anything)
def test_nor_is_what_is_no_message(message: Any) -> None:
    assert event(message) is None


CHANNEL_SOUND, BRIDGE_SOUND = do.Target("channel", "c 1"), do.Target("bridge", "b1")


@pytest.mark.parametrize(
    ("effect", "request_"),
    [
        (do.Answer("c 1"), Request("POST", "/channels/c%201/answer", over="http")),
        (do.HangUp("c1", "busy"), Request("DELETE", "/channels/c1", {"reason": "busy"})),
        (do.MuteChannel("c1", True), Request("POST", "/channels/c1/mute", {"direction": "in"})),
        (do.MuteChannel("c1", False), Request("DELETE", "/channels/c1/mute", {"direction": "in"})),
        (
            do.DeafenChannel("c1", True),
            Request("POST", "/channels/c1/variable", {"variable": "VOLUME(TX)", "value": "-32768"}, "http"),
        ),
        (
            do.DeafenChannel("c1", False),
            Request("POST", "/channels/c1/variable", {"variable": "VOLUME(TX)", "value": "0"}, "http"),
        ),
        (do.StartMusic("c1"), Request("POST", "/channels/c1/moh")),
        (do.StopMusic("c1"), Request("DELETE", "/channels/c1/moh")),
        (do.SendSilence("c1", True), Request("POST", "/channels/c1/silence")),
        (do.SendSilence("c1", False), Request("DELETE", "/channels/c1/silence")),
        (do.SendDigits("c1", "1#*"), Request("POST", "/channels/c1/dtmf", {"dtmf": "1#*"})),
        (
            do.DetectTalking("c1", 500),
            Request("POST", "/channels/c1/variable", {"variable": "TALK_DETECT(set)", "value": "500,256"}, over="http"),
        ),
        (
            do.DetectTalking("c1", None),
            Request("POST", "/channels/c1/variable", {"variable": "TALK_DETECT(remove)", "value": ""}, over="http"),
        ),
        (
            do.AddChannel("c1", "b1"),
            Request("POST", "/bridges/b1/addChannel", {"channel": "c1", "absorbDTMF": "true"}, over="http"),
        ),
        (do.RemoveChannel("c1", "b1"), Request("POST", "/bridges/b1/removeChannel", {"channel": "c1"}, over="http")),
        (
            do.CreateBridge("b1"),
            Request("POST", "/bridges", {"type": "mixing,dtmf_events,video_sfu", "bridgeId": "b1", "name": "ari_conf"}),
        ),
        (do.DestroyBridge("b1"), Request("DELETE", "/bridges/b1")),
        (
            do.StartRecording("b.id1.bridge", "r1", "MA1"),
            Request(
                "POST",
                "/bridges/b.id1.bridge/record",
                {"name": "MA1/b.id1.recording.r1", "format": "wav", "ifExists": "fail"},
                over="http",
            ),
        ),
        (
            do.StopRecording("b.id1.bridge", "r1", "MA1"),
            Request("POST", "/recordings/live/MA1%2Fb.id1.recording.r1/stop", over="http"),
        ),
        (
            do.StartRecording("c.u1.recording.r1.in", "r1", "MA1", True, do.Snoop("c1", "in")),
            Request(
                "POST",
                "/channels/c.u1.recording.r1.in/record",
                {"name": "MA1/c.u1.recording.r1.in", "format": "wav16", "ifExists": "fail"},
                over="http",
            ),
        ),
        (
            do.StopRecording("c.u1.recording.r1.in", "r1", "MA1"),
            Request("DELETE", "/channels/c.u1.recording.r1.in"),
        ),
        (
            do.PlayMedia(CHANNEL_SOUND, "p/1", ("sound:a", "sound:b")),
            Request("POST", "/channels/c%201/play", {"media": "sound:a,sound:b", "playbackId": "p/1"}),
        ),
        (
            do.PlayMedia(BRIDGE_SOUND, "p1", ("sound:a",)),
            Request("POST", "/bridges/b1/play", {"media": "sound:a", "playbackId": "p1"}),
        ),
        (do.StopPlayback(BRIDGE_SOUND, "p/1"), Request("DELETE", "/playbacks/p%2F1")),
    ],
)
def test_requests_of_effects(effect: Any, request_: Request) -> None:
    assert to_requests(effect) == (request_,)


def test_an_effect_for_somebody_else() -> None:
    with pytest.raises(TypeError, match="ReleaseName is not an effect for Asterisk"):
        to_requests(do.ReleaseName("MA1", "lunch", "c1"))  # type: ignore[arg-type]


def test_a_phones_hold_and_its_end() -> None:
    reported = [
        to_event({"type": kind, "channel": {"id": "c1", "name": "PJSIP/x-1"}}, str)
        for kind in ("ChannelHold", "ChannelUnhold")
    ]
    assert reported == [seen.PhoneHeld("c1"), seen.PhoneResumed("c1")]
