"""Callers who vanish, and more callers than the limits allow."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from ari_conf.local.system import LocalSystem
from demo.phone import CallFailed, Phone, now_ms
from tests import lateness
from tests.integration.receiver import Receiver
from tests.integration.stage import ALLOWED, Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="session")

TIMEOUT_S = 3
"""`rtp_timeout`, which Asterisk checks once a second."""
LATE_S = 3.0
"""Seconds until the server knows of the timeout and has done everything that follows."""
MAX_CALLS, OF_AN_ACCOUNT = 8, 6
THIRD_PARTY = "127.0.0.3"
ROOM = '<Conference callbackUrl="{url}/events">standup</Conference>'


@pytest_asyncio.fixture(loop_scope="session")
async def quick(tmp_path: Path) -> AsyncGenerator[Stage]:
    """Yield a stage whose system ends the calls of vanished callers after seconds."""
    configured = ALLOWED | {
        "ARI_CONF_CALLS_PER_ACCOUNT": str(OF_AN_ACCOUNT),
        "ARI_CONF_RTP_TIMEOUT": str(TIMEOUT_S),
    }
    system = LocalSystem(tmp_path, configured, ("redis", "asterisk", "worker", "serve"))
    assert system._asterisk is not None, "the system has its own Asterisk"
    system._asterisk.rtp_timeout, system._asterisk.max_calls = TIMEOUT_S, MAX_CALLS
    async with system, staged(system) as stage:
        yield stage


async def calls(stage: Stage) -> int:
    return sum(one["name"].startswith("PJSIP/") for one in await stage.ari.request("GET", "/channels"))


async def gone(stage: Stage, began_ms: float, left: int = 0) -> float:
    """Wait until at most `left` calls are left; check the time since `began_ms` and return it in seconds."""
    async with lateness.timeout():
        while await calls(stage) > left:  # noqa: ASYNC110  no event tells us
            await asyncio.sleep(0.05)
    lateness.lasted(began_ms, now_ms(), (TIMEOUT_S - 1) * 1000, (TIMEOUT_S + LATE_S) * 1000)
    return (now_ms() - began_ms) / 1000


class Stranger:
    """A caller who sends an INVITE, acknowledges the answer, and never sends anything again."""

    def __init__(self, stage: Stage) -> None:
        host, _, port = stage.system.sip_address.partition(":")
        self._to = (host, int(port))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self._id = secrets.token_hex(6)
        self.answer = ""

    async def call(self, stage: Stage, document: str, media: tuple[str, int], direction: str = "sendrecv") -> None:
        body = (
            f"v=0\r\no=- 1 1 IN IP4 {media[0]}\r\ns=-\r\nc=IN IP4 {media[0]}\r\nt=0 0\r\n"
            f"m=audio {media[1]} RTP/AVP 0\r\na={direction}\r\n"
        )
        headers = (f"X-Ari-Conf-Account: {stage.account}", f"X-Ari-Conf-Document: {document}")
        to = f"To: <sip:15550100@{self._to[0]}>"
        self._send("INVITE", to, body, *headers, "Content-Type: application/sdp")
        while not self.answer.startswith("SIP/2.0 2"):
            self.answer = (await asyncio.get_running_loop().sock_recv(self._socket, 8192)).decode()
        to = next(line for line in self.answer.split("\r\n") if line.lower().startswith("to:"))
        self._send("ACK", to)
        self._socket.close()

    def _send(self, method: str, to: str, body: str = "", *headers: str) -> None:
        port = self._socket.getsockname()[1]
        lines = (
            f"{method} sip:15550100@{self._to[0]}:{self._to[1]} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{secrets.token_hex(6)};rport",
            f"From: <sip:stranger@127.0.0.1>;tag={self._id}",
            to,
            f"Call-ID: {self._id}",
            f"CSeq: 1 {method}",
            f"Contact: <sip:stranger@127.0.0.1:{port}>",
            "Max-Forwards: 70",
            *headers,
            f"Content-Length: {len(body)}",
            "",
            body,
        )
        self._socket.sendto("\r\n".join(lines).encode(), self._to)


async def test_a_call_without_audio_sends_a_third_party_only_seconds_of_sound(quick: Stage) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third_party:
        third_party.bind((THIRD_PARTY, 0))
        third_party.setblocking(False)
        stranger = Stranger(quick)
        async with lateness.timeout():
            await stranger.call(quick, quick.document("/room", ROOM), third_party.getsockname())
        answered = now_ms()
        assert "Session-Expires:" in stranger.answer, "session timers would check whether the caller is still there"
        await quick.event("ConferenceEnter")
        took = await gone(quick, answered)
        left = await quick.event("ConferenceExit")
        assert left.params["ConferenceExitReason"] == "hangup"
        packets = 0
        with contextlib.suppress(BlockingIOError):
            while third_party.recv(2000):
                packets += 1
    assert packets < (took + LATE_S) * 50
    quick.saw(f"gone after {took:.1f} s; {packets} packets went to the address that it named")


async def test_a_caller_who_talked_and_vanishes(quick: Stage) -> None:
    quick.set_account(hangup_url="{url}/hangup")
    async with quick.callers(2) as (ann, bob):
        for phone in (ann, bob):
            await quick.call(phone, ROOM)
            await quick.enters(phone)
        vanished = now_ms()
        ann.vanish()
        await gone(quick, vanished, left=1)
        assert (await quick.leaves(ann)).params["ConferenceExitReason"] == "hangup"
        ended = (await quick.event("Hangup", of=ann)).params
        assert (ended["HangupCause"], ended["HangupCauseCode"]) == ("MEDIA_TIMEOUT", "6020")
        assert bob.state == "answered"
        await bob.hang_up()


def falls_silent(phone: Phone) -> socket.socket:
    """Stop the phone's packets, and return its unconnected socket."""
    line = phone._session
    assert line is not None
    line.destination = None
    return line.rtp


async def test_a_live_phone_stays_however_little_it_sends(quick: Stage) -> None:
    """The phones send comfort noise, two keep-alive bytes, RTCP, or only SIP responses: in a conference, on hold, or
    waiting for the start."""
    async with quick.callers(6) as (noise, alive, rtcp, waits, nothing, holds):
        for phone in (noise, alive, rtcp, nothing, holds):
            await quick.call(phone, ROOM)
            await quick.enters(phone)
        await quick.call(waits, '<Conference startConferenceOnEnter="false">later</Conference>')
        await holds.hold("inactive")
        for phone in (waits, nothing, holds):
            phone.send_packets(False)
        far = [phone._session.destination for phone in (noise, alive, rtcp) if phone._session is not None]
        sockets = [falls_silent(phone) for phone in (noise, alive, rtcp)]
        for number in range(TIMEOUT_S * 3):
            await asyncio.sleep(1)
            sockets[0].sendto(bytes((0x80, 13, 0x70, number)) + bytes(8) + b"\x30", far[0])
            sockets[1].sendto(b"\0\0", far[1])
            # The report goes to RTCP's port, the one above RTP's.
            report = bytes((0x80, 201, 0, 1)) + bytes((0, 0, 0, 7))
            rtcp._session._rtcp.sendto(report, (far[2][0], far[2][1] + 1))  # type: ignore[union-attr]
        everybody = (noise, alive, rtcp, waits, nothing, holds)
        assert [phone.state for phone in everybody] == ["answered"] * 6
        for phone in everybody:
            await phone.hang_up()


async def test_a_caller_on_hold_or_waiting_who_vanishes_is_removed(quick: Stage) -> None:
    async with quick.callers(4) as (holds, waits, listens, stays):
        for phone in (holds, stays):
            await quick.call(phone, ROOM)
            await quick.enters(phone)
        await quick.call(waits, '<Conference startConferenceOnEnter="false">later</Conference>')
        await quick.call(listens, '<GetDigits timeout="60"/>')
        await holds.hold("inactive")
        vanished = now_ms()
        for phone in (holds, waits, listens):
            phone.vanish()
        await gone(quick, vanished, left=1)
        assert (await quick.leaves(holds)).params["ConferenceExitReason"] == "hangup"
        assert stays.state == "answered"
        await stays.hang_up()


async def test_more_calls_than_an_account_may_have_and_than_asterisk_takes(quick: Stage) -> None:
    async with quick.callers(MAX_CALLS + 2) as board:
        phones = list(board)
        for phone in phones[:OF_AN_ACCOUNT]:
            await quick.call(phone, ROOM)
        with pytest.raises(CallFailed, match="486"):
            await quick.call(phones[-1], ROOM)
        (problem,) = quick.problems()
        assert f"the account has {OF_AN_ACCOUNT} calls" in problem
        # Another account is not affected until Asterisk itself is full.
        async with Receiver() as receiver:
            other = Stage(quick.system, receiver, quick.redis, quick.ari)
            for phone in phones[OF_AN_ACCOUNT:MAX_CALLS]:
                await other.call(phone, ROOM)
            with pytest.raises(CallFailed, match="503"):
                await other.call(phones[-2], ROOM)
            for phone in phones[:MAX_CALLS]:
                await phone.hang_up()
            await other.event("ConferenceExit", ConferenceLastMember="true")
