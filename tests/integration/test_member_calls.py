"""People are called into a conference: what those in it hear, who gets in, and what the URLs are told."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.called_phone import CalledPhone
from tests.integration.test_calling_out import Caller, api, calling, system

__all__ = ["api", "calling", "system"]

pytestmark = pytest.mark.asyncio(loop_scope="session")

RING_HZ = 425


async def call_in(api: Caller, *phones: CalledPhone, **more: Any) -> dict[str, Any]:
    """Call people into the conference `standup`; return the reply."""
    api.allow(*[phone.host for phone in phones])
    to = "<".join(phone.uri for phone in phones)
    urls = {
        "callback_url": api.stage.receiver.url("/conference"),
        "call_status_callback_url": api.stage.receiver.url("/state"),
    }
    status, reply = await api.ask("POST", "Conference/standup/Member/", **{"from": "4930123", "to": to, **urls, **more})
    assert status == 201, reply
    return reply


@pytest.mark.row(
    "Member: from, to, dial_music, call_status_callback_url, callback_url",
    "ringing for those in the room, then the one who answers; initiated, ringing, answered and completed are told",
)
async def test_those_in_the_conference_hear_ringing_and_then_whoever_answers(api: Caller) -> None:
    stage = api.stage
    async with stage.callers(1) as (host,), CalledPhone() as ann:
        await stage.call(host, "<Conference>standup</Conference>")
        reply = await call_in(api, ann, muted=False)
        (called,) = reply["calls"]
        assert called["call_uuid"] == reply["request_uuid"] and called["to"] == ann.uri
        await ann.invited()
        ann.reply("180 Ringing")
        await stage.hears(host, RING_HZ)
        ann.answer()
        entered = await api.told("ConferenceEnter", CallUUID=reply["request_uuid"])
        assert entered["ConferenceName"] == "standup" and entered["Direction"] == "outbound"
        await stage.goes_quiet(host)
        host.tone(1000)
        await stage.until(lambda: ann.hears(1000))
        ann.hang_up()
        ended = await api.told("CallCompleted")
    told = [request.params["Event"] for request in stage.receiver.requests if request.path == "/state"]
    assert told == ["CallInitiated", "CallRinging", "CallAnswered", "CallCompleted"]
    assert (ended["CallStatus"], ended["HangupSource"]) == ("completed", "Callee")


@pytest.mark.row("Member: to", "several: the first who answers is in, the others are canceled, and list no missed call")
async def test_the_first_who_answers_is_in_and_the_other_phone_lists_no_missed_call(api: Caller) -> None:
    async with CalledPhone() as ann, CalledPhone() as bob:
        reply = await call_in(api, ann, bob)
        assert [called["to"] for called in reply["calls"]] == [ann.uri, bob.uri]
        for phone in (ann, bob):
            await phone.invited()
            phone.reply("180 Ringing")
        bob.answer()
        canceled = await ann.canceled()
        assert 'text="Call completed elsewhere"' in canceled.first("reason")
        lost = await api.told("CallCompleted", CallUUID=reply["request_uuid"][0])
        assert (lost["CallStatus"], lost["HangupCauseName"], lost["HangupCauseCode"]) == ("cancel", "Lost Race", "9000")
        await api.told("ConferenceEnter", CallUUID=reply["request_uuid"][1])
        bob.hang_up()
        await api.told("CallCompleted", CallUUID=reply["request_uuid"][1])


@pytest.mark.row("Member: confirm_key, confirm_key_sound_url", "a prompt, and only who presses the key gets in")
async def test_only_who_presses_the_key_gets_in(api: Caller) -> None:
    stage = api.stage
    stage.document("/prompt", f"<Play>{stage.tones('/prompt.wav', (700, 400))}</Play>")
    async with CalledPhone() as ann, CalledPhone() as bob:
        more = {"confirm_key": "1", "confirm_key_sound_url": stage.receiver.url("/prompt")}
        reply = await call_in(api, ann, bob, **more)
        for phone in (ann, bob):
            await phone.invited()
            phone.answer()
        # A machine may have answered for Ann: her phone says nothing.
        for phone in (ann, bob):
            await stage.until(lambda phone=phone: phone.hears(700))
        assert not [r for r in stage.receiver.requests if r.params.get("Event") == "ConferenceEnter"]
        await bob.press("1")
        await api.told("ConferenceEnter", CallUUID=reply["request_uuid"][1])
        await ann.hung_up()
        lost = await api.told("CallCompleted", CallUUID=reply["request_uuid"][0])
        assert lost["HangupCauseCode"] == "9000" and lost["CallStatus"] == "completed"
        bob.hang_up()
        await api.told("CallCompleted", CallUUID=reply["request_uuid"][1])


@pytest.mark.row("Member: delay_dial, dial_music", "one after another, each so many seconds later; none: silence")
async def test_one_after_another(api: Caller) -> None:
    """The second is called when the first has not answered for a while; then the first is called no longer."""
    async with CalledPhone() as ann, CalledPhone() as bob:
        reply = await call_in(api, ann, bob, delay_dial="0<2", dial_music="none")
        await ann.invited()
        ann.reply("180 Ringing")
        assert not bob.invites
        await bob.invited()
        bob.answer()
        await ann.canceled()
        bob.hang_up()
        for call_uuid in reply["request_uuid"]:
            await api.told("CallCompleted", CallUUID=call_uuid)


@pytest.mark.row("Member: a bad value", "400 that names the parameter, and nobody is called")
async def test_a_wrong_parameter_is_named_and_nobody_is_called(api: Caller) -> None:
    for wrong in (
        {"confirm_key": "12"},
        {"delay_dial": "1<2<3"},
        {"dial_music": "ftp://x/"},
        {"max_members": 0},
        {"stay_alone": "maybe"},
    ):
        async with CalledPhone() as ann:
            api.allow(ann.host)
            status, reply = await api.ask(
                "POST", "Conference/standup/Member/", **{"from": "4930123", "to": ann.uri, **wrong}
            )
            assert status == 400 and next(iter(wrong)) in reply["error"], reply
            assert not ann.invites
