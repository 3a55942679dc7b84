"""SIP settings of asterisk/configure, in one Asterisk: permission to call, responses, and audio.

Phones at 127.0.0.1 and ::1 are the provider's, and so are those at 127.0.0.5, from outside. 127.0.0.9 is a stranger.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from ari_conf.local.processes import free_port
from ari_conf.local.system import LocalSystem
from demo import audio_analysis, sip
from demo.g711 import RATE
from tests import lateness
from tests.asterisk_config.test_fail2ban import banned
from tests.integration.sip_line import SipLine
from tests.integration.stage import ALLOWED, Stage, staged

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROJECT = Path(__file__).parents[2]
OUTSIDE, STRANGER, PHONE, PROVIDER = "127.0.0.5", "127.0.0.9", "127.0.0.3", "127.0.0.7"
PUBLIC = "198.51.100.7"
PASSWORD = "a password of ours"
ROOM = "<Conference>standup</Conference>"
HIGH, LOW = 1075, 625
HEAD = 44
"""The bytes of a WAV file's header."""
EXPEDITED, SIGNALING = 46 << 2, 24 << 2
"""DSCP EF and CS3, as a packet's header has them."""


class Registrar(asyncio.DatagramProtocol):
    """A provider that an account registers with."""

    def __init__(self) -> None:
        self.contact = ""
        self.registered = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        message = sip.read(data)
        if message is None or message.method != "REGISTER":
            return
        if not message.first("authorization"):
            challenge = ("WWW-Authenticate", 'Digest realm="provider", nonce="n1", algorithm=MD5')
            self._transport.sendto(sip.reply(message, "401 Unauthorized", [challenge]), addr)
            return
        self.contact = message.first("contact")
        self._transport.sendto(sip.reply(message, "200 OK", [("Contact", self.contact + ";expires=600")]), addr)
        self.registered.set()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def registrar() -> AsyncGenerator[tuple[Registrar, int]]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(Registrar, local_addr=(PROVIDER, 0))
    yield protocol, transport.get_extra_info("sockname")[1]
    transport.close()


def certificate(folder: Path) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    of, key = folder / "certificate.pem", folder / "key.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -keyout {key} -out {of}"
    subprocess.run(command.split(), check=True, capture_output=True)
    return of, key


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(
    registrar: tuple[Registrar, int], tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[LocalSystem]:
    folder = tmp_path_factory.mktemp("guarded")
    system = LocalSystem(folder, ALLOWED, ("redis", "asterisk", "serve"))
    own = system._asterisk
    assert own is not None, "the system has its own Asterisk"
    # The port is for UDP and TCP.
    own.sip_port = free_port()
    of, key = certificate(own.folder / "tls")
    own.more = {
        "SIP_BIND": f"0.0.0.0:{own.sip_port},[::]:{own.sip_port}",
        "SIP_PROTOCOLS": "udp,tcp,tls",
        "TLS_PORT": str(free_port()),
        "TLS_CERTIFICATE": str(of),
        "TLS_KEY": str(key),
        "EXTERNAL_ADDRESS": PUBLIC,
        "LOCAL_NETWORKS": f"127.0.0.1/32,{PHONE}/32,{PROVIDER}/32",
        "CODECS": "ulaw,alaw,g722,gsm,opus",
        "TRUNK_HOST": f"{PROVIDER}:{registrar[1]}",
        "TRUNK_USER": "acme",
        "TRUNK_PASSWORD": PASSWORD,
        "TRUNK_MATCH": f"127.0.0.1,{OUTSIDE},::1",
        "PHONE_USER": "phone",
        "PHONE_PASSWORD": PASSWORD,
        "ANONYMOUS": "no",
    }
    async with system:
        yield system


@pytest_asyncio.fixture(loop_scope="session")
async def at(guarded: LocalSystem) -> AsyncGenerator[Stage]:
    async with staged(guarded) as stage:
        yield stage


def asks_for(stage: Stage, document: str | None = ROOM) -> list[tuple[str, str]]:
    """Return the headers that assign a call to this scenario."""
    account = [("X-Ari-Conf-Account", stage.account)]
    return account if document is None else [*account, ("X-Ari-Conf-Document", stage.document("/room", document))]


def line(stage: Stage, host: str = "127.0.0.1") -> SipLine:
    port = int(stage.system.sip_address.rpartition(":")[2])
    return SipLine(("::1" if ":" in host else "127.0.0.1", port), host)


def announced_addresses(answer: sip.Message) -> tuple[str, list[str]]:
    """Return the addresses for requests and for audio, as the answer gives them."""
    contact = re.search(r"@?([^@:<>]+|\[[^]]+\]):\d+>", answer.first("contact").replace("sip:", "@"))
    return contact[1] if contact else "", re.findall(r"(?m)^[co]=.*IP[46] (\S+?)\r?$", answer.body)


async def packets(of: SipLine, count: int = 10) -> bytes:
    """Return the last of `count` audio packets."""
    async with lateness.timeout():
        for _ in range(count):
            packet = await asyncio.get_running_loop().sock_recv(of.rtp, 2000)
    return packet


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "127.0.0.1"), (OUTSIDE, PUBLIC), ("::1", "::1")],
    ids=["near", "outside", "IPv6"],
)
async def test_bound_to_all_addresses_each_caller_receives_an_address_that_it_reaches(
    at: Stage, host: str, address: str
) -> None:
    with line(at, host) as caller:
        answer = await caller.invite("15550100", headers=asks_for(at))
        assert answer.status == 200
        assert announced_addresses(answer)[1] == [address, address]
        assert announced_addresses(answer)[0].strip("[]") == address
        await packets(caller)


async def test_a_stranger_may_not_call_under_any_name(at: Stage) -> None:
    log = at.system.log("asterisk").with_name("security.log")
    for name in ("ari_conf_trunk", "anonymous", "udp", "phone", "15550109", "ari_conf_calls"):
        with line(at, STRANGER) as caller:
            assert (await caller.invite("15550100", as_user=name, headers=asks_for(at))).status == 401
    with line(at, STRANGER) as caller:
        assert await caller.registers("phone", "a wrong password") == [401, 401]
    await at.until(lambda: "ChallengeResponseFailed" in log.read_text())
    found = banned(log.read_text())
    assert found.count(STRANGER) >= 3 and set(found) == {STRANGER}
    text = at.system.log("asterisk").read_text()
    assert f"Request 'INVITE' from '<sip:ari_conf_trunk@{STRANGER}>' failed for '{STRANGER}:" in text


async def test_a_provider_by_registration(at: Stage, registrar: tuple[Registrar, int]) -> None:
    provider, _ = registrar
    async with lateness.timeout():
        await provider.registered.wait()
    target = re.search(r"<([^>]+)>", provider.contact)
    assert target is not None and "line=" in target[1]
    with line(at, PROVIDER) as caller:
        assert (await caller.invite(target[1], headers=asks_for(at))).status == 200
        await packets(caller)
    with line(at, PROVIDER) as caller:
        assert (await caller.invite("15550100", headers=asks_for(at))).status == 401, "without that address's secret"


DIALED = {
    "+14155550100;npdi;rn=+14155550199": "14155550100",
    "14155550100;phone-context=+1": "14155550100",
    "0301234567;cic=+16789;isub=1": "0301234567",
    "030-1234567": "0301234567",
    "+1(415)555-0100": "14155550100",
    "(030)123-4567;isub=1": "0301234567",
    "+1.415.555.0100": "14155550100",
    "14155550100,,1234": "14155550100",
    "1415555%200100": "14155550100",
    "%2B14155550100": "14155550100",
    "15%FC55500": "1555500",
    "tel:+14155550100;npdi": "14155550100",
}


async def test_a_number_is_understood_however_it_is_written(at: Stage) -> None:
    at.set_account(answer_url="{url}/answer")
    at.document("/answer", ROOM)
    for dialed in DIALED:
        with line(at) as caller:
            answer = await caller.invite(dialed, headers=asks_for(at, None))
            assert answer.status == 200, (dialed, at.problems())
            await at.ari.request("GET", "/channels")
    asked = [request.params["To"] for request in at.receiver.requests if request.path == "/answer"]
    assert asked == list(DIALED.values())


async def test_requests_within_a_call_are_answered(at: Stage) -> None:
    with line(at) as ann, line(at) as bob:
        for caller in (ann, bob):
            assert (await caller.invite("15550100", headers=asks_for(at))).status == 200
            await packets(caller)
        assert (await ann.asks("OPTIONS")).status == 200
        assert (await ann.asks("INFO")).status == 200
        assert (await ann.asks("INFO", "Signal=5\r\nDuration=160\r\n", content="application/dtmf-relay")).status == 200
        assert (await ann.asks("UPDATE")).status == 200
        blind = [("Refer-To", "<sip:15550199@127.0.0.1>"), ("Referred-By", "<sip:ann@127.0.0.1>")]
        assert (await ann.asks("REFER", headers=blind)).status == 603
        assert (await ann.asks("MESSAGE", "hello", content="text/plain")).status == 202
        # A forwarded request would arrive before the response to Bob's later request.
        assert (await ann.asks("OPTIONS")).status == 200
        await packets(bob, 25)
        assert (await bob.asks("OPTIONS")).status == 200
        assert [message.start for message in bob.heard_besides] == []


async def test_a_message_outside_of_a_call_starts_no_call(at: Stage) -> None:
    """Without a rule, Asterisk would run the dialplan for the text, as for a call."""
    at.set_account(answer_url="{url}/answer")
    with line(at) as phone:
        phone.turns_to("15550100")
        assert (await phone.asks("MESSAGE", "hello", content="text/plain")).status == 404
        assert await at.ari.request("GET", "/channels") == []
    assert at.receiver.requests == []


async def test_audio_and_requests_are_marked(at: Stage) -> None:
    with line(at) as caller:
        for of in (caller.rtp, caller.sip):
            of.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        assert (await caller.invite("15550100", headers=asks_for(at))).status == 200
        await packets(caller)
        caller.sends("OPTIONS")
        marks = []
        for of in (caller.rtp, caller.sip):
            await readable(of)
            _, extra, *_ = of.recvmsg(2000, 100)
            marks += [data[0] for level, kind, data in extra if (level, kind) == (socket.IPPROTO_IP, socket.IP_TOS)]
        assert marks == [EXPEDITED, SIGNALING]


async def readable(of: socket.socket) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(of, ready.set)
    try:
        async with lateness.timeout():
            await ready.wait()
    finally:
        loop.remove_reader(of)


async def test_the_codec_that_the_phone_prefers_and_none_that_both_know(at: Stage) -> None:
    for media, first in (("9 0 8 101", "9"), ("8 9 0 101", "8"), ("3 0 101", "3")):
        with line(at) as caller:
            answer = await caller.invite("15550100", caller.offer(f"RTP/AVP {media}"), headers=asks_for(at))
            assert re.findall(r"(?m)^m=audio \d+ RTP/AVP (\d+)", answer.body) == [first]
    with line(at) as caller:
        assert (await caller.invite("15550100", caller.offer("RTP/AVP 18"), headers=asks_for(at))).status == 488


async def test_a_refused_call_leaves_a_line(at: Stage) -> None:
    for number, offer, status, words in (
        ("**2", "", 404, "to extension '**2' rejected because extension not found in context 'ari_conf'"),
        ("15550100", "v=0\r\nm=audio 4000 RTP/AVP 96\r\n", 400, "Error parsing/validating SDP body"),
    ):
        with line(at) as caller:
            assert (await caller.invite(number, offer, headers=asks_for(at))).status == status
        await at.until(lambda words=words: words in at.system.log("asterisk").read_text(), description=words)


class Softphone:
    """PJSIP's softphone."""

    def __init__(self, stage: Stage, folder: Path, uri: str, **how: Any) -> None:
        self._stage, self._records = stage, folder / "heard.wav"
        tone = folder / "tone.wav"
        self._wanted = {
            "uri": uri,
            "says": str(tone),
            "records": str(self._records),
            "id": "sip:15550108@127.0.0.1",
            "host": "127.0.0.1",
            "transport": "udp",
            "srtp": "no",
            "codecs": ["PCMU/8000/1"],
            "headers": dict(asks_for(stage)),
        } | how
        make = f"ffmpeg -v error -f lavfi -i sine=frequency={LOW}:duration=2:sample_rate={RATE} -ac 1 -y {tone}"
        subprocess.run(make.split(), check=True)
        self.events: list[dict[str, Any]] = []

    async def __aenter__(self) -> Softphone:
        command = (sys.executable, "-m", "tests.integration.softphone", json.dumps(self._wanted))
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, cwd=PROJECT)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with lateness.timeout():
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            raise
        finally:
            self._reader.cancel()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while text := await self._process.stdout.readline():
            self.events.append(json.loads(text))

    def seen(self, **what: Any) -> bool:
        return any(what.items() <= event.items() for event in self.events)

    async def sees(self, **what: Any) -> None:
        await self._stage.until(lambda: self.seen(**what), description=f"{what} in {self.events}")

    def hears(self, hz: int) -> bool:
        # PJSIP writes the file's header when it closes the file.
        audio = self._records.read_bytes()[HEAD:] if self._records.exists() else b""
        spans = audio_analysis.intervals_of(np.frombuffer(audio[: len(audio) // 2 * 2], "<i2").astype(np.int16), hz)
        return any(end - start > 300 for start, end in spans)


PHONES: dict[str, dict[str, Any]] = {
    "UDP": {},
    "TCP": {"transport": "tcp", "codecs": ["G722/16000/1", "PCMU/8000/1"]},
    "TLS and SRTP": {"transport": "tls", "srtp": "required"},
    "SRTP if possible": {"srtp": "optional"},
    "GSM": {"codecs": ["GSM/8000/1"]},
    "account": {"host": PHONE, "id": "sip:phone@127.0.0.1", "user": "phone", "password": PASSWORD},
}


@pytest.mark.parametrize("kind", PHONES)
async def test_a_softphone_hears_and_is_heard(at: Stage, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pjsua2")
    how = dict(PHONES[kind])
    port = at.system.sip_address.rpartition(":")[2]
    transport = how.get("transport", "udp")
    if transport == "tls":
        assert at.system._asterisk is not None
        port = at.system._asterisk.more["TLS_PORT"]
    where = f"127.0.0.1:{port}" + (f";transport={transport}" if transport != "udp" else "")
    if "user" in how:
        how["registrar"] = f"sip:{where}"
    async with at.callers(1) as (ear,):
        await at.call(ear, ROOM)
        ear.tone(HIGH)
        async with Softphone(at, tmp_path, f"sip:15550100@{where}", **how) as phone:
            await phone.sees(state="CONFIRMED")
            if "user" in how:
                await phone.sees(registered=200)
            assert phone.seen(codec=how.get("codecs", ["PCMU/8000/1"])[0].partition("/")[0])
            await at.hears(ear, LOW)
            await at.until(lambda: phone.hears(HIGH), description=f"the phone hears {HIGH} Hz")


SENT = {
    "Opus": ("127.0.0.1", "RTP/AVP 96 101", "rtpmap:96 opus/48000/2", "-ac 2 -c:a libopus -payload_type 96"),
    "IPv6": ("::1", "RTP/AVP 0 101", "rtpmap:0 PCMU/8000", "-ar 8000 -ac 1 -c:a pcm_mulaw"),
}


@pytest.mark.parametrize("kind", SENT)
async def test_calls_that_ffmpeg_makes(at: Stage, kind: str) -> None:
    host, media, mapping, encoding = SENT[kind]
    async with at.callers(1) as (ear,):
        await at.call(ear, ROOM)
        with line(at, host) as caller:
            answer = await caller.invite("15550100", caller.offer(media, mapping), headers=asks_for(at))
            assert f"a={mapping}" in answer.body
            port = re.search(r"m=audio (\d+)", answer.body)
            assert port is not None
            to = f"rtp://{'[::1]' if host == '::1' else host}:{port[1]}"
            command = f"ffmpeg -v error -re -f lavfi -i sine=frequency={LOW}:duration=60 {encoding} -f rtp {to}"
            ffmpeg = await asyncio.create_subprocess_exec(*command.split(), stdout=subprocess.DEVNULL)
            try:
                await at.hears(ear, LOW)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    ffmpeg.kill()
                await ffmpeg.wait()
