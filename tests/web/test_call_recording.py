"""Tests of the calls that record a call."""

from __future__ import annotations

import pytest

from ari_conf.core import ids
from tests.web.conftest import Api, Owner

CALL = "Call/call-ann/Record/"


@pytest.fixture(autouse=True)
def ann(owner: Owner) -> str:
    return owner.joins("ann")


def recorded(owner: Owner) -> list[str]:
    """Return the directions of what is recorded of calls."""
    return [key.rpartition(".")[2] for key in owner.stage.asterisk.recordings if ids.recorder_of(key)]


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_call_is_recorded_and_stopped(api: Api, owner: Owner, slash: str):
    response = api.post(f"Call/call-ann/Record{slash}", {"file_format": "wav"})
    assert (response.status, response.json["message"]) == (202, "call recording started")
    assert set(response.json) == {"api_id", "message", "recording_id", "url"}
    assert response.json["url"].endswith(f"/v1/Account/A/Recording/{response.json['recording_id']}.wav")
    assert recorded(owner) == ["in", "out"], "stereo by default"
    assert owner.commands[-1].addressed.command.time_limit == 60
    response = api.delete(f"Call/call-ann/Record{slash}")
    assert (response.status, response.text, recorded(owner)) == (204, b"", [])
    response = api.delete(CALL)
    assert (response.status, response.json["error"]) == (404, "the call is not being recorded")


@pytest.mark.parametrize("name", ["URL", "url"])
def test_a_url_stops_one_recording(api: Api, owner: Owner, name: str):
    one, two = (api.post(CALL, {"record_channel_type": "mono"}).json["url"] for _ in range(2))
    assert api.delete(CALL, {name: one, "call_uuid": "call-ann", "callback_url": None}).status == 204
    assert recorded(owner) == ["both"]
    assert [api.delete(CALL, {name: each}).status for each in (one, two)] == [404, 204]


def test_callback_url_is_the_recordings(api: Api, owner: Owner):
    body = {"callback_url": "https://example.com/recorded", "callback_method": "GET", "time_limit": "90"}
    assert api.post(CALL, body).json["message"] == "call recording started"
    command = owner.commands[-1].addressed.command
    assert (command.callback_url, command.callback_method) == ("https://example.com/recorded", "GET")
    assert command.time_limit == 90


def test_more_recordings_than_a_call_may_have(api: Api):
    answers = [api.post(CALL) for _ in range(5)]
    assert [answer.status for answer in answers] == [202] * 4 + [409]
    assert answers[-1].json["error"] == "4 recordings of this call are running: stop one, or wait for its end"


@pytest.mark.parametrize(
    "given",
    [{"time_limit": 0}, {"file_format": "ogg"}, {"record_channel_type": "quadro"}, {"callback_url": "ftp://x"}],
)
def test_bad_parameters(api: Api, owner: Owner, given: dict):
    response = api.post(CALL, given)
    assert response.status == 400 and response.json["error"].startswith(next(iter(given)))
    assert recorded(owner) == []


@pytest.mark.parametrize("uuid", ["nobody", "x" * 200, "%00", "call-ann%2F.."])
def test_a_call_that_does_not_exist(api: Api, uuid: str):
    for response in (api.post(f"Call/{uuid}/Record/"), api.delete(f"Call/{uuid}/Record/")):
        assert response.status == 404 and response.json["error"].startswith("call not found")


def test_a_call_of_another_account(api: Api, owner: Owner):
    owner.joins("eve", "another's", auth="B")
    assert owner.stage.call_of("eve") is not None
    for response in (api.post("Call/call-eve/Record/"), api.delete("Call/call-eve/Record/")):
        assert response.status == 404 and response.json["error"].startswith("call not found")
    assert recorded(owner) == []
