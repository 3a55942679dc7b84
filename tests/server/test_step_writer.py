"""Tests of write-ahead: effects run after the write, and a process that is no longer the owner runs and writes
nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

import pytest
from structlog.testing import capture_logs

from ari_conf.core import effects as do
from ari_conf.core.elements import Play
from ari_conf.errors import LeaseLost, StoreRefused, StoreUnavailable
from ari_conf.queues import outbox
from ari_conf.server import step_writer
from ari_conf.server.step_writer import READ_ONLY_EFFECTS, StepWriter
from ari_conf.store import step_batch as batches
from ari_conf.store.step_batch import Batch, QueuedJob, Step, encode_batch

ANSWER, HANG_UP = do.Answer("c1"), do.HangUp("c1")
ASKS = (
    do.IdentifyCall("u1", "c1", "MA1"),
    do.PrepareSound("p1", Play("http://x.example/a.wav")),
    do.WarmSounds("u1", "MA1", ()),
)
SOON_S = 10.0
"""Seconds: much longer than anything here takes on a busy machine, much shorter than forever."""


async def comes(what: Callable[[], bool]) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SOON_S):
            while not what():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    return what()


class Destination:
    def pipeline(self) -> Any:
        raise AssertionError("not needed here")

    def state_key(self) -> str:
        return "state"

    def claim_command(self, claim: do.ClaimName) -> tuple[str, ...]:
        return ("CLAIM", claim.name)

    def release_command(self, freed: do.ReleaseName) -> tuple[str, ...]:
        return ("RELEASE", freed.name)

    def publish_command(self, auth_id: str, conference_id: str) -> tuple[str, ...]:
        return ("PUBLISH", conference_id)


class Store(Destination):
    """Store that answers each write with the next of the test's errors, and then succeeds."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked = asyncio.Event()
        self.sent: list[tuple[str, list[Any]]] = []
        """(id, arguments) of each sent batch, repetitions included."""
        self.open = asyncio.Event()
        self.open.set()
        self.refuses = b"\0"
        self._ids = count(1)

    def batch(self) -> Batch:
        return Batch(f"p-{next(self._ids)}", self)

    async def send(self, batch: Batch) -> None:
        self.sent.append((batch.id, encode_batch(batch, "", 0, 0)))
        self.asked.set()
        await self.open.wait()
        if (answer := self.answers.pop(0) if self.answers else None) is not None:
            raise answer
        if any(isinstance(part, bytes) and self.refuses in part for part in encode_batch(batch, "", 0, 0)):
            raise StoreRefused("it is refused")

    def written(self) -> list[str]:
        """Return the callbacks in Redis' order; a callback that is repeated under its id is not duplicated."""
        batches = dict(self.sent)
        texts = [part for parts in batches.values() for part in parts if isinstance(part, bytes) and b'"url"' in part]
        return [dict(outbox.decode(text).params)["N"] for text in texts]


class Course:
    """A running writer, and the effects that it has run."""

    def __init__(self, store: Store, **more: Any) -> None:
        self.store = store
        self.done: list[str] = []
        self.lost = False
        self.changes: list[Step] = []
        self.writer = StepWriter(
            store,
            lambda effect: self.done.append(type(effect).__name__),
            self._lose,
            lambda: self.changes.pop() if self.changes else None,
            **more,
        )
        self.task = asyncio.create_task(self.writer.run())

    def _lose(self) -> None:
        self.lost = True

    def put(self, number: int, *effects: do.Effect, size: int = 0) -> None:
        self.writer.submit(step(number, size), effects)

    async def drained(self) -> None:
        await asyncio.wait_for(self.writer.wait_until_drained(), SOON_S)


def step(number: int, size: int = 0, auth_id: str = "MA1") -> Step:
    params = (("N", str(number)), ("filling", "x" * size))
    callback = do.PostCallback("c", auth_id, "http://x.example", "POST", params)
    return Step(1, {f"u{number % 7}": b"%d" % number}, [callback])


@pytest.fixture
async def play() -> AsyncIterator[Callable[..., Course]]:
    plays: list[Course] = []

    def begin(*answers: Exception | None, **more: Any) -> Course:
        plays.append(Course(Store(*answers), **more))
        return plays[-1]

    yield begin
    for one in plays:
        one.task.cancel()


Begin = Callable[..., Course]


async def turns(number: int = 20) -> None:
    """Let the event loop take that many turns, in which no time passes."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_an_effect_runs_after_its_step_is_written(play: Begin):
    one = play()
    one.store.open.clear()
    one.put(1, ANSWER)
    await one.store.asked.wait()
    assert one.done == []
    one.store.open.set()
    await one.drained()
    assert (one.done, one.store.written()) == (["Answer"], ["1"])


async def test_refused_step_and_all_after_it_are_not_done(play: Begin):
    one = play(LeaseLost("another"))
    one.put(1, ANSWER)
    # The writer has nothing left to do.
    await asyncio.wait_for(one.task, SOON_S)
    assert one.lost and one.done == []
    assert len(one.store.sent) == 1 and one.writer.backlog == 0


@pytest.mark.parametrize("effect", ASKS, ids=lambda effect: type(effect).__name__)
async def test_effect_that_only_asks_waits_for_no_write(play: Begin, effect: do.Effect):
    one = play()
    one.put(1, effect)
    assert one.done == [type(effect).__name__]
    assert {type(each) for each in ASKS} == set(READ_ONLY_EFFECTS)


async def test_a_slow_write_holds_no_call_up(play: Begin):
    """Nor does it delay the calls that come during the write."""
    one = play()
    one.store.open.clear()
    one.put(1, ANSWER)
    await one.store.asked.wait()
    one.put(2, HANG_UP)
    assert one.done == []
    assert await comes(lambda: one.done == ["Answer", "HangUp"]), "the calls wait for Redis"
    one.put(3, do.StopMusic("c1"))
    assert one.done[2:] == ["StopMusic"]
    one.store.open.set()
    await one.drained()
    one.store.open.clear()
    one.put(4, ANSWER)
    assert len(one.done) == 3, "a single slow write made all later effects run before their writes"


async def test_a_talking_change_lingers_until_the_next_step(play: Begin):
    one = play()
    one.writer.submit(Step(1, {"c1": b"talks"}), [], may_linger=True)
    one.changes.append(Step(1, {"c2": b"talks"}))
    one.writer.write_soon()
    await turns()
    assert not one.store.asked.is_set()
    one.put(2)
    await one.drained()
    ((_, parts),) = one.store.sent
    assert parts.count(b"talks") == 2


async def test_it_lingers_not_for_long(play: Begin):
    one = play()
    one.writer.submit(Step(1, {"c1": b"talks"}), [], may_linger=True)
    assert await comes(one.store.asked.is_set), "the step waits for another step"


async def test_nothing_else_lingers(play: Begin):
    """Asterisk reports a digit once; it leads to no effect, and must be in Redis even if this process dies."""
    one = play()
    one.writer.submit(Step(1, {"u1": b"digits: 1"}), [])
    await turns()
    assert len(one.store.sent) == 1
    one.changes.append(Step(1, {"u1": b"digits: 12"}))
    one.writer.write_now()
    await turns()
    assert len(one.store.sent) == 2


async def test_without_redis_it_is_done_and_written_later_in_its_order(play: Begin):
    one = play(StoreUnavailable("away"))
    one.put(1, ANSWER)
    await one.store.asked.wait()
    await turns()
    assert one.writer.redis_unavailable and one.done == ["Answer"]
    one.put(2, HANG_UP)
    assert one.done == ["Answer", "HangUp"], "an effect waited for an unreachable Redis"
    await one.drained()
    assert one.store.written() == ["1", "2"] and not one.writer.redis_unavailable


async def test_waiting_steps_are_encoded_once_and_written_in_bounded_batches(
    play: Begin, monkeypatch: pytest.MonkeyPatch
):
    encoded: list[str] = []
    entry = outbox.enqueue_item

    def counted(callback: do.PostCallback, now_ms: int) -> tuple[str, bytes]:
        encoded.append(dict(callback.params)["N"])
        return entry(callback, now_ms)

    monkeypatch.setattr(outbox, "enqueue_item", counted)
    monkeypatch.setattr(step_writer, "RETRY_DELAY_S", 0.001)
    one = play(*[StoreUnavailable("away")] * 20)
    small, large = 3 * batches.MAX_STEPS, 40
    for number in range(small):
        one.put(number)
    for number in range(large):
        one.put(small + number, size=30_000)
    await one.drained()
    assert one.store.written() == encoded == [str(number) for number in range(small + large)]
    tries = [id for id, _ in one.store.sent]
    assert tries[:21] == [tries[0]] * 21
    assert one.store.sent[0][1] == one.store.sent[20][1], "the repeated write differs from the first one"
    sizes = [sum(len(part) for part in parts if isinstance(part, bytes)) for _, parts in one.store.sent]
    assert max(sizes) < batches.MAX_BYTES + 40_000
    assert all(sum(b'"url"' in part for part in parts if isinstance(part, bytes)) <= 500 for _, parts in one.store.sent)


async def test_each_part_has_the_state_of_its_last_step(play: Begin):
    """With a later state, a successor would lose the callbacks; with an earlier one, it would send them again."""
    one = play(StoreUnavailable("away"))
    for number in range(2 * batches.MAX_STEPS):
        one.writer.submit(Step(1, {"c1": b"state %d" % number}, step(number).callbacks), [])
    await one.drained()
    states = [[part for part in parts if str(part).startswith("b'state")] for _, parts in one.store.sent[1:]]
    assert states == [[b"state 499"], [b"state 999"]]


async def test_an_hour_without_redis_takes_little_memory(play: Begin):
    """Callbacks resemble each other, and queued steps are compressed."""
    one = play(*[StoreUnavailable("away")] * 1000)
    for number in range(5000):
        one.put(number, size=800)
    assert one.writer._bytes < 5000 * 100


async def test_overflowing_callbacks_are_dropped_and_reported_and_recordings_kept(
    play: Begin, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(step_writer, "MAX_QUEUED_BYTES", 100_000)
    written_all: list[bool] = []
    one = play(*[StoreUnavailable("away")] * 2, write_all=lambda: written_all.append(True))
    for number in range(3000):
        one.put(number)
    one.writer.submit(Step(1, jobs=[QueuedJob("recordings", "MA2:o:r1", b"store it")]), [HANG_UP])
    one.writer.submit(Step(1, {"u1": b"late"}, step(0, auth_id="MA2").callbacks), [ANSWER])
    await turns()
    one.put(3000, do.StopMusic("c1"))
    assert one.done == ["HangUp", "Answer", "StopMusic"], "the effects of dropped steps run nevertheless"
    assert one.writer._bytes < 200_000
    with capture_logs() as logged:
        await one.drained()
    kept = one.store.written()
    assert kept == [str(number) for number in range(len(kept))] and 100 < len(kept) < 3000
    assert written_all == [True], "the changes of that time are not in Redis"
    parts = [part for _, parts in one.store.sent for part in parts]
    assert b"store it" in parts and b"late" not in parts
    reported = [part for part in parts if isinstance(part, bytes) and b"callbacks were dropped" in part]
    assert (
        len(reported) == 2 and f"{3001 - len(kept)} callbacks".encode() in reported[0] and b"1 callbacks" in reported[1]
    )
    assert [line["callbacks"] for line in logged if line["event"] == "callbacks dropped"] == [3002 - len(kept)]
    one.put(4000)
    await one.drained()
    assert one.store.written()[-1] == "4000" and not one.writer.redis_unavailable


async def test_step_that_redis_always_refuses_costs_itself_alone(play: Begin):
    one = play(StoreUnavailable("away"))
    one.store.refuses = b"poison"
    await turns()
    for number in range(20):
        one.put(number, *([ANSWER] if number == 13 else []))
    params = (("N", "poison"),)
    one.writer.submit(Step(1, {}, [do.PostCallback("c", "MA2", "http://x.example", "POST", params)]), [HANG_UP])
    for number in range(20, 40):
        one.put(number)
    with capture_logs() as logged:
        await one.drained()
    # Each step that was not refused is written once and in order, however the batches were split.
    assert one.done == ["Answer", "HangUp"]
    sent = [[part for part in parts if isinstance(part, bytes)] for _, parts in one.store.sent]
    good = [part for parts in sent if not any(b"poison" in part for part in parts) for part in parts]
    numbers = [dict(outbox.decode(part).params)["N"] for part in good if b'"url"' in part]
    assert numbers == [str(number) for number in range(40)]
    assert [line["log_level"] for line in logged if line["event"] == "step rejected by redis"] == ["error"]
    assert any(b"a callback was dropped" in part for part in good)


async def test_a_step_that_can_not_be_encoded_costs_itself_alone(play: Begin):
    one = play()
    with capture_logs() as logged:
        one.writer.submit(Step(1, {"u1": object()}), [ANSWER])  # type: ignore[dict-item]
        await one.drained()
        one.put(1, HANG_UP)
    await one.drained()
    assert one.done == ["Answer", "HangUp"] and one.store.written() == ["1"]
    assert any("internal error in ari_conf" in line.get("hint", "") for line in logged)


async def test_why_redis_is_away_is_said_once_and_when_it_changes(play: Begin, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(step_writer, "RETRY_DELAY_S", 0.001)
    one = play(*[StoreUnavailable("gone")] * 5, *[StoreUnavailable("full")] * 5)
    with capture_logs() as logged:
        one.put(1)
        await one.drained()
    said = [(line["event"], line.get("reason")) for line in logged]
    assert said == [("redis unavailable", "gone"), ("redis unavailable", "full"), ("redis recovered", None)]
