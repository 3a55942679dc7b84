"""Tests of the notifications to workers; Celery is loaded once the calls are served."""

from __future__ import annotations

import asyncio

import pytest

from ari_conf.server import worker_notifier as workers_module
from ari_conf.server.worker_notifier import WorkerNotifier
from tests import lateness


class Tokens:
    def __init__(self, can_inline: bool) -> None:
        self.can_inline = can_inline
        self.happened: list[str] = []
        self.woken = asyncio.Event()

    def start(self) -> None:
        self.happened.append("start")

    def wake(self) -> None:
        self.happened.append("wake")
        self.woken.set()

    def stop(self) -> None:
        self.happened.append("stop")

    def wakeup_message(self, token: str) -> str | None:
        return f"letter of {token}" if self.can_inline else None


def made(monkeypatch: pytest.MonkeyPatch, *, can_inline: bool) -> Tokens:
    tokens = Tokens(can_inline)
    monkeypatch.setattr(workers_module, "_tokens", lambda url: tokens)
    return tokens


async def test_celery_waits_until_the_calls_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = made(monkeypatch, can_inline=True)
    workers, compared = WorkerNotifier("redis://127.0.0.1:1/0"), asyncio.Event()
    # Before that, neither way notifies a worker, and nothing fails.
    workers.wake()
    assert workers.wakeup_message("t1") is None
    beginning = asyncio.create_task(workers.start(compared))
    await asyncio.wait([beginning], timeout=0.05)
    assert tokens.happened == []
    compared.set()
    await lateness.soon(beginning)
    # Entries from before are announced now.
    assert tokens.happened == ["start", "wake"]


async def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "CELERY_WAITS_S", 0.01)
    tokens = made(monkeypatch, can_inline=True)
    workers = WorkerNotifier("redis://127.0.0.1:1/0")
    await lateness.soon(workers.start(asyncio.Event()))
    assert tokens.happened == ["start", "wake"]
    workers.stop()
    assert tokens.happened[-1] == "stop"


async def test_whom_a_letter_tells_is_not_woken_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = made(monkeypatch, can_inline=True)
    workers, compared = WorkerNotifier("redis://127.0.0.1:1/0"), asyncio.Event()
    compared.set()
    await workers.start(compared)
    tokens.woken.clear()
    assert workers.wakeup_message("t1") == "letter of t1"
    workers.wake()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(tokens.woken.wait(), 10 * workers_module.NOTIFY_DELAY_S)


async def test_where_there_are_no_letters_they_are_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = made(monkeypatch, can_inline=False)
    workers, compared = WorkerNotifier("redis://127.0.0.1:1/0"), asyncio.Event()
    compared.set()
    await workers.start(compared)
    tokens.woken.clear()
    workers.wake()
    await lateness.soon(tokens.woken.wait())
    assert workers.wakeup_message("t1") is None


async def test_one_that_never_began_can_be_ended() -> None:
    WorkerNotifier("redis://127.0.0.1:1/0").stop()
