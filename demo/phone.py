"""A caller's phone: calls, speaks, sends digits, records the received audio, hangs up.

    async with Switchboard(3) as (ann, bob, cid):
        await ann.call("sip:standup@127.0.0.1:5060", from_user="15550001")
        ann.tone(440)
        ...
        assert audio_analysis.is_tone_present(bob.heard.between(t0, t1), 440)

All times are epoch ms. Everything is on 127.0.0.1, unless the Switchboard has another address: mu-law (or G.722, for a
wideband phone), packets of 20 ms.
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
from demo.dialog import CallFailed, CallTarget, Dialog, State
from demo.received_audio import AudioRecorder, ReceivedAudio
from demo.rtcp import ReceiverReports
from demo.rtp import DIGITS, RtpSession, RtpThread, Sound
from demo.sip import address_of

__all__ = ["CallFailed", "Phone", "Sound", "Switchboard", "now_ms"]

Samples = NDArray[np.int16]


def now_ms() -> float:
    return time.time() * 1000


class Phone:
    """One caller's phone, created by a Switchboard, with one call at a time and any number in sequence.

    The received audio, the digits and the times are those of the latest call, and stay after its end.
    """

    def __init__(self, wire: RtpThread, name: str = "", codec: Codec = PCMU, host: str = "127.0.0.1") -> None:
        self.name = name
        self.codec = codec
        self._host = host
        self._wire = wire
        self._dialog: Dialog | None = None
        self._session: RtpSession | None = None
        self._recorder = AudioRecorder()
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
        """(ms, digit) of each digit that the far end sent as an RFC 4733 event."""

    @property
    def state(self) -> State | None:
        """Return the call's state, or None before the first call."""
        return self._dialog.state if self._dialog else None

    @property
    def end_reason(self) -> str:
        """Return the reason of the call's end, from the far end's Reason header or status; "" while it lasts."""
        return self._dialog.end_reason if self._dialog else ""

    @property
    def cause(self) -> int | None:
        """Return the far end's Q.850 cause: 16 is a normal end."""
        return self._dialog.cause if self._dialog else None

    @property
    def heard(self) -> ReceivedAudio:
        return self._recorder.heard()

    def as_sent(self) -> Samples:
        """Return the received audio of the latest call, regardless of delays and without its place in time."""
        return self._recorder.as_sent()

    @property
    def latest_ms(self) -> float:
        """Return the greatest delay of a sent packet in ms: above 20, the fault is not Asterisk's."""
        return self._session.latest_ms if self._session else 0.0

    @property
    def late(self) -> list[tuple[float, float]]:
        """Return (epoch ms, delay in ms) of each packet that was sent more than 20 ms late, in the order of sending."""
        return self._session.late if self._session else []

    def call(
        self,
        uri: str,
        *,
        headers: Mapping[str, str] | None = None,
        from_user: str = "15551234",
        display_name: str = "",
    ) -> Coroutine[None, None, None]:
        """Start a call; await the result, which returns when the call is answered.

        `ringing` and `early_media` report what happens before. Raises CallFailed, also when hang_up() ends the ringing.
        """
        address_of(uri)
        if self.state not in (None, "ended"):
            raise RuntimeError(f"{self.name} is already in a call: hang up first")
        # Before the first await: a caller that starts a task and then waits for `ringing` waits for this call's event.
        self._clear()
        return self._call(CallTarget(uri, from_user, display_name, tuple((headers or {}).items())))

    async def _call(self, who: CallTarget) -> None:
        loop = asyncio.get_running_loop()
        session = RtpSession(
            self._host, lambda at, digit: _call_soon(loop, self._on_digit_received, at, digit), self.codec
        )
        session.sound = self._sound
        self._session, self._recorder = session, session.recorder
        dialog = Dialog(
            who,
            session.port,
            self._change,
            lambda address: setattr(session, "destination", address),
            self.codec,
            self._host,
        )
        self._wire.add(session)
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
        """Say this from now on: int16 at the codec's rate, or a WAV file of that rate. The Sound has the times."""
        samples = _wav(Path(what), self.codec.rate) if isinstance(what, Path | str) else what
        return self._speak(Sound(self.codec.encode(samples), loop, self.codec.silence))

    def tone(self, hz: int, level: float = -20.0) -> Sound:
        """Send a steady tone of whole Hz from now on; `level` in dBFS, where 0 is the largest sine."""
        wave_of_a_second = np.sin(2 * np.pi * hz * np.arange(self.codec.rate) / self.codec.rate)
        loud = np.round(wave_of_a_second * 32767 * 10 ** (level / 20)).astype(np.int16)
        return self._speak(Sound(self.codec.encode(loud), True, self.codec.silence))

    def silence(self) -> Sound:
        """Send silence from now on; packets continue."""
        return self._speak(Sound(b"", quiet=self.codec.silence))

    def _speak(self, sound: Sound) -> Sound:
        self._sound = sound
        if self._session:
            self._session.sound = sound
        return sound

    def begin_stream(self, ahead: int = -20000, *, source: bool = True) -> None:
        """Start another RTP stream, with sequence numbers `ahead` of the earlier stream's (negative: behind)."""
        self._talking_session.begin_stream(ahead, source)

    def send_packets(self, on: bool) -> None:
        """Stop sending packets, digits included, as with silence suppression (False), or resume (True)."""
        self._talking_session.sends = on

    def jitter(self, packets: int) -> None:
        """Delay each packet by up to this number of packets from now on."""
        self._talking_session.jitter = packets

    def lose(self, sent: float = 0.0, received: float = 0.0) -> None:
        """Lose these shares of the packets from now on: of those that the phone sends, and of those sent to it."""
        self._talking_session.loss_sent, self._talking_session.loss_received = sent, received

    def send_reports(self) -> None:
        """Send RTCP receiver reports from now on, as most phones do: they count as packets for `rtp_timeout`."""
        self._talking_session.reports = ReceiverReports()

    def vanish(self) -> None:
        """Send nothing and answer nothing any more, as a phone that has crashed. `hang_up` has no effect then."""
        self.send_packets(False)
        if self._dialog:
            self._dialog.vanished = True

    async def hold(self, direction: str = "sendonly", address: str = "") -> None:
        """Put the far end on hold, or resume with "sendrecv"; the audio continues. Raises CallFailed."""
        if self._dialog is None or self.state != "answered":
            raise RuntimeError(f"{self.name} is not in a call")
        answer = await self._dialog.reinvite(direction, address)
        if answer.status >= 300:
            raise CallFailed(answer.status, answer.reason, answer.cause)

    async def resume(self) -> None:
        await self.hold("sendrecv")

    @property
    def _talking_session(self) -> RtpSession:
        if self._session is None or self.state == "ended":
            raise RuntimeError(f"{self.name} is not in a call")
        return self._session

    async def press(self, digits: str, gap_ms: int = 100, duration_ms: int = 100) -> None:
        """Press the digits one after another and return after the last. Times are rounded down to 20 ms."""
        if wrong := set(digits) - set(DIGITS):
            raise ValueError(f"{''.join(sorted(wrong))!r} is not on a phone's keypad; expected 0-9, *, # and A-D")
        if self._session is None or self.state == "ended":
            raise RuntimeError(f"{self.name} is not in a call")
        loop = asyncio.get_running_loop()
        for digit in digits:
            self._session.press(
                digit, duration_ms, gap_ms, lambda at, key: _call_soon(loop, self._on_digit_sent, at, key)
            )
        target = len(self.pressed) + len(digits)
        while len(self.pressed) < target and not self._ended.is_set():
            await self._wait(self._digit)
        await asyncio.sleep(duration_ms / 1000)

    def _on_digit_sent(self, at: float, digit: str) -> None:
        self.pressed.append((at, digit))
        self._digit.set()

    def _on_digit_received(self, at: float, digit: str) -> None:
        self.received.append((at, digit))
        self._digit.set()

    async def wait_for_digits(self, digits: str, within: float = 30.0) -> None:
        """Wait until the digits from the far end are exactly these, in total. Raises TimeoutError with what arrived."""
        try:
            async with asyncio.timeout(within):
                while "".join(digit for _, digit in self.received) != digits:
                    await self._wait(self._digit)
        except TimeoutError:
            received = "".join(digit for _, digit in self.received) or "nothing"
            raise TimeoutError(f"{self.name}: expected {digits} within {within} s, received {received}") from None

    async def wait_for_audio(
        self, test: Callable[[Samples], bool], within: float = 30.0, window_ms: int = 200
    ) -> float:
        """Wait until `test` holds for the latest `window_ms` of received audio, and return the start of that window.

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
            raise TimeoutError(f"{self.name} did not hear the expected audio within {within} s") from None

    async def hang_up(self) -> None:
        if self._dialog:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self._dialog.end()
        self._close()

    async def wait_until_hung_up(self, within: float = 120.0) -> None:
        """Wait for the end of the call, whichever side ends it. Raises TimeoutError."""
        try:
            await asyncio.wait_for(self._ended.wait(), within)
        except TimeoutError:
            raise TimeoutError(f"{self.name}: the call did not end within {within} s") from None

    async def _wait(self, event: asyncio.Event) -> None:
        """Wait until the event is set again, or the call ends."""
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
            if self._session:
                self._wire.remove(self._session)

    def _close(self) -> None:
        if self._dialog:
            self._dialog.close()


class Switchboard:
    """A set of phones at one address. On exit it hangs all of them up within at most 5 s and closes their sockets."""

    def __init__(self, count: int = 0, host: str = "127.0.0.1") -> None:
        self._wire = RtpThread()
        self._host = host
        self.phones = [Phone(self._wire, f"phone {number + 1}", host=host) for number in range(count)]

    def phone(self, name: str = "", codec: Codec = PCMU) -> Phone:
        self.phones.append(Phone(self._wire, name or f"phone {len(self.phones) + 1}", codec, self._host))
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


def _call_soon(loop: asyncio.AbstractEventLoop, what: Callable[[float, str], None], at: float, digit: str) -> None:
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(what, at, digit)


def _wav(path: Path, rate: int) -> Samples:
    with wave.open(str(path)) as file:
        if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, rate):
            raise ValueError(f"{path} must be a WAV file of {rate} Hz, 16 bit, one channel")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)
