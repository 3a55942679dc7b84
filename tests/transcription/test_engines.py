"""Transcription engines, which turn speech into words."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from ari_conf.errors import TranscriptionFailed, TranscriptionRefused, TranscriptionUnusable
from ari_conf.settings import from_environment
from ari_conf.transcription import engines
from ari_conf.transcription.answers import Word
from ari_conf.transcription.engines import MAX_RESPONSE_BYTES, RATE, HttpEngine, create_engine, installed
from demo.speech import speech_files
from tests.tasks.whisper_server import WhisperServer
from tests.tasks.words import error_rate, plain, samples


def test_the_local_one_understands_people() -> None:
    using = create_engine(from_environment({}))
    assert using.name == "faster-whisper tiny.en"
    speech = speech_files()[0]
    found = using.transcribe(samples(speech))
    assert error_rate(plain(speech.text), plain(" ".join(word.text for word in found))) <= 0.05
    assert all(0 <= word.start_ms <= word.end_ms <= 18_000 and " " not in word.text for word in found)
    assert [word.start_ms for word in found] == sorted(word.start_ms for word in found)
    assert using.transcribe(bytes(RATE * 2 * 3)) == [], "silence was transcribed as words"


def test_another_model_than_the_one_that_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "MODEL_SHA256", "0" * 64)
    with pytest.raises(TranscriptionFailed, match="is not the expected model"):
        engines.bundled_model()
    monkeypatch.setattr(engines, "BUNDLED", "a_package_that_is_not_there")
    with pytest.raises(TranscriptionFailed, match="no model is installed"):
        engines.bundled_model()


@pytest.mark.parametrize("words", [True, False])
def test_a_server_that_speaks_openais_words(words: bool) -> None:
    speech = speech_files()[0]
    with WhisperServer(words=words) as server:
        values = {"ENGINE": "http", "URL": server.url, "KEY": "sk-test", "MODEL": "whisper-2"}
        using = create_engine(
            from_environment({f"ARI_CONF_TRANSCRIPTION_{name}": text for name, text in values.items()})
        )
        found = using.transcribe(samples(speech))
        assert server.asked[0]["model"] == "whisper-2" and server.asked[0]["language"] == "en"
    assert error_rate(plain(speech.text), plain(" ".join(word.text for word in found))) <= 0.05
    assert found[-1].end_ms <= len(samples(speech)) / 2 / RATE * 1000 + 1


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, TranscriptionFailed), (429, TranscriptionFailed), (401, TranscriptionFailed), (413, TranscriptionRefused)],
)
def test_a_server_that_does_not(status: int, error: type[Exception]) -> None:
    with WhisperServer(answer=lambda: status) as server, pytest.raises(error, match=str(status)):
        HttpEngine(server.url, "sk-test", "whisper-1").transcribe(bytes(RATE))
    with pytest.raises(TranscriptionFailed, match="did not answer"):
        HttpEngine(server.url, None, "whisper-1").transcribe(bytes(RATE))


def fields(asked: dict[str, str]) -> tuple[str, bool]:
    return asked["response_format"], "timestamp_granularities[]" in asked


PLAIN = json.dumps({"text": "room seven is open"}).encode()
TIMED = json.dumps({"text": "room", "words": [{"word": "room", "start": 0.1, "end": 0.2}]}).encode()
NO_VERBOSE = b'{"error": {"message": "response_format verbose_json is not compatible with gpt-4o-transcribe"}}'


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    ("takes", "found"),
    [
        ([("verbose_json", False), ("json", False)], [Word(100, 200, "room")]),
        ([("json", False)], [Word(n * 250, n * 250 + 250, w) for n, w in enumerate(("room", "seven", "is", "open"))]),
    ],
    ids=["no granularities", "no verbose_json"],
)
def test_a_model_that_does_not_take_what_we_would_like(
    status: int, takes: list[tuple[str, bool]], found: list[Word]
) -> None:
    """The engine falls back to a simpler request, and uses it directly from then on."""

    def answer(asked: dict[str, str]) -> tuple[int, bytes]:
        if fields(asked) not in takes:
            return status, NO_VERBOSE
        return 200, TIMED if asked["response_format"] == "verbose_json" else PLAIN

    with WhisperServer(raw=answer) as server:
        for _ in range(2):
            assert HttpEngine(server.url, "sk-test", "gpt-4o-transcribe").transcribe(bytes(RATE * 2)) == found
        asked = [fields(one) for one in server.asked]
    ladder = [("verbose_json", True), ("verbose_json", False), ("json", False)]
    assert asked == [*ladder[: ladder.index(takes[0]) + 1], takes[0]]


def test_refusal_in_each_form_gives_the_servers_reason() -> None:
    with WhisperServer(raw=lambda _: (400, b'{"error": {"message": "Invalid model"}}')) as server:
        with pytest.raises(TranscriptionRefused, match="status 400: Invalid model"):
            HttpEngine(server.url, "sk-test", "whisper-x").transcribe(bytes(RATE))
        assert len(server.asked) == 3


BAD = {
    "a page": b"<html>Bad Gateway</html>",
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "no text": b'{"text": null}',
    "too much": b'{"text": "' + b"x " * MAX_RESPONSE_BYTES + b'"}',
    "too many words": json.dumps({"text": "a " * 50_000}).encode(),
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_an_answer_that_is_no_transcription_is_unusable(body: bytes) -> None:
    with WhisperServer(raw=lambda _: (200, body)) as server:
        with pytest.raises(TranscriptionUnusable, match="the transcription server's response"):
            HttpEngine(server.url, "sk-test", "whisper-1").transcribe(bytes(RATE))
        assert len(server.asked) == 1, "a further form was tried although the first response was paid for"


def test_an_answer_that_never_ends_is_broken_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = threading.Event()

        def drip() -> None:
            client, _ = listening.accept()
            with client:
                client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                while not ended.is_set():
                    with suppress(OSError):
                        client.sendall(b"1\r\n \r\n")
                    ended.wait(0.05)

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(TranscriptionFailed, match="longer than 1 s"):
            HttpEngine(url, None, "whisper-1", answer_s=1).transcribe(bytes(RATE))
        ended.set()
        dripping.join()


@pytest.mark.parametrize(("language", "asked"), [("de", "de"), ("auto", None)])
def test_a_server_is_told_the_language(language: str, asked: str | None) -> None:
    with WhisperServer(raw=lambda _: (200, PLAIN)) as server:
        HttpEngine(server.url, "sk-test", "whisper-1").transcribe(bytes(RATE), language)
        assert server.asked[0].get("language") == asked


def test_the_model_for_english_refuses_others() -> None:
    using = create_engine(from_environment({}))
    with pytest.raises(TranscriptionRefused, match="only understands English"):
        using.transcribe(bytes(RATE), "de")
    assert using.transcribe(bytes(RATE), "auto") == []


def test_installed_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of(**values: str) -> str:
        return installed(from_environment({f"ARI_CONF_TRANSCRIPTION_{n}": text for n, text in values.items()}))

    assert of() == "tiny.en" and of(ENGINE="http", MODEL="m") == "m" and of(ENGINE="http")
    assert of(MODEL=str(tmp_path)) == ""
    (tmp_path / "model.bin").touch()
    assert of(MODEL=str(tmp_path)) == tmp_path.name
    monkeypatch.setattr(engines, "BUNDLED", "a_package_that_is_not_there")
    assert of() == ""


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.symlink_to(engines.bundled_model())
    using = create_engine(from_environment({"ARI_CONF_TRANSCRIPTION_MODEL": str(folder)}))
    assert using.name == "faster-whisper mine"
