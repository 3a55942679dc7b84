"""Tests of received RTP, and of other packets that may reach an open port."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ari_conf.ari import rtp
from ari_conf.ari.beep_detector import BeepDetector
from ari_conf.ari.rtp import Receiver, Stream, decode
from demo import g711

SOUND = bytes(range(160))


def packet(number: int, source: int = 7, payload: bytes = SOUND, first: int = 0x80, second: int = 0) -> bytes:
    return struct.pack("!BBHII", first, second, number & 0xFFFF, number * 160 & 0xFFFFFFFF, source) + payload


def test_all_codes() -> None:
    codes = bytes(range(256))
    assert np.array_equal(np.frombuffer(decode(codes), np.int16), g711.decode(codes))


def test_a_stream_in_order() -> None:
    stream = Stream()
    assert [stream.sound(packet(number)) for number in (65534, 65535, 0, 1)] == [decode(SOUND)] * 4


def test_lost_ones_are_left_out() -> None:
    stream = Stream()
    assert all(stream.sound(packet(number)) for number in (1, 2, 9, 400))


@pytest.mark.parametrize("number", [5, 4, 1, 65530])
def test_twice_or_overtaken(number: int) -> None:
    stream = Stream()
    assert stream.sound(packet(5))
    assert stream.sound(packet(number)) is None
    assert stream.sound(packet(6))


@pytest.mark.parametrize(
    "other",
    [
        packet(6, source=8),
        packet(6, second=8),
        packet(6, first=0x90),
        packet(6, first=0xA0),
        packet(6, first=0x81),
        packet(6, first=0x00),
        packet(6, payload=b""),
        packet(6, payload=bytes(801)),
        b"",
        b"\x80",
        bytes(11),
    ],
)
def test_foreign_packets_are_ignored(other: bytes) -> None:
    stream = Stream()
    assert stream.sound(packet(5))
    assert stream.sound(other) is None
    assert stream.sound(packet(6))


@given(st.lists(st.binary(max_size=900)))
def test_anything_may_come(packets: list[bytes]) -> None:
    stream = Stream()
    for one in packets:
        sound = stream.sound(one)
        assert sound is None or len(sound) == 2 * (len(one) - rtp.HEADER_BYTES)


@pytest.mark.parametrize("hz", [400, 1000, 2000])
@pytest.mark.parametrize("level", [-10.0, -40.0])
def test_a_beep_is_one_in_mu_law_as_well(hz: int, level: float) -> None:
    at = np.arange(8000)
    tone = np.sin(2 * np.pi * hz * at / 8000) * 32767 * 10 ** (level / 20) * ((at > 800) & (at < 4000))
    assert BeepDetector().feed(decode(g711.encode(np.round(tone).astype(np.int16))))


# Receiving on a port.


class Sender:
    def __init__(self, receiver: Receiver, host: str = "127.0.0.1") -> None:
        self._to = (receiver.address.partition(":")[0], int(receiver.address.partition(":")[2]))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))

    def send(self, *packets: bytes) -> None:
        for one in packets:
            self._socket.sendto(one, self._to)


class Ear:
    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.receivers: list[Receiver] = []

    def receiver(self, *senders: str) -> Receiver:
        self.receivers.append(Receiver("127.0.0.1", senders, self.heard.append))
        return self.receivers[-1]

    async def hears(self, count: int) -> None:
        await until(lambda: len(self.heard) >= count)
        assert len(self.heard) == count


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not what():  # noqa: ASYNC110  the kernel tells the receiver alone
            await asyncio.sleep(0.005)


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    made = Ear()
    yield made
    for receiver in made.receivers:
        receiver.close()
        receiver.close()


async def test_the_first_sender_is_kept_to(ear: Ear) -> None:
    receiver = ear.receiver()
    asterisk, other = Sender(receiver), Sender(receiver)
    other.send(b"garbage", bytes(900))
    asterisk.send(packet(1))
    await ear.hears(1)
    other.send(packet(2), packet(3))
    asterisk.send(packet(2))
    await ear.hears(2)
    assert receiver.packets == 2


async def test_packets_of_another_source_before_the_source_is_known(ear: Ear) -> None:
    receiver = ear.receiver()
    asterisk, other = Sender(receiver), Sender(receiver)
    asterisk.send(packet(1))
    other.send(packet(2))
    asterisk.send(packet(3))
    await ear.hears(2)


async def test_only_from_asterisk_s_address(ear: Ear) -> None:
    receiver = ear.receiver("127.0.0.1")
    stranger, asterisk = Sender(receiver, "127.0.0.2"), Sender(receiver)
    with capture_logs() as logs:
        stranger.send(packet(1), packet(2))
        asterisk.send(packet(7))
        await ear.hears(1)
    assert [(line["log_level"], line["sender"]) for line in logs] == [("warning", "127.0.0.2")]


async def test_a_flood_leaves_the_loop_its_turns(ear: Ear) -> None:
    """Send as many packets as the kernel buffers: no turn of the loop reads more than its share."""
    receiver = ear.receiver()
    Sender(receiver).send(*(packet(number) for number in range(rtp.READ_BATCH * 10)))
    before, most = 0, 0
    while (now := len(ear.heard)) < rtp.READ_BATCH * 10:
        most, before = max(most, now - before), now
        await asyncio.sleep(0)
    assert most == rtp.READ_BATCH


async def test_unread_packets_are_bounded(ear: Ear) -> None:
    receiver = ear.receiver()
    Sender(receiver).send(*(packet(number) for number in range(2000)))
    await until(lambda: len(ear.heard) > 0)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert 50 < len(ear.heard) < 400


async def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(OSError):
        Receiver("192.0.2.1", (), lambda sound: None)
