"""Tests of conference names that the server still has to claim in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ari_conf.core import effects as do
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.server import name_claims as names_module
from ari_conf.server.name_claims import NameClaims
from ari_conf.server.step_writer import StepWriter
from ari_conf.store import state_store
from ari_conf.store.state_store import StateStore, names_key
from tests import lateness
from tests.core.stage import Stage, stay
from tests.redis import RedisServer

NOW = 1_790_000_000_000


class Place:
    """Conferences of this Asterisk, `pbx`, and the Redis in which their names have to be claimed."""

    def __init__(self, server: RedisServer, kept: StateStore) -> None:
        self.server, self.kept = server, kept
        self.stage = Stage()
        self.reconciled = asyncio.Event()
        self.reported: list[tuple[str, ProblemKind, str]] = []
        self.writer = StepWriter(kept, lambda effect: None)
        self.names = NameClaims(
            self.stage.engine, self.writer, lambda *report: self.reported.append(report), self.reconciled, lambda: NOW
        )

    def conferences(self, *names: str) -> None:
        for name in names:
            self.stage.call(f"caller of {name}", stay(name))

    def ours(self) -> dict[str, str]:
        """Return the owner of each name."""
        found = self.server.client.hgetall(names_key("A"))
        return {name.decode(): text.decode().partition(" ")[2] for name, text in found.items()}  # type: ignore[union-attr]


@pytest.fixture
async def place(redis_server: RedisServer) -> AsyncIterator[Place]:
    client = state_store.connect(redis_server.url)
    made = Place(redis_server, StateStore(client, "pbx"))
    writing = asyncio.create_task(made.writer.run())
    yield made
    writing.cancel()
    await client.aclose()


async def test_names_of_conferences_that_were_taken_over_are_claimed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names are claimed in batches, once Asterisk's state is known."""
    monkeypatch.setattr(names_module, "CLAIM_BATCH", 2)
    place.conferences("one", "two", "three")
    claiming = asyncio.create_task(place.names.claim_in_batches())
    await asyncio.wait([claiming], timeout=0.1)
    assert place.ours() == {} and not claiming.done()
    place.reconciled.set()
    await lateness.soon(claiming)
    assert place.ours() == {"one": "pbx", "two": "pbx", "three": "pbx"}


async def test_names_are_claimed_even_if_asterisk_is_unreachable(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "RECONCILIATION_TIMEOUT_S", 0.01)
    place.conferences("one")
    await lateness.soon(place.names.claim_in_batches())
    assert place.ours() == {"one": "pbx"}


async def test_a_conference_that_has_no_name_yet_or_no_more_claims_none(place: Place) -> None:
    place.stage.held = {do.ClaimName}
    place.conferences("asked")
    place.stage.held = set()
    place.conferences("over")
    place.stage.hang_up("caller of over")
    place.reconciled.set()
    await place.names.claim_in_batches()
    assert place.ours() == {}


async def test_all_are_claimed_again(place: Place) -> None:
    """Redis returned empty."""
    place.conferences("one", "two")
    place.reconciled.set()
    await lateness.soon(place.names.claim_in_batches())
    assert place.ours() == {"one": "pbx", "two": "pbx"}


async def test_a_name_of_another_asterisk_stays_there_and_the_account_gets_a_problem(place: Place) -> None:
    client = state_store.connect(place.server.url)
    other = StateStore(client, "elsewhere")
    place.server.client.hset("ari_conf:lease:elsewhere", "renewed_ms", 2**52)
    await other.claim("A", "one", "theirs")
    await client.aclose()
    place.conferences("one")
    place.reconciled.set()
    await lateness.soon(place.names.claim_in_batches())
    assert place.ours() == {"one": "elsewhere"}
    ((account, kind, text),) = place.reported
    assert (account, kind) == ("A", ProblemKind.CONFERENCE_SPLIT)
    assert "'one'" in text and "elsewhere took the name" in text


async def test_of_two_conferences_of_one_name_the_one_that_has_it_is_claimed(place: Place) -> None:
    place.conferences("standup", "other")
    one, other = place.stage.engine.conferences.values()
    other.name = one.name
    place.reconciled.set()
    await lateness.soon(place.names.claim_in_batches())
    found = place.server.client.hgetall(names_key("A"))
    assert found == {b"standup": f"{one.conference_id} pbx".encode()}
