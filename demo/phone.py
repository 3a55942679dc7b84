"""A caller: calls, speaks, presses digits, hears, hangs up.

    async with Switchboard(3) as (ann, bob, cid):
        await ann.call("sip:standup@127.0.0.1:5060", from_user="15550001")
        ann.tone(440)
        ...
        assert listen.sounds(bob.heard.between(t0, t1), 440)

All times are epoch ms. Everything is on 127.0.0.1, mu-law (or G.722, of a wideband caller), 20 ms packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import wave
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.codec import PCMU, Codec
from demo.dialog import CallFailed, Dialog, State, Who
from demo.heard import Heard, Recorder
from demo.rtp import DIGITS, Line, Sound, Wire
from demo.sip import address_of

__all__ = ["CallFailed", "Phone", "Sound", "Switchboard", "now_ms"]

Samples = NDArray[np.int16]


def now_ms() -> float:
    return time.time() * 1000


class Phone:
    """One caller; made by a Switchboard. One call at a time, as many as he likes one after another.

    What he heard, the digits and the times are the latest call's, and stay after it has ended.
    """

    def __init__(self, wire: Wire, name: str = "", codec: Codec = PCMU) -> None:
        self.name = name
        self.codec = codec
        self._wire = wire
        self._dialog: Dialog | None = None
        self._line: Line | None = None
        self._recorder = Recorder()
        self._sound = Sound(b"", quiet=codec.silence)
        self._clear()

    def _clear(self) -> None:
        self.ringing = asyncio.Event()
        self.early_media = asyncio.Event()
        self._ended = asyncio.Event()
        self._digit = asyncio.Event()
        self.called_at: float | None = None
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.pressed: list[tuple[float, str]] = []
        """(ms, digit) of each digit that this caller sent; the time is that of its first packet."""
        self.received: list[tuple[float, str]] = []
        """(ms, digit) of each that came from the far end as an RFC 4733 event."""

    @property
    def state(self) -> State | None:
        """None before the first call."""
        return self._dialog.state if self._dialog else None

    @property
    def end_reason(self) -> str:
        """Why the call ended: the far end's Reason header or status; "" while it lasts."""
        return self._dialog.end_reason if self._dialog else ""

    @property
    def cause(self) -> int | None:
        """The Q.850 cause that the far end gave: 16 is a normal end."""
        return self._dialog.cause if self._dialog else None

    @property
    def heard(self) -> Heard:
        return self._recorder.heard()

    def as_sent(self) -> Samples:
        """What this caller hears of the latest call, however late it came; without its place in time."""
        return self._recorder.as_sent()

    @property
    def latest_ms(self) -> float:
        """By how many ms the latest of this caller's packets was sent too late: above 20, don't blame Asterisk."""
        return self._line.latest_ms if self._line else 0.0

    @property
    def late(self) -> list[tuple[float, float]]:
        """(epoch ms, by how many ms) of each of them that was later than 20 ms, in the order of their sending."""
        return self._line.late if self._line else []

    def call(
        self,
        uri: str,
        *,
        headers: Mapping[str, str] | None = None,
        from_user: str = "15551234",
        display_name: str = "",
    ) -> Coroutine[None, None, None]:
        """Await it: it returns when answered; `ringing` and `early_media` tell of what comes before.

        Raises CallFailed, also when hang_up() ends the ringing.
        """
        address_of(uri)
        if self.state not in (None, "ended"):
            raise RuntimeError(f"{self.name} is in a call already: hang up first")
        # Before anything is awaited: who starts a call as a task and then waits for `ringing` waits for this call's.
        self._clear()
        return self._call(Who(uri, from_user, display_name, tuple((headers or {}).items())))

    async def _call(self, who: Who) -> None:
        loop = asyncio.get_running_loop()
        line = Line("127.0.0.1", lambda at, digit: _soon(loop, self._hear_digit, at, digit), self.codec)
        line.sound = self._sound
        self._line, self._recorder = line, line.recorder
        dialog = Dialog(who, line.port, self._change, lambda address: setattr(line, "far", address), self.codec)
        self._wire.add(line)
        await dialog.open()
        self._close()
        self._dialog = dialog
        self.called_at = now_ms()
        try:
            await dialog.invite()
        except asyncio.CancelledError:
            await self.hang_up()
            raise

    def say(self, what: Samples | Path | str, loop: bool = False) -> Sound:
        """From now on he says this: int16 at his codec's rate, or a WAV file of that. The Sound tells when that was."""
        samples = _wav(Path(what), self.codec.rate) if isinstance(what, Path | str) else what
        return self._speak(Sound(self.codec.encode(samples), loop, self.codec.silence))

    def tone(self, hz: int, level: float = -20.0) -> Sound:
        """From now on a steady tone of whole Hz; `level` in dBFS, where 0 is the largest sine."""
        wave_of_a_second = np.sin(2 * np.pi * hz * np.arange(self.codec.rate) / self.codec.rate)
        loud = np.round(wave_of_a_second * 32767 * 10 ** (level / 20)).astype(np.int16)
        return self._speak(Sound(self.codec.encode(loud), True, self.codec.silence))

    def silence(self) -> Sound:
        """From now on nothing; packets go on."""
        return self._speak(Sound(b"", quiet=self.codec.silence))

    def _speak(self, sound: Sound) -> Sound:
        self._sound = sound
        if self._line:
            self._line.sound = sound
        return sound

    def begin_stream(self, ahead: int = -20000, *, source: bool = True) -> None:
        """From now on another RTP stream, whose sequence numbers are so far ahead of the earlier one's, or behind."""
        self._talking_line.begin_stream(ahead, source)

    def send_packets(self, on: bool) -> None:
        """False: none, as with silence suppression; digits neither."""
        self._talking_line.sends = on

    def jitter(self, packets: int) -> None:
        """From now on each packet comes up to so many packets later than it should."""
        self._talking_line.jitter = packets

    def vanish(self) -> None:
        """Sends nothing any more and answers nothing, as a phone that has crashed. `hang_up` does nothing then."""
        self.send_packets(False)
        if self._dialog:
            self._dialog.vanished = True

    async def hold(self, direction: str = "sendonly", address: str = "") -> None:
        """Puts the far end on hold, or with "sendrecv" takes it back; the sound goes on as it is. Raises CallFailed."""
        if self._dialog is None or self.state != "answered":
            raise RuntimeError(f"{self.name} is not in a call")
        answer = await self._dialog.offer_again(direction, address)
        if answer.status >= 300:
            raise CallFailed(answer.status, answer.reason, answer.cause)

    async def resume(self) -> None:
        await self.hold("sendrecv")

    @property
    def _talking_line(self) -> Line:
        if self._line is None or self.state == "ended":
            raise RuntimeError(f"{self.name} is not in a call")
        return self._line

    async def press(self, digits: str, gap_ms: int = 100, duration_ms: int = 100) -> None:
        """Presses them one after another; returns when the last has been sent. Times are rounded down to 20 ms."""
        if wrong := set(digits) - set(DIGITS):
            raise ValueError(f"there is no key {''.join(sorted(wrong))} on a phone: 0-9, *, # and A-D")
        if self._line is None or self.state == "ended":
            raise RuntimeError(f"{self.name} is not in a call")
        loop = asyncio.get_running_loop()
        for digit in digits:
            self._line.press(digit, duration_ms, gap_ms, lambda at, key: _soon(loop, self._has_pressed, at, key))
        target = len(self.pressed) + len(digits)
        while len(self.pressed) < target and not self._ended.is_set():
            await self._wait(self._digit)
        await asyncio.sleep(duration_ms / 1000)

    def _has_pressed(self, at: float, digit: str) -> None:
        self.pressed.append((at, digit))
        self._digit.set()

    def _hear_digit(self, at: float, digit: str) -> None:
        self.received.append((at, digit))
        self._digit.set()

    async def receives(self, digits: str, within: float = 30.0) -> None:
        """Waits until exactly these came from the far end, all in all. Raises TimeoutError, saying what came."""
        try:
            async with asyncio.timeout(within):
                while "".join(digit for _, digit in self.received) != digits:
                    await self._wait(self._digit)
        except TimeoutError:
            came = "".join(digit for _, digit in self.received)
            raise TimeoutError(f"{self.name}: {digits} awaited for {within} s, {came or 'nothing'} came") from None

    async def hears(self, test: Callable[[Samples], bool], within: float = 30.0, window_ms: int = 200) -> float:
        """Waits until `test` holds for the latest `window_ms` that he heard; returns when that window began.

        Raises TimeoutError.
        """
        try:
            async with asyncio.timeout(within):
                while True:
                    heard = self.heard
                    if len(heard.audio) >= window_ms * 8 and test(heard.audio[-window_ms * 8 :]):
                        return heard.end_ms - window_ms
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise TimeoutError(f"{self.name} did not hear it within {within} s") from None

    async def hang_up(self) -> None:
        if self._dialog:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self._dialog.end()
        self._close()

    async def hung_up(self, within: float = 120.0) -> None:
        """Waits for the end of the call, whoever ends it. Raises TimeoutError."""
        try:
            await asyncio.wait_for(self._ended.wait(), within)
        except TimeoutError:
            raise TimeoutError(f"{self.name}: the call still goes on after {within} s") from None

    async def _wait(self, event: asyncio.Event) -> None:
        """For the next time that it is set, or the end of the call."""
        event.clear()
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._ended.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _change(self, state: State) -> None:
        if state == "ringing":
            self.ringing.set()
        elif state == "early":
            self.early_media.set()
        elif state == "answered":
            self.answered_at = now_ms()
        elif state == "ended":
            self.ended_at = now_ms()
            self._ended.set()
            if self._line:
                self._wire.remove(self._line)

    def _close(self) -> None:
        if self._dialog:
            self._dialog.close()


class Switchboard:
    """Makes phones, and at its end hangs them all up: at most 5 s, then their sockets are closed."""

    def __init__(self, count: int = 0) -> None:
        self._wire = Wire()
        self.phones = [Phone(self._wire, f"phone {number + 1}") for number in range(count)]

    def phone(self, name: str = "", codec: Codec = PCMU) -> Phone:
        self.phones.append(Phone(self._wire, name or f"phone {len(self.phones) + 1}", codec))
        return self.phones[-1]

    def __iter__(self) -> Iterator[Phone]:
        return iter(self.phones)

    async def __aenter__(self) -> Switchboard:
        self._wire.__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.gather(*(phone.hang_up() for phone in self.phones), return_exceptions=True)
        finally:
            self._wire.__exit__()


def _soon(loop: asyncio.AbstractEventLoop, what: Callable[[float, str], None], at: float, digit: str) -> None:
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(what, at, digit)


def _wav(path: Path, rate: int) -> Samples:
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, rate):
            raise ValueError(f"{path} must be a WAV file of {rate} Hz, 16 bit, one channel")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
