"""What turns speech into words."""

from __future__ import annotations

from pathlib import Path

import pytest

from ari_conf.errors import TranscriptionFailed, TranscriptionRefused
from ari_conf.settings import from_environment
from demo.speech import speech_files
from tasks import engines
from tasks.engines import RATE, Http, Word, engine, words_of
from tests.tasks.whisper_server import WhisperServer
from tests.tasks.words import error_rate, plain, samples


def test_the_local_one_understands_people() -> None:
    using = engine(from_environment({}))
    assert using.name == "faster-whisper tiny.en"
    speech = speech_files()[0]
    found = using.transcribe(samples(speech))
    assert error_rate(plain(speech.text), plain(" ".join(word.text for word in found))) <= 0.05
    assert all(0 <= word.start_ms <= word.end_ms <= 18_000 and " " not in word.text for word in found)
    assert [word.start_ms for word in found] == sorted(word.start_ms for word in found)
    assert using.transcribe(bytes(RATE * 2 * 3)) == [], "of silence nothing"


def test_another_model_than_the_one_that_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "MODEL_SHA256", "0" * 64)
    with pytest.raises(TranscriptionFailed, match="not the model that it should be"):
        engines.bundled_model()
    monkeypatch.setattr(engines, "BUNDLED", "a_package_that_is_not_there")
    with pytest.raises(TranscriptionFailed, match="there is no model"):
        engines.bundled_model()


@pytest.mark.parametrize("words", [True, False])
def test_a_server_that_speaks_openais_words(words: bool) -> None:
    speech = speech_files()[0]
    with WhisperServer(words=words) as server:
        values = {"ENGINE": "http", "URL": server.url, "KEY": "sk-test", "MODEL": "whisper-2"}
        using = engine(from_environment({f"ARI_CONF_TRANSCRIPTION_{name}": text for name, text in values.items()}))
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
        Http(server.url, "sk-test", "whisper-1").transcribe(bytes(RATE))
    with pytest.raises(TranscriptionFailed, match="did not answer"):
        Http(server.url, None, "whisper-1").transcribe(bytes(RATE))


def test_words_of_segments_are_spread_over_their_time() -> None:
    answer = {"text": "one two", "segments": [{"start": 1.0, "end": 2.0, "text": " one two"}]}
    assert words_of(answer, 5000) == [Word(1000, 1500, "one"), Word(1500, 2000, "two")]
    assert words_of({"text": "a b"}, 1000) == [Word(0, 500, "a"), Word(500, 1000, "b")]
    assert words_of({"text": ""}, 1000) == []


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.symlink_to(engines.bundled_model())
    using = engine(from_environment({"ARI_CONF_TRANSCRIPTION_MODEL": str(folder)}))
    assert using.name == "faster-whisper mine"
