"""Tests of the commands on a live call: the reply, and what the caller then hears."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ari_conf.core import commands as do
from ari_conf.core.elements import Play, Speak, Wait
from ari_conf.core.queued_sound import SoundList
from tests.web.conftest import Api, Owner, account, within

CALL = "Call/call-ann/"
HELLO, SONG = "https://example.com/hello.mp3", "https://example.com/song.mp3?a=1,2"
ENDED = "call not found: it has ended, or the account has no such call"


@pytest.fixture(autouse=True)
def ann(owner: Owner) -> None:
    owner.plays(lambda stage: stage.call("ann", Wait(999), answered=True))


def command(owner: Owner) -> Any:
    return owner.commands[-1].addressed.command


def test_transfer(api: Api, owner: Owner):
    owner.stage.documents["https://example.com/next"] = (Speak("elsewhere"), Wait(999))
    given = {"legs": "aleg", "aleg_url": "https://example.com/next", "aleg_method": "GET", "call_uuid": "call-ann"}
    response = api.post(CALL, given)
    assert (response.status, response.json) == (
        202,
        {"api_id": response.json["api_id"], "message": "call transferred"},
    )
    assert owner.stage.media("ann") == ["elsewhere"]
    assert command(owner) == do.Transfer(aleg_url="https://example.com/next", aleg_method="GET")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "aleg_url is required for legs=aleg"),
        ({"legs": ""}, "aleg_url is required for legs=aleg"),
        ({"legs": "bleg", "aleg_url": HELLO}, "bleg_url is required for legs=bleg"),
        ({"legs": "both", "aleg_url": HELLO}, "bleg_url is required for legs=both"),
        ({"legs": "cleg", "aleg_url": HELLO}, "legs"),
        ({"aleg_url": "ftp://example.com/"}, "aleg_url"),
        ({"aleg_url": HELLO, "aleg_method": "PUT"}, "aleg_method"),
    ],
)
def test_a_transfer_that_is_not_allowed(api: Api, owner: Owner, body: dict[str, str], error: str):
    response = api.post(CALL, body)
    assert (response.status, error in response.json["error"]) == (400, True), response.json
    assert not owner.commands


def test_there_is_no_second_leg(api: Api):
    for path, body in (
        ("", {"legs": "both", "aleg_url": HELLO, "bleg_url": HELLO}),
        ("Play/", {"legs": "bleg", "urls": HELLO}),
        ("Speak/", {"legs": "BOTH", "text": "hello"}),
        ("DTMF/", {"leg": "bleg", "digits": "1"}),
    ):
        response = api.post(CALL + path, body)
        assert (response.status, "no second leg" in response.json["error"]) == (409, True)


def test_play_and_stop(api: Api, owner: Owner):
    response = api.post(CALL + "Play/", {"urls": HELLO})
    assert (response.status, response.json) == (202, {"api_id": response.json["api_id"], "message": "play started"})
    assert owner.stage.media("ann") == [HELLO]
    response = api.delete(CALL + "Play/", {"call_uuid": "call-ann"})
    assert (response.status, response.text) == (204, b"")
    assert owner.stage.hears("ann") == set()


@pytest.mark.parametrize(
    ("body", "sound"),
    [
        ({"urls": HELLO, "mix": False, "legs": None}, Play(HELLO)),
        ({"urls": HELLO, "loop": "True", "mix": "false", "length": ""}, Play(HELLO, loop=0)),
        ({"urls": HELLO, "length": "5", "loop": True}, SoundList((Play(HELLO, loop=0),), length=5)),
        ({"urls": f"{HELLO},{SONG}"}, SoundList((Play(HELLO), Play(SONG)))),
        ({"urls": [HELLO, SONG], "loop": True, "length": 5}, SoundList((Play(HELLO), Play(SONG)), True, 5)),
    ],
)
def test_what_is_played(api: Api, owner: Owner, body: dict[str, Any], sound: Any):
    assert api.post(CALL + "Play/", body).status == 202
    assert command(owner) == do.PlayToCall(sound)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "urls is required"),
        ({"urls": ""}, "urls: 1 to 20 URLs"),
        ({"urls": ",".join([HELLO] * 21)}, "urls: 1 to 20 URLs"),
        ({"urls": "hello.mp3"}, "urls: 'hello.mp3' is not allowed"),
        ({"urls": HELLO, "length": 0}, "length"),
        ({"urls": HELLO, "length": "soon"}, "length"),
        ({"urls": HELLO, "loop": "maybe"}, "loop: 'maybe' is not allowed"),
    ],
)
def test_a_sound_that_is_not_allowed(api: Api, owner: Owner, body: dict[str, Any], error: str):
    response = api.post(CALL + "Play/", body)
    assert (response.status, error in response.json["error"]) == (400, True), response.json
    assert not owner.commands


def test_speak_and_stop(api: Api, owner: Owner):
    response = api.post(CALL + "Speak/", {"text": "cats & <dogs>", "voice": "MAN", "language": "de-DE"})
    assert (response.status, response.json["message"]) == (202, "speak started")
    assert command(owner) == do.PlayToCall(Speak("cats &amp; &lt;dogs&gt;", "MAN", "de-DE"))
    assert owner.stage.media("ann") == ["cats &amp; &lt;dogs&gt;"]
    assert api.delete(CALL + "Speak/").status == 204
    assert owner.stage.hears("ann") == set()


def test_ssml_and_the_voice_in_the_length(api: Api, owner: Owner):
    text = '<speak>one<break time="1s"/> <emphasis>two</emphasis></speak>'
    assert api.post(CALL + "Speak/", {"text": text, "type": "ssml", "loop": "true"}).status == 202
    sound = command(owner).sound
    assert sound.loop == 0 and '<break time="1s"' in sound.markup and "speak" not in sound.markup
    # plivo-go sends the voice as length.
    assert api.post(CALL + "Speak/", {"text": "hello", "length": "MAN", "voice": ""}).status == 202
    assert command(owner).sound.voice == "MAN"
    assert api.post(CALL + "Speak/", {"text": "hello", "length": "12"}).status == 202
    assert command(owner).sound.voice == "WOMAN"


@pytest.mark.parametrize(
    "text", ["<speak>one", "</Speak><Play>https://example.com/x.mp3</Play><Speak>", "<p/>", "<!DOCTYPE x>a"]
)
def test_ssml_that_is_none(api: Api, owner: Owner, text: str):
    response = api.post(CALL + "Speak/", {"text": text, "type": "ssml"})
    assert (response.status, "SSML" in response.json["error"]) == (400, True)
    assert not owner.commands


@pytest.mark.parametrize(
    "body", [{"digits": "1*#"}, {"digits": "1*#", "leg": "aleg"}, {"digits": "1*#", "legs": "aleg"}]
)
def test_digits(api: Api, owner: Owner, body: dict[str, str]):
    response = api.post(CALL + "DTMF/", body)
    assert (response.status, response.json["message"]) == (202, "digits sent")
    assert owner.stage.asterisk.channels["ann"].heard_digits == "1*#"


@pytest.mark.parametrize("digits", ["", None, "12a", "1" * 101, {"1": "2"}])
def test_digits_that_are_not_allowed(api: Api, owner: Owner, digits: Any):
    response = api.post(CALL + "DTMF/", {"digits": digits})
    assert response.status == 400 and response.json["error"].startswith("digits: expected digits 0-9")
    assert "12a" not in response.json["error"]
    assert not owner.commands


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", {"aleg_url": HELLO}),
        ("POST", "Play/", {"urls": HELLO}),
        ("DELETE", "Play/", {}),
        ("POST", "Speak/", {"text": "hello"}),
        ("DELETE", "Speak/", {}),
        ("POST", "DTMF/", {"digits": "1"}),
    ],
)
def test_a_call_that_has_ended_or_is_another_account_s(
    api: Api, owner: Owner, served: Any, method: str, path: str, body: dict[str, str]
):
    owner.plays(lambda stage: stage.call("bob", Wait(999), auth="B", answered=True))
    conference_id = owner.stage.engine.conferences
    owner.joins("cid")
    (conference_id,) = owner.stage.engine.conferences
    for call_uuid in ("call-nobody", "call-bob", conference_id, "x" * 100, "%00"):
        response = api.send(method, f"Call/{call_uuid}/{path}", body)
        assert (response.status, response.json["error"]) == (404, ENDED)
    assert not owner.commands
    assert account(served, "B").send(method, f"Call/call-bob/{path}", body).status in (202, 204)
    owner.plays(lambda stage: stage.hang_up("ann"))
    response = api.send(method, CALL + path, body)
    assert (response.status, response.json["error"]) == (404, ENDED)


def test_an_asynchronous_command(api: Api, owner: Owner):
    response = api.post(CALL + "DTMF/", {"digits": "1", "callback_url": "http://example.com/result"})
    assert (response.status, set(response.json)) == (202, {"api_id"})


@within(1)
def test_the_owner_does_not_answer(api: Api, owner: Owner):
    owner.deaf = True
    response = api.post(CALL + "DTMF/", {"digits": "1"})
    assert (response.status, "did not answer in time" in response.json["error"]) == (503, True)


def test_the_same_request_twice_is_done_once(api: Api, owner: Owner):
    for _ in range(2):
        response = api.post(CALL + "DTMF/", {"digits": "1"}, Idempotency_Key="once")
        assert response.status == 202
    assert owner.stage.asterisk.channels["ann"].heard_digits == "1"


def test_the_list_of_asterisks_is_read_again_for_a_call_on_a_new_one(api: Api, owner: Owner, served: Any):
    assert api.post(CALL + "DTMF/", {"digits": "1"}).status == 202
    resources = served.server.config.app.state.resources
    resources.asterisks.names, resources.asterisks.read_at = ["another"], time.monotonic()
    assert api.post(CALL + "DTMF/", {"digits": "1"}).status == 404, "read just now"
    resources.asterisks.read_at -= 3
    assert api.post(CALL + "DTMF/", {"digits": "1"}).status == 202
