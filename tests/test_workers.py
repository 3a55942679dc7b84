"""Workers are told that there is something to take; Celery is loaded once the calls are served."""

from __future__ import annotations

import asyncio

import pytest

from ari_conf import workers as workers_module
from ari_conf.workers import Workers
from tests import lateness


class Tokens:
    def __init__(self, has_letters: bool) -> None:
        self.has_letters = has_letters
        self.happened: list[str] = []
        self.woken = asyncio.Event()

    def start(self) -> None:
        self.happened.append("start")

    def wake(self) -> None:
        self.happened.append("wake")
        self.woken.set()

    def end(self) -> None:
        self.happened.append("end")

    def letter(self, token: str) -> str | None:
        return f"letter of {token}" if self.has_letters else None


def made(monkeypatch: pytest.MonkeyPatch, *, has_letters: bool) -> Tokens:
    tokens = Tokens(has_letters)
    monkeypatch.setattr(workers_module, "_tokens", lambda url: tokens)
    return tokens


async def test_celery_waits_until_the_calls_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = made(monkeypatch, has_letters=True)
    workers, compared = Workers("redis://127.0.0.1:1/0"), asyncio.Event()
    # Before, nobody is told in either way, and nothing fails.
    workers.wake()
    assert workers.letter("t1") is None
    beginning = asyncio.create_task(workers.begin(compared))
    await asyncio.wait([beginning], timeout=0.05)
    assert tokens.happened == []
    compared.set()
    await lateness.soon(beginning)
    # What came meanwhile is told of now.
    assert tokens.happened == ["start", "wake"]


async def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "CELERY_WAITS_S", 0.01)
    tokens = made(monkeypatch, has_letters=True)
    workers = Workers("redis://127.0.0.1:1/0")
    await lateness.soon(workers.begin(asyncio.Event()))
    assert tokens.happened == ["start", "wake"]
    workers.end()
    assert tokens.happened[-1] == "end"


async def test_whom_a_letter_tells_is_not_woken_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = made(monkeypatch, has_letters=True)
    workers, compared = Workers("redis://127.0.0.1:1/0"), asyncio.Event()
    compared.set()
    await workers.begin(compared)
    tokens.woken.clear()
    assert workers.letter("t1") == "letter of t1"
    workers.wake()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(tokens.woken.wait(), 10 * workers_module.TELL_S)


async def test_where_there_are_no_letters_they_are_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = made(monkeypatch, has_letters=False)
    workers, compared = Workers("redis://127.0.0.1:1/0"), asyncio.Event()
    compared.set()
    await workers.begin(compared)
    tokens.woken.clear()
    workers.wake()
    await lateness.soon(tokens.woken.wait())
    assert workers.letter("t1") is None


async def test_one_that_never_began_can_be_ended() -> None:
    Workers("redis://127.0.0.1:1/0").end()
