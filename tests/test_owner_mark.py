"""An owner that can't reach Redis learns from Asterisk that it was replaced."""

from __future__ import annotations

import asyncio
from typing import Any

from ari_conf.errors import AriUnreachable
from ari_conf.owner_mark import OwnerMark


class Asterisk:
    """Of its global variables."""

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
    def __init__(self, token: str) -> None:
        self.token, self.lost = token, False

    def lose(self) -> None:
        self.lost = True


async def looks(asterisk: Asterisk, times: int = 3) -> None:
    """Until it was asked so often more."""
    wanted = asterisk.asked + times
    async with asyncio.timeout(10):
        while asterisk.asked < wanted:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await asyncio.sleep(0)


def begin(asterisk: Asterisk, token: str, app: str = "ari_conf") -> tuple[Lease, asyncio.Task[None]]:
    lease = Lease(token)
    return lease, asyncio.create_task(OwnerMark(asterisk, app, lease, every_s=0.0).run())


async def test_who_is_replaced_stops_and_who_replaced_it_goes_on():
    asterisk = Asterisk()
    first, first_looks = begin(asterisk, "1.a")
    await looks(asterisk)
    assert not first.lost
    second, second_looks = begin(asterisk, "2.b")
    await asyncio.wait_for(first_looks, 10)
    assert first.lost
    await looks(asterisk)
    assert not second.lost
    # Redis may have been emptied: numbers begin again, and the later one is the lower.
    third, third_looks = begin(asterisk, "1.c")
    await asyncio.wait_for(second_looks, 10)
    assert second.lost and not third.lost
    third_looks.cancel()


async def test_an_asterisk_that_was_away_or_started_anew_replaces_nobody():
    asterisk = Asterisk()
    owner, looking = begin(asterisk, "1.a")
    await looks(asterisk)
    asterisk.away = True
    await looks(asterisk)
    asterisk.variables.clear()
    asterisk.away = False
    await looks(asterisk)
    assert not owner.lost and list(asterisk.variables.values()) == ["1.a"]
    looking.cancel()


async def test_applications_of_other_names_have_marks_of_their_own():
    asterisk = Asterisk()
    one, looking = begin(asterisk, "1.a", "one (test)")
    other, looking_too = begin(asterisk, "1.b", "other")
    await looks(asterisk, 8)
    assert not one.lost and not other.lost
    assert set(asterisk.variables) == {"ARI_CONF_OWNER_one__test_", "ARI_CONF_OWNER_other"}, "() would be a function"
    looking.cancel()
    looking_too.cancel()
