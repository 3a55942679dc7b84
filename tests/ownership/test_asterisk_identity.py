"""Tests of Asterisk's name: each Asterisk has its own, and two with the same name are detected."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from ari_conf.errors import AriUnreachable, SettingsError
from ari_conf.ownership import asterisk_identity


class Asterisk:
    def __init__(self, entity_id: str = "02:00:00:00:00:07") -> None:
        self.entity_id, self.mark = entity_id, ""
        self.away = 0
        self.asked = 0

    async def request(self, method: str, path: str, query: dict[str, str] | None = None) -> Any:
        await asyncio.sleep(0)
        self.asked += 1
        if self.away:
            self.away -= 1
            raise AriUnreachable("refused")
        return {"system": {"entity_id": self.entity_id}} if path == "/asterisk/info" else {"value": self.mark}


class Lease:
    state, realm, current_owner = "standby", "r1", "box pid 7"


async def test_the_name_is_what_asterisk_says_as_soon_as_it_answers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(asterisk_identity, "RETRY_DELAY_S", 0.0)
    asterisk = Asterisk()
    asterisk.away = 3
    with capture_logs() as logged:
        assert await asterisk_identity.wait_for_entity_id(asterisk) == "02:00:00:00:00:07"
    assert asterisk.asked == 4 and len(logged) == 1, "logged once, not at each attempt"


@pytest.mark.parametrize("entity_id", ["", "00:00:00:00:00:00"])
async def test_an_asterisk_without_a_name_is_refused_with_a_sentence(entity_id: str):
    with pytest.raises(SettingsError, match=r"set entityid .* or set ARI_CONF_ASTERISK_NAME"):
        await asterisk_identity.wait_for_entity_id(Asterisk(entity_id))


@pytest.mark.parametrize(("mark", "differs"), [("", True), ('{"fencing_token":"1.a","realm":"r2"}', True),
                                              ('{"fencing_token":"1.a","realm":"r1"}', False)])  # fmt: skip
async def test_two_asterisks_of_one_name_are_noticed_by_the_standby(mark: str, differs: bool):
    asterisk = Asterisk()
    asterisk.mark = mark
    same = asterisk_identity.IdentityCheck(asterisk, "ari_conf", "02:00", Lease(), interval_s=0.0)
    watching = asyncio.create_task(same.watch())
    async with asyncio.timeout(10):
        while asterisk.asked < 5:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert bool(same.other) == differs
    assert not differs or "box pid 7 owns the calls of 02:00, but does not serve this Asterisk" in same.other
    # An owner that has rewritten its mark, or an Asterisk that cannot be asked, is not another one.
    asterisk.away = 10**6
    async with asyncio.timeout(10):
        while same.other:  # noqa: ASYNC110
            await asyncio.sleep(0)
    watching.cancel()
