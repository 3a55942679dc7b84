"""Calls that the API places while everything is killed: each request ends in one of dialed and told, or refused.

Some requests have an Idempotency-Key, and are sent again with it until there is a reply: they dial once. The phones
count the INVITEs, and the application the requests about the end of each call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import aiohttp

from ari_conf.dialing import trunk_store, trunks
from ari_conf.store import accounts
from demo.phone import now_ms
from tests.chaos.hearing import Finding
from tests.integration.answering_phones import Phones
from tests.integration.stage import PATIENT, Stage

EVERY_S = 1.2
"""Seconds between two requests."""
REPLY_S = 15.0
"""Seconds after which a request counts as broken."""
AGAIN_S, AGAIN = 0.5, 60
"""Seconds between two attempts with the same key, and their maximum number."""
LASTS_S = 3
"""Seconds that a call lasts after its answer."""
ENDED = "/placed/ended"
CALLER = "4930123456"
BROKEN = 0
"""Status of a request without a reply: it may have been carried out or not."""


@dataclass
class Order:
    """One request for a call."""

    number: str
    key: str | None
    """Idempotency-Key."""
    into_conference: bool
    at_ms: float = field(default_factory=now_ms)
    statuses: list[int] = field(default_factory=list)
    call_uuid: str = ""

    @property
    def status(self) -> int:
        """Return the status of the last reply."""
        return self.statuses[-1] if self.statuses else BROKEN


class Placing:
    def __init__(self, stage: Stage, phones: Phones, session: aiohttp.ClientSession) -> None:
        self._stage, self._phones, self._session = stage, phones, session
        self.orders: list[Order] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Place calls without end: by both APIs, with and without a key."""
        while True:
            number = len(self.orders)
            key = str(uuid4()) if number % 2 else None
            order = Order(f"49151{number:06}", key, number % 4 >= 2)
            self.orders.append(order)
            self._tasks.add(asyncio.create_task(self._place(order)))
            await asyncio.sleep(EVERY_S)

    async def stop(self) -> None:
        """Place no more calls, and wait until each request has its last reply."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await asyncio.gather(*self._tasks)

    async def dial_again(self) -> None:
        """Dial a number once more, without the server: a fault that must be found."""
        number = self.orders[0].number
        await self._phones.invite_of(number)
        query = {"endpoint": f"PJSIP/anonymous/sip:{number}@{self._phones.host}", "app": "planted", "timeout": "1"}
        await self._stage.ari.request("POST", "/channels", query)

    async def _place(self, order: Order) -> None:
        await self._ask(order)
        for _ in range(AGAIN if order.key is not None else 0):
            if order.status == BROKEN or order.status >= 500:
                await asyncio.sleep(AGAIN_S)
                await self._ask(order)

    async def _ask(self, order: Order) -> None:
        stage = self._stage
        body = {"from": CALLER, "to": f"sip:{order.number}@{self._phones.host}"}
        url = f"{stage.system.settings.public_url}/v1/Account/{stage.account}/"
        if order.into_conference:
            url += f"Conference/called {order.number}/Member/"
            more = {"time_limit": LASTS_S, "call_status_callback_url": f"{stage.receiver.url(ENDED)}#{PATIENT}"}
        else:
            url += "Call/"
            more = {
                "answer_url": f"{stage.receiver.url('/placed/answer')}#{PATIENT}",
                "hangup_url": f"{stage.receiver.url(ENDED)}#{PATIENT}",
            }
        headers = {"Idempotency-Key": order.key} if order.key is not None else {}
        status = BROKEN
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, ConnectionError):
            async with asyncio.timeout(REPLY_S), self._session.post(url, json=body | more, headers=headers) as response:
                text = await response.text()
                status = response.status
                if status == 201:
                    order.call_uuid = json.loads(text)["request_uuid"]
        order.statuses.append(status)

    def figures(self) -> dict[str, float]:
        statuses = [status for order in self.orders for status in order.statuses]
        return {
            "calls ordered by the API": len(self.orders),
            "calls dialed": sum(map(len, self._phones.calls.values())),
            "orders that were sent again": sum(len(order.statuses) > 1 for order in self.orders),
            "orders without a reply": sum(status == BROKEN for status in statuses),
        }

    def judge(self) -> list[Finding]:
        told = self._stage.receiver.requests_to(ENDED)
        ended = {r.params["CallUUID"] for r in told if r.params["Event"] in ("Hangup", "CallCompleted")}
        return judge(self.orders, {number: len(calls) for number, calls in self._phones.calls.items()}, ended)


def judge(orders: Iterable[Order], dialed: Mapping[str, int], ended: Collection[str]) -> list[Finding]:
    """Judge the requests. `dialed`: INVITEs by number. `ended`: UUIDs of the calls whose end was told."""
    found: list[Finding] = []
    for order in orders:
        invites = dialed.get(order.number, 0)
        name = f"the call to {order.number}, replies {order.statuses or 'none'}"
        if invites > 1:
            found.append(Finding(order.at_ms, f"{name}: dialed {invites} times"))
        if order.status == 201 and order.call_uuid not in ended:
            found.append(Finding(order.at_ms, f"{name}: accepted, and its end was not told"))
        elif order.status not in (201, BROKEN) and BROKEN not in order.statuses and invites:
            found.append(Finding(order.at_ms, f"{name}: refused, and dialed"))
        elif order.key is not None and order.status != 201:
            found.append(Finding(order.at_ms, f"{name}: not accepted, however often it was sent"))
    return found


@asynccontextmanager
async def placing(stage: Stage) -> AsyncGenerator[Placing]:
    """Let the API place calls while the context lasts."""
    stage.document("/placed/answer", f"<Wait length='{LASTS_S}'/>")
    login = {"Authorization": aiohttp.encode_basic_auth(stage.account, stage.token)}
    async with Phones() as phones, aiohttp.ClientSession(headers=login) as session:
        trunk = {"dial": "PJSIP/{number}@anonymous", "hosts": [phones.host], "calls": 0, "per_second": 0}
        trunk_store.add(stage.redis, trunks.make("chaos", trunk), (), lambda *_: None)
        accounts.update(
            stage.redis, stage.account, dial_prefixes=f"sip:{phones.host}", dial_caller_ids="+4930*", dial_calls=1000,
            dial_calls_per_minute=10_000, dial_minutes_per_day=10_000,
        )  # fmt: skip
        orders = Placing(stage, phones, session)
        orders.start()
        try:
            yield orders
        finally:
            await orders.stop()
