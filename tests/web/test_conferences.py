"""Tests of the calls on conferences: the reply, and the conference's state afterwards."""

from __future__ import annotations

import threading

import pytest

from ari_conf.recordings import transcribers
from tests.web.conftest import Api, Owner, part, within
from tests.web.test_event_stream import eventually


@pytest.fixture
def ids(owner: Owner) -> dict[str, str]:
    return {name: owner.joins(name) for name in ("ann", "bob", "cid")}


def test_the_list_of_conferences(api: Api, owner: Owner):
    assert api.get("Conference/").json["conferences"] == []
    owner.joins("ann", "standup")
    owner.joins("bob", "Größe ☕ / %2F")
    owner.joins("eve", "another's", auth="B")
    response = api.get("Conference/")
    assert response.status == 200
    assert set(response.json) == {"api_id", "conferences"}
    assert response.json["conferences"] == ["Größe ☕ / %2F", "standup"]


def test_a_conference_in_plivos_words(api: Api, owner: Owner):
    first = owner.joins("ann", muted=True)
    second = owner.joins("bob")
    response = api.get("Conference/standup/").json
    assert response["conference_name"] == "standup"
    assert response["conference_member_count"] == "2"
    assert response["conference_run_time"].isdigit()
    ann, bob = response["members"]
    assert ann.keys() >= {
        "muted",
        "deaf",
        "member_id",
        "from",
        "to",
        "caller_name",
        "direction",
        "call_uuid",
        "join_time",
    }
    assert (ann["member_id"], bob["member_id"]) == (first, second)
    assert (ann["muted"], ann["deaf"], bob["muted"]) == (True, False, False)
    assert (ann["from"], ann["to"], ann["call_uuid"], ann["direction"]) == ("4930123", "100", "call-ann", "inbound")
    assert ann["join_time"].isdigit()


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_trailing_slash_is_optional(api: Api, ids: dict[str, str], slash: str):
    assert api.get(f"Conference{slash}").status == 200
    assert api.get(f"Conference/standup{slash}").status == 200
    assert api.post(f"Conference/standup/Member/all/Mute{slash}").status == 202


def test_mute(api: Api, owner: Owner, ids: dict[str, str]):
    response = api.post(f"Conference/standup/Member/{ids['ann']}/Mute/")
    assert response.status == 202
    assert response.json == {"api_id": response.json["api_id"], "message": "muted", "member_id": [ids["ann"]]}
    assert owner.hears("bob") == {"cid"}
    # The next request shows the new state.
    assert [m["muted"] for m in api.get("Conference/standup/").json["members"]] == [True, False, False]
    response = api.delete(f"Conference/standup/Member/{ids['ann']}/Mute/")
    assert (response.status, response.text) == (204, b"")
    assert owner.hears("bob") == {"ann", "cid"}


def test_a_list_and_all(api: Api, owner: Owner, ids: dict[str, str]):
    response = api.post(f"Conference/standup/Member/{ids['ann']},{ids['cid']}/Deaf/")
    assert (response.json["message"], response.json["member_id"]) == ("deaf", [ids["ann"], ids["cid"]])
    assert (owner.hears("ann"), owner.hears("bob")) == (set(), {"ann", "cid"})
    encoded = f"{ids['ann']}%2C{ids['bob']}"
    assert api.post(f"Conference/standup/Member/{encoded}/Deaf/").json["member_id"] == [ids["ann"], ids["bob"]]
    assert api.delete("Conference/standup/Member/all/Deaf/").status == 204
    assert owner.hears("ann") == {"bob", "cid"}


def test_kick_and_hang_up(api: Api, owner: Owner, ids: dict[str, str]):
    response = api.post(f"Conference/standup/Member/{ids['ann']}/Kick/")
    assert (response.status, response.json["message"], response.json["member_id"]) == (202, "kicked", [ids["ann"]])
    assert api.delete(f"Conference/standup/Member/{ids['bob']}/").status == 204
    assert api.get("Conference/standup/").json["conference_member_count"] == "1"
    assert "bob" not in owner.channels


def test_play_and_speak(api: Api, owner: Owner, ids: dict[str, str]):
    response = api.post("Conference/standup/Member/all/Play/", {"url": "https://example.com/hello.mp3"})
    assert (response.status, response.json["message"]) == (202, "play queued into conference")
    assert owner.stage.media("ann") == ["https://example.com/hello.mp3"]
    member = f"Conference/standup/Member/{ids['ann']}"
    response = api.post(f"{member}/Speak/", {"text": "cats & <dogs>", "voice": "MAN"})
    assert (response.status, response.json["message"]) == (202, "speak queued into conference")
    assert api.delete(f"{member}/Play/").status == 204
    assert owner.stage.media("ann")[-1] == "cats &amp; &lt;dogs&gt;"
    assert api.delete(f"{member}/Speak/").status == 204
    assert owner.stage.asterisk.channels["ann"].playbacks == []


def test_plivo_go_sends_the_voice_as_length(api: Api, owner: Owner, ids: dict[str, str]):
    assert api.post("Conference/standup/Member/all/Speak/", {"text": "hello", "length": "MAN"}).status == 202
    assert owner.commands[-1].addressed.command.sound.voice == "MAN"


def test_a_form_is_as_good_as_json(api: Api, owner: Owner, ids: dict[str, str]):
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    response = api.post("Conference/standup/Member/all/Speak/", raw=b"text=Gr%C3%BC%C3%9Fe+an+alle&voice=", **form)
    assert response.status == 202
    assert owner.stage.media("ann") == ["Grüße an alle"]


def test_hold(api: Api, owner: Owner, ids: dict[str, str]):
    response = api.post(f"Conference/standup/Member/{ids['ann']}/Hold/")
    assert (response.status, response.json["message"]) == (202, "held")
    assert owner.hears("ann") == {"music"}
    assert api.get("Conference/standup/").json["members"][0]["held"] is True
    assert api.delete(f"Conference/standup/Member/{ids['ann']}/Hold/").status == 204
    assert owner.hears("ann") == {"bob", "cid"}


def test_announce(api: Api, owner: Owner, ids: dict[str, str]):
    assert api.post("Conference/standup/Announce/", {"text": "hello"}).status == 202
    assert owner.stage.media(owner.stage.bridge_id()) == ["hello"]
    assert api.delete("Conference/standup/Announce/").status == 204
    for body in ({}, {"text": "hello", "url": "https://example.com/x.mp3"}):
        assert api.post("Conference/standup/Announce/", body).status == 400


def test_lock(api: Api, owner: Owner, ids: dict[str, str]):
    assert api.post("Conference/standup/Lock/").json["message"] == "locked"
    assert api.get("Conference/standup/").json["locked"] is True
    assert api.delete("Conference/standup/Lock/").status == 204
    assert api.get("Conference/standup/").json["locked"] is False


def test_hang_up_a_conference_and_all(api: Api, owner: Owner, ids: dict[str, str]):
    owner.joins("dan", "other")
    owner.joins("fay", "third")
    owner.joins("eve", "standup", auth="B")
    assert api.delete("Conference/standup/").status == 204
    assert owner.channels == {"dan", "fay", "eve"}
    assert api.get("Conference/standup/").status == 404
    assert api.delete("Conference/").status == 204
    assert owner.channels == {"eve"}
    assert api.delete("Conference/").status == 204


# Failures.


def test_none_of_that_name_and_no_such_member(api: Api, ids: dict[str, str]):
    response = api.get("Conference/nothing/")
    assert (response.status, response.json) == (
        404,
        {"api_id": response.json["api_id"], "error": "conference not found"},
    )
    assert api.post("Conference/nothing/Member/all/Mute/").json["error"] == "conference not found"
    assert api.post("Conference/standup/Member/999999/Mute/").json["error"] == "member not found"


@within(1)
def test_an_owner_that_does_not_answer(api: Api, owner: Owner, ids: dict[str, str]):
    owner.deaf = True
    response = api.post("Conference/standup/Member/all/Mute/")
    assert (response.status, response.headers["Retry-After"]) == (503, "1")
    assert "did not answer" in response.json["error"]


@within(1)
def test_a_reply_that_can_not_be_read_costs_itself_alone(api: Api, owner: Owner, ids: dict[str, str]):
    """The replies come from an owner of another version; senders of later commands receive their own replies."""
    owner.deaf = True
    asked = threading.Thread(target=lambda: statuses.append(api.post("Conference/standup/Member/all/Mute/").status))
    statuses = list[int]()
    asked.start()
    eventually(lambda: len(owner.commands) == 1)
    (channel,) = owner.redis.pubsub_channels("ari_conf:replies:*")
    for text in ("{", '{"command_id": "c", "status": "204"}', '{"body": []}', "[]", '{"status": 202, "body": {}}'):
        owner.redis.publish(channel, f"{owner.commands[0].command_id} {text}")
    owner.redis.publish(channel, b"\xff\xfe")
    asked.join()
    assert statuses == [503]
    owner.deaf = False
    assert api.post("Conference/standup/Member/all/Mute/").status == 202


def test_an_asterisk_that_can_not_be_reached(api: Api, owner: Owner, ids: dict[str, str]):
    owner.asterisk_is_there = False
    response = api.delete("Conference/standup/")
    assert (response.status, response.headers["Retry-After"]) == (503, "1")
    assert "Asterisk is unreachable" in response.json["error"]
    assert len(owner.channels) == 3


@pytest.mark.parametrize(
    "name",
    ["a/b", "100%", "..", ".", "../../x", "Größe ☕ 会议", "a b+c", "%2F", "?q=1#f", "Member", "a\u200db", "x" * 200],
)
def test_any_name(api: Api, owner: Owner, name: str):
    owner.joins("ann", name)
    owner.joins("bob", name)
    place = f"Conference/{part(name)}"
    assert api.get(f"{place}/").json["conference_name"] == name
    assert api.post(f"{place}/Member/all/Mute/").json["message"] == "muted"
    assert api.delete(f"{place}").status == 204
    assert not owner.channels


@pytest.mark.parametrize("name", ["x" * 10_000, "☕" * 10_000, "%00", "%ff", "%zz", "%", "a\u0000b"])
def test_any_name_that_there_is_not(api: Api, name: str):
    for encoded in {name, part(name)}:
        if encoded.isascii() and encoded.isprintable():
            response = api.get(f"Conference/{encoded}/")
            assert (response.status, set(response.json)) == (404, {"api_id", "error"})


# Idempotency.


def test_a_repetition_gets_the_first_answer(api: Api, owner: Owner, ids: dict[str, str]):
    speak = "Conference/standup/Member/all/Speak/"
    first = api.post(speak, {"text": "once"}, Idempotency_Key="k1")
    again = api.post(speak, {"text": "once"}, Idempotency_Key="k1")
    assert (again.status, again.json) == (first.status, first.json) and first.status == 202
    assert len(owner.commands) == 1
    other = api.post(speak, {"text": "once"}, Idempotency_Key="k2")
    assert other.json["api_id"] != first.json["api_id"]
    assert len(owner.commands) == 2


def test_repetitions_at_the_same_time_are_done_once(api: Api, owner: Owner, ids: dict[str, str]):
    answers = []
    many = [
        threading.Thread(
            target=lambda: answers.append(
                api.post("Conference/standup/Member/all/Speak/", {"text": "once"}, Idempotency_Key="k").text
            )
        )
        for _ in range(8)
    ]
    for one in many:
        one.start()
    for one in many:
        one.join()
    assert len(set(answers)) == 1
    assert len(owner.commands) == 1


def test_a_refusal_is_repeated_too_but_not_that_it_could_not_be_done(api: Api, owner: Owner, ids: dict[str, str]):
    mute = "Conference/standup/Member/all/Mute/"
    owner.asterisk_is_there = False
    assert api.post(mute, Idempotency_Key="k1").status == 503
    owner.asterisk_is_there = True
    assert api.post(mute, Idempotency_Key="k1").status == 202
    gone = "Conference/standup/Member/999/Mute/"
    first, again = (api.post(gone, Idempotency_Key="k2") for _ in range(2))
    assert first.status == again.status == 404
    assert first.json == again.json


@within(3)
def test_a_command_with_a_late_reply_is_not_executed_again(api: Api, owner: Owner, ids: dict[str, str]):
    """Redis is slow: the owner has decided, and by the time that this is written the client no longer waits."""
    speak = f"Conference/standup/Member/{ids['ann']}/Speak/"
    owner.late = True
    assert api.post(speak, {"text": "once"}, Idempotency_Key="k").status == 503
    owner.late = False
    assert api.post(speak, {"text": "other"}, Idempotency_Key="k").status == 400
    first = api.post(speak, {"text": "once"}, Idempotency_Key="k")
    assert first.status == 202
    assert api.post(speak, {"text": "once"}, Idempotency_Key="k").json == first.json
    assert len(owner.commands) == 1


@within(3)
def test_nor_is_it_when_it_has_been_written_meanwhile(api: Api, owner: Owner, ids: dict[str, str]):
    owner.late = True
    speak = f"Conference/standup/Member/{ids['ann']}/Speak/"
    assert api.post(speak, {"text": "once"}, Idempotency_Key="k").status == 503
    owner.write_late_ones()
    owner.deaf = True
    assert api.post(speak, {"text": "once"}, Idempotency_Key="k").status == 202


def test_a_key_stands_for_one_request(api: Api, ids: dict[str, str]):
    speak = "Conference/standup/Member/all/Speak/"
    assert api.post(speak, {"text": "one"}, Idempotency_Key="k").status == 202
    assert api.post(speak, {"text": "two"}, Idempotency_Key="k").status == 400
    assert api.post(speak, {"text": "one"}, Idempotency_Key="k" * 256).status == 400
    # For another request, the same key is another one.
    assert api.post("Conference/standup/Member/all/Mute/", Idempotency_Key="k").status == 202


# Record.


def test_record(api: Api, owner: Owner, ids: dict[str, str]):
    response = api.post("Conference/standup/Record/", {"file_format": "wav", "time_limit": 60})
    assert (response.status, response.json["message"]) == (202, "conference recording started")
    assert response.json["url"].endswith(f"/v1/Account/A/Recording/{response.json['recording_id']}.wav")
    assert list(owner.stage.asterisk.recordings) == [response.json["recording_id"]]
    again = api.post("Conference/standup/Record/")
    assert (again.status, again.json["error"]) == (409, "the conference is being recorded already")
    assert api.delete("Conference/standup/Record/").status == 204
    assert api.delete("Conference/standup/Record/").status == 404


def test_a_recording_that_nothing_will_transcribe_is_made_and_says_so(api: Api, owner: Owner, ids: dict[str, str]):
    transcribers.report(owner.redis, "w1", "")
    response = api.post("Conference/standup/Record/", {"transcription_type": "auto"})
    assert (response.status, response.json["message"]) == (202, "conference recording started")
    assert response.json["warning"] == f"the recording will not be transcribed: {transcribers.MISSING}"
    assert api.delete("Conference/standup/Record/").status == 204
    assert "warning" not in api.post("Conference/standup/Record/").json
    assert api.delete("Conference/standup/Record/").status == 204
    transcribers.report(owner.redis, "w2", "tiny.en")
    assert "warning" not in api.post("Conference/standup/Record/", {"transcription_type": "auto"}).json


def test_callback_url_is_the_recordings(api: Api, owner: Owner, ids: dict[str, str]):
    response = api.post("Conference/standup/Record/", {"callback_url": "https://example.com/recorded"})
    assert response.json["message"] == "conference recording started"
    assert owner.commands[-1].addressed.command.callback_url == "https://example.com/recorded"


@pytest.mark.parametrize(("given", "read"), [("de-AT", "de"), (" AUTO ", "auto"), ("", None), (None, None)])
def test_the_language_of_a_transcription(api: Api, owner: Owner, ids: dict[str, str], given: str | None, read: str):
    body = {"transcription_type": "auto", "transcription_language": given}
    assert api.post("Conference/standup/Record/", body).status == 202
    assert owner.commands[-1].addressed.command.transcription_language == read


def test_invalid_language_of_a_transcription(api: Api):
    response = api.post("Conference/standup/Record/", {"transcription_language": "german"})
    assert response.status == 400
    assert response.json["error"].startswith(
        "transcription_language: 'german' is not allowed; expected a language code"
    )


@pytest.mark.parametrize("given", [{"time_limit": 0}, {"time_limit": "x"}, {"time_limit": 1.5}, {"file_format": "ogg"}])
def test_bad_parameters_of_a_recording(api: Api, given: dict):
    response = api.post("Conference/standup/Record/", given)
    assert response.status == 400
    assert response.json["error"].startswith(next(iter(given)))
