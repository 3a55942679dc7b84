"""A recording's file in Asterisk, or both files in stereo: streamed through ARI and encoded as MP3 or WAV."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol
from urllib.parse import quote

import lameenc  # type: ignore[import-not-found]
import requests
from urllib3.exceptions import HTTPError

from ari_conf.core.ids import RecordingName
from ari_conf.errors import RecordingFailed, RecordingMissing
from ari_conf.settings import Settings

CHUNK_BYTES = 64 * 1024
CONNECT_S, ANSWER_S = 5.0, 30.0
MAX_HEADER_BYTES = 4096
BIT_RATES = {8000: 32, 16000: 48}
"""kbit/s of a channel by sample rate in Hz: narrowband and wideband telephone audio."""
CONTENT_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav"}


class PcmStream:
    """A stream of 16-bit samples of `channels` channels at `rate` Hz, about `expected` bytes in all."""

    def __init__(self, rate: int, expected: int, chunks: Iterator[bytes], channels: int = 1) -> None:
        self.rate = rate
        self.expected = expected
        self.channels = channels
        self._chunks = chunks
        self.read = 0

    @property
    def duration_ms(self) -> int:
        """Return the duration of what has been read so far."""
        return round(self.read / 2 / self.channels * 1000 / self.rate)

    def __iter__(self) -> Iterator[bytes]:
        odd = b""
        for chunk in self._chunks:
            whole = odd + chunk
            odd = whole[len(whole) & ~1 :]
            self.read += len(whole) - len(odd)
            yield whole[: len(whole) - len(odd)]


def in_stereo(left: PcmStream, right: PcmStream) -> PcmStream:
    """Return the stream of two channels; the shorter one ends with silence. Raises RecordingFailed."""
    if left.rate != right.rate:
        raise RecordingFailed(f"the two files of the recording differ in their rate: {left.rate} and {right.rate} Hz")
    expected = max(left.expected & ~1, right.expected & ~1) * 2
    return PcmStream(left.rate, expected, _interleaved(left, right), channels=2)


def _interleaved(left: PcmStream, right: PcmStream) -> Iterator[bytes]:
    streams, kept = (iter(left), iter(right)), [b"", b""]
    ended = [False, False]
    while True:
        for n, stream in enumerate(streams):
            while not kept[n] and not ended[n]:
                chunk = next(stream, None)
                ended[n], kept[n] = chunk is None, chunk or b""
        if not (kept[0] or kept[1]):
            return
        # An ended stream is silent from here on.
        size = min(len(part) for n, part in enumerate(kept) if part)
        samples = array("h", bytes(size * 2))
        for n, part in enumerate(kept):
            if part:
                samples[n::2] = array("h", part[:size])
                kept[n] = part[size:]
        yield samples.tobytes()


class AsteriskRecordings:
    """The recordings of one Asterisk, through ARI. Methods raise RecordingFailed if Asterisk is unreachable or
    refuses."""

    def __init__(self, ari_url: str, settings: Settings) -> None:
        self._url = f"{ari_url.rstrip('/')}/recordings"
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.auth = (settings.ari_user, settings.ari_password.get_secret_value())

    def is_live(self, name: RecordingName) -> bool:
        with self._request("GET", "live", name) as answer:
            return bool(answer.status_code == 200)

    @contextmanager
    def open_stream(self, name: RecordingName) -> Iterator[PcmStream]:
        """Open the recording's file as a stream of samples. Raises RecordingMissing if the file does not exist."""
        with self._request("GET", "stored", name, "/file", stream=True) as answer:
            if answer.status_code == 404:
                raise RecordingMissing("Asterisk has no such recording")
            length = int(answer.headers.get("Content-Length", 0))
            chunks = _chunks(answer)
            try:
                yield _tape(chunks, length)
            except (requests.RequestException, HTTPError, OSError) as error:
                raise RecordingFailed(f"Asterisk stopped sending the recording: {error}") from error

    @contextmanager
    def open_streams(self, names: Sequence[RecordingName]) -> Iterator[PcmStream]:
        """Open the files of a recording as one stream: of a single file, or of the left and the right channel.

        A channel without a file is silent. Raises RecordingMissing if no file exists.
        """
        with ExitStack() as opened:
            found: list[PcmStream | None] = []
            for name in names:
                try:
                    found.append(opened.enter_context(self.open_stream(name)))
                except RecordingMissing:
                    found.append(None)
            known = next((stream for stream in found if stream is not None), None)
            if known is None:
                raise RecordingMissing("Asterisk has no such recording")
            whole = [stream or PcmStream(known.rate, 0, iter(())) for stream in found]
            yield in_stereo(*whole) if len(whole) == 2 else whole[0]

    def delete(self, name: RecordingName) -> None:
        with self._request("DELETE", "stored", name):
            pass

    def close(self) -> None:
        self._session.close()

    @contextmanager
    def _request(self, method: str, where: str, name: RecordingName, end: str = "", **more: Any) -> Any:
        url = f"{self._url}/{where}/{quote(str(name), safe='')}{end}"
        try:
            answer = self._session.request(
                method, url, timeout=(CONNECT_S, ANSWER_S), headers={"Accept-Encoding": "identity"}, **more
            )
        except requests.RequestException as error:
            raise RecordingFailed(f"Asterisk is unreachable: {type(error).__name__}") from error
        with answer:
            if answer.status_code not in (200, 204, 404):
                raise RecordingFailed(f"Asterisk answered {method} {where} with status {answer.status_code}")
            yield answer


def _chunks(answer: requests.Response) -> Iterator[bytes]:
    # A body that is shorter than its Content-Length raises an error.
    answer.raw.enforce_content_length = True
    while chunk := answer.raw.read(CHUNK_BYTES):
        yield chunk


def _tape(chunks: Iterator[bytes], length: int) -> PcmStream:
    """Return the stream of samples that follows the WAV header.

    Asterisk writes the lengths in the header when the recording ends. In a file that was cut off they are wrong, so the
    file's own length counts. Raises RecordingFailed if it is not a mono WAV file.
    """
    head = b""
    for chunk in chunks:
        head += chunk
        if b"data" in head[:MAX_HEADER_BYTES] or len(head) >= MAX_HEADER_BYTES:
            break
    if not head:
        return PcmStream(8000, 0, iter(()))
    found = head.find(b"data")
    if not (head.startswith(b"RIFF") and 0 < found < MAX_HEADER_BYTES) or head[20:24] != b"\1\0\1\0":
        raise RecordingFailed("the file in Asterisk is not a mono WAV file")
    (rate,) = struct.unpack_from("<I", head, 24)
    start = found + 8

    def samples() -> Iterator[bytes]:
        yield head[start:]
        yield from chunks

    return PcmStream(rate, max(0, length - start), samples())


class Encoder(Protocol):
    def start(self) -> bytes: ...

    def feed(self, samples: bytes) -> bytes | bytearray: ...

    def finish(self) -> bytes | bytearray: ...


class Mp3Encoder:
    def __init__(self, tape: PcmStream) -> None:
        self._lame = lameenc.Encoder()
        self._lame.silence()
        self._lame.set_channels(tape.channels)
        self._lame.set_in_sample_rate(tape.rate)
        self._lame.set_out_sample_rate(tape.rate)
        self._lame.set_bit_rate(BIT_RATES.get(tape.rate, 64) * tape.channels)
        self._lame.set_quality(5)
        self._fed, self._channels = False, tape.channels

    def start(self) -> bytes:
        return b""

    def feed(self, samples: bytes) -> bytes | bytearray:
        self._fed = self._fed or bool(samples)
        encoded: bytearray = self._lame.encode(samples) if samples else bytearray()
        return encoded

    def finish(self) -> bytes | bytearray:
        if not self._fed:
            # Players refuse an empty file, so it gets some silence.
            self.feed(bytes(2 * 1152 * self._channels))
        encoded: bytearray = self._lame.flush()
        return encoded


class WavEncoder:
    def __init__(self, tape: PcmStream) -> None:
        size, frame = tape.expected & ~1, 2 * tape.channels
        self._head = struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            *(b"RIFF", min(36 + size, 0xFFFFFFFF), b"WAVE", b"fmt ", 16, 1, tape.channels),
            *(tape.rate, tape.rate * frame, frame, 16),
            *(b"data", min(size, 0xFFFFFFFF)),
        )

    def start(self) -> bytes:
        return self._head

    def feed(self, samples: bytes) -> bytes:
        return samples

    def finish(self) -> bytes:
        return b""


ENCODERS: dict[str, Callable[[PcmStream], Encoder]] = {"mp3": Mp3Encoder, "wav": WavEncoder}
