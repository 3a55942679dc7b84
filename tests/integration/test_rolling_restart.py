"""An upgrade in the order of docs/operations/upgrades-backups.md: nobody hears it, and no callback is lost."""

from __future__ import annotations

import asyncio

import pytest

from ari_conf.local import processes
from demo.phone import now_ms
from tests.integration.stage import Stage
from tests.integration.test_standby import SERVES, TAKEN_OVER_S, over, says, second, talking
from tests.integration.test_takeover import ROOM

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_workers_then_the_standby_then_the_active_server_are_restarted(own: Stage) -> None:
    async with own.callers(4) as board:
        phones = tuple(board)
        async with second(own, "standby of the old release") as old_standby:
            no_gap = await talking(own, phones[:3])
            began = now_ms()
            # The worker. A caller arrives while there is none.
            await own.system.stop("worker")
            await own.call(phones[3], ROOM)
            await own.system.start("worker")
            await own.enters(phones[3])
            await processes.stop(old_standby.process)
        async with second(own, "standby of the new release") as standby:
            stopping = asyncio.create_task(own.system.stop("serve"))
            took = await says(standby.process, SERVES)
            assert took < TAKEN_OVER_S
            await stopping
            async with second(own, "the former active server") as former:
                assert (await standby.ready())[0] == 200 and (await former.ready())[0] == 503
                # Everyone is still in, and hears everyone else.
                now = now_ms()
                tones = dict(zip(phones, (2575, 2875, 3175), strict=False))
                pairs = [(ear, hz) for ear in phones for voice, hz in tones.items() if voice is not ear]
                await asyncio.gather(*(own.hears(ear, hz, after=now) for ear, hz in pairs))
                no_gap(began)
                await over(own, phones, 4)
    own.saw(f"all processes restarted, taken over within {took:.2f} s, no gap in three callers' talk")
