"""Tests of the owner's mark: an owner that cannot reach Redis learns from Asterisk that it was replaced."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import pytest

from ari_conf.common import process_identity
from ari_conf.common.process_identity import ProcessIdentity
from ari_conf.errors import AriUnreachable
from ari_conf.ownership.owner_mark import RIVAL_TIMEOUT_S, Mark, OwnerMark, parse_mark


class Asterisk:
    """Fake of Asterisk's global variables."""

    def __init__(self) -> None:
        self.variables: dict[str, str] = {}
        self.away = False
        self.asked = 0

    async def request(self, method: str, path: str, query: dict[str, str]) -> Any:
        assert path == "/asterisk/variable"
        await asyncio.sleep(0)
        self.asked += 1
        if self.away:
            raise AriUnreachable("away")
        if method == "POST":
            self.variables[query["variable"]] = query["value"]
            return None
        return {"value": self.variables.get(query["variable"], "")}


class Lease:
    def __init__(self, token: str, realm: str = "r1") -> None:
        self.fencing_token, self.realm, self.lost = token, realm, False

    def mark_lost(self) -> None:
        self.lost = True


async def looks(asterisk: Asterisk, times: int = 3) -> None:
    """Wait until the variables have been read that many more times."""
    wanted = asterisk.asked + times
    async with asyncio.timeout(10):
        while asterisk.asked < wanted:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await asyncio.sleep(0)


def begin(asterisk: Asterisk, token: str, app: str = "ari_conf") -> tuple[Lease, asyncio.Task[None]]:
    lease = Lease(token)
    return lease, asyncio.create_task(OwnerMark(asterisk, app, "pbx", lease, interval_s=0.0).run())


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def newcomer(asterisk: Asterisk, realm: str, name: str = "pbx") -> tuple[OwnerMark, Clock, asyncio.Task[None]]:
    clock = Clock()
    mark = OwnerMark(asterisk, "ari_conf", name, Lease("1.z", realm), interval_s=0.0, clock=clock)
    return mark, clock, asyncio.create_task(mark.wait_until_no_rival())


async def test_a_replaced_owner_stops_and_its_successor_continues():
    asterisk = Asterisk()
    first, first_looks = begin(asterisk, "1.a")
    await looks(asterisk)
    assert not first.lost
    second, second_looks = begin(asterisk, "2.b")
    await asyncio.wait_for(first_looks, 10)
    assert first.lost
    await looks(asterisk)
    assert not second.lost
    # Redis may have been emptied: numbers restart, and the later one is the lower.
    third, third_looks = begin(asterisk, "1.c")
    await asyncio.wait_for(second_looks, 10)
    assert second.lost and not third.lost
    third_looks.cancel()


async def test_an_asterisk_that_was_unreachable_or_restarted_replaces_no_owner():
    asterisk = Asterisk()
    owner, looking = begin(asterisk, "1.a")
    await looks(asterisk)
    asterisk.away = True
    await looks(asterisk)
    asterisk.variables.clear()
    asterisk.away = False
    await looks(asterisk)
    assert not owner.lost and parse_mark(asterisk.variables["ARI_CONF_OWNER_ari_conf"]).fencing_token == "1.a"
    looking.cancel()


async def test_applications_of_other_names_have_marks_of_their_own():
    asterisk = Asterisk()
    one, looking = begin(asterisk, "1.a", "one (test)")
    other, looking_too = begin(asterisk, "1.b", "other")
    await looks(asterisk, 8)
    assert not one.lost and not other.lost
    names = {
        "ARI_CONF_OWNER_one__test_",
        "ARI_CONF_HEARTBEAT_one__test_",
        "ARI_CONF_OWNER_other",
        "ARI_CONF_HEARTBEAT_other",
    }
    assert set(asterisk.variables) == names, "() would be a function"
    looking.cancel()
    looking_too.cancel()


async def test_an_owner_of_the_same_realm_is_no_rival():
    asterisk = Asterisk()
    _, looking = begin(asterisk, "1.a")
    await looks(asterisk)
    mark, _, entering = newcomer(asterisk, "r1")
    await asyncio.wait_for(entering, 10)
    assert mark.rival == ""
    looking.cancel()


async def test_a_live_rival_is_waited_for_and_one_without_a_beat_is_not():
    asterisk = Asterisk()
    _, looking = begin(asterisk, "1.a")
    await looks(asterisk)
    # A process of this machine that is certainly alive, since it is this one.
    mark, clock, entering = newcomer(asterisk, "r2")
    await looks(asterisk, 12)
    clock.now += 10 * RIVAL_TIMEOUT_S
    await looks(asterisk, 12)
    assert f"pid {os.getpid()} already serves this Asterisk, using another Redis: stop it" in mark.rival
    assert not entering.done()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    while not entering.done():
        clock.now += 1
        await asyncio.sleep(0)
    assert mark.rival == ""


async def test_a_rival_of_another_name_is_named():
    asterisk = Asterisk()
    _, looking = begin(asterisk, "1.a")
    await looks(asterisk)
    mark, _, entering = newcomer(asterisk, "r2", "elsewhere")
    async with asyncio.timeout(10):
        while not mark.rival:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert "under the name pbx" in mark.rival
    looking.cancel()
    entering.cancel()


@pytest.mark.parametrize("left", ["a dead process", "another program", "nothing"])
async def test_a_mark_that_is_no_longer_renewed_blocks_no_server(left: str):
    asterisk = Asterisk()
    dead = msgspec.json.encode(ProcessIdentity("box", 2**22 + 1, "1", process_identity._pid_namespace())).decode()
    found = {"a dead process": msgspec.json.encode(Mark("9.x", "r9", "pbx", dead)).decode(), "another program": "9.x"}
    asterisk.variables["ARI_CONF_OWNER_ari_conf"] = found.get(left, "")
    mark, _, entering = newcomer(asterisk, "r1")
    await asyncio.wait_for(entering, 10)
    assert mark.rival == ""


async def test_an_asterisk_that_is_away_has_no_rival():
    asterisk = Asterisk()
    asterisk.away = True
    _, _, entering = newcomer(asterisk, "r1")
    await asyncio.wait_for(entering, 10)
