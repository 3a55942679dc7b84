"""The README's example program, with a call from a phone."""

from __future__ import annotations

import asyncio

import pytest

from demo.example import Example
from tests.integration.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_example_asks_for_its_pin_and_lets_the_caller_in(stage: Stage) -> None:
    with Example(0, stage.token) as example:
        serving = asyncio.create_task(asyncio.to_thread(example.serve_forever))
        stage.set_account(answer_url=f"{example.url}/answer")
        async with stage.callers(1) as (ann,):
            await stage.dial(ann, None)
            await ann.press("1234")
            await stage.until(lambda: example.events, description="the caller was let in")
            assert example.events[0]["Event"] == "ConferenceEnter"
            assert example.events[0]["ConferenceName"] == "standup"
            await ann.hang_up()
            await stage.until(lambda: example.events[-1]["Event"] == "ConferenceExit")
        example.shutdown()
        await serving
