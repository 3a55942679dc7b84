"""A recording's file in Asterisk: streamed through ARI and encoded as MP3 or WAV."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
"""kbit/s by sample rate in Hz: narrowband and wideband telephone audio."""
CONTENT_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav"}


class PcmStream:
    """A stream of 16-bit mono samples at `rate` Hz, about `expected` bytes in all."""

    def __init__(self, rate: int, expected: int, chunks: Iterator[bytes]) -> None:
        self.rate = rate
        self.expected = expected
        self._chunks = chunks
        self.read = 0

    @property
    def duration_ms(self) -> int:
        """Return the duration of what has been read so far."""
        return round(self.read / 2 * 1000 / self.rate)

    def __iter__(self) -> Iterator[bytes]:
        odd = b""
        for chunk in self._chunks:
            whole = odd + chunk
            odd = whole[len(whole) & ~1 :]
            self.read += len(whole) - len(odd)
            yield whole[: len(whole) - len(odd)]


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
        self._lame.set_channels(1)
        self._lame.set_in_sample_rate(tape.rate)
        self._lame.set_out_sample_rate(tape.rate)
        self._lame.set_bit_rate(BIT_RATES.get(tape.rate, 64))
        self._lame.set_quality(5)
        self._fed = False

    def start(self) -> bytes:
        return b""

    def feed(self, samples: bytes) -> bytes | bytearray:
        self._fed = self._fed or bool(samples)
        encoded: bytearray = self._lame.encode(samples) if samples else bytearray()
        return encoded

    def finish(self) -> bytes | bytearray:
        if not self._fed:
            # Players refuse an empty file, so it gets some silence.
            self.feed(bytes(2 * 1152))
        encoded: bytearray = self._lame.flush()
        return encoded


class WavEncoder:
    def __init__(self, tape: PcmStream) -> None:
        size = tape.expected & ~1
        self._head = struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            *(b"RIFF", min(36 + size, 0xFFFFFFFF), b"WAVE", b"fmt ", 16, 1, 1, tape.rate, tape.rate * 2, 2, 16),
            *(b"data", min(size, 0xFFFFFFFF)),
        )

    def start(self) -> bytes:
        return self._head

    def feed(self, samples: bytes) -> bytes:
        return samples

    def finish(self) -> bytes:
        return b""


ENCODERS: dict[str, Callable[[PcmStream], Encoder]] = {"mp3": Mp3Encoder, "wav": WavEncoder}
