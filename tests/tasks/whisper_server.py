"""A server with OpenAI's /v1/audio/transcriptions that really transcribes, with the local engine."""

from __future__ import annotations

import io
import json
import threading
import wave
from collections.abc import Callable
from email.message import EmailMessage
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from ari_conf.transcription.answers import Word
from ari_conf.transcription.engines import RATE, LocalEngine, bundled_model


class WhisperServer:
    """A transcription server. `answer`: returns an error status to send, or None to transcribe. `understand`: replaces
    the engine where the words don't matter."""

    def __init__(
        self,
        key: str = "sk-test",
        answer: Callable[[], int | None] = lambda: None,
        words: bool = True,
        understand: Callable[[bytes], list[Word]] | None = None,
        raw: Callable[[dict[str, str]], tuple[int, bytes] | None] = lambda asked: None,
    ) -> None:
        """Take `raw`, a function of the request's fields: a status and a body to send instead, or None."""
        self.key, self.answer, self.words, self.understand = key, answer, words, understand
        self.raw = raw
        self.asked: list[dict[str, str]] = []
        self._engine: LocalEngine | None = None

    def __enter__(self) -> WhisperServer:
        server = self

        class Requests(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, told = server.transcribe(self.path, self.headers, body)
                text = told if isinstance(told, bytes) else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/audio/transcriptions"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def transcribe(self, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, Any] | bytes]:
        if headers["Authorization"] != f"Bearer {self.key}" or path != "/v1/audio/transcriptions":
            return 401, {}
        head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
        parts = {one.get_param("name", header="content-disposition"): one for one in _parts(head + body)}
        file = parts.pop("file").get_payload(decode=True)
        self.asked.append({str(name): str(one.get_payload()) for name, one in parts.items()})
        if (status := self.answer()) is not None:
            return status, {}
        if (answered := self.raw(self.asked[-1])) is not None:
            return answered
        with wave.open(io.BytesIO(file)) as sound:
            assert (sound.getnchannels(), sound.getframerate()) == (1, RATE)
            samples = sound.readframes(sound.getnframes())
        if self.understand is None:
            assert np.frombuffer(samples, "<i2").any()
            self._engine = self._engine or LocalEngine(bundled_model(), 1, "tiny.en")
            self.understand = self._engine.transcribe
        found = self.understand(samples)
        text = " ".join(word.text for word in found)
        told: dict[str, Any] = {"text": text}
        if self.words:
            told["words"] = [{"word": w.text, "start": w.start_ms / 1000, "end": w.end_ms / 1000} for w in found]
        return 200, told


def _parts(message: bytes) -> list[EmailMessage]:
    return BytesParser(EmailMessage).parsebytes(message).get_payload()  # type: ignore[return-value, arg-type]
