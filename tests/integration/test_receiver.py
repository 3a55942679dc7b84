from __future__ import annotations

import asyncio

import aiohttp
import pytest

from ari_conf.http_client import signature
from tests.integration.receiver import Receiver

TOKEN = "my_auth_token"
PARAMS = [("Event", "ConferenceEnter"), ("CallUUID", "abc"), ("Name", "Zoë & co")]


async def _post(url: str, token: str) -> tuple[int, str]:
    headers = signature.headers("POST", url, PARAMS, [token], "12345678901234567890")
    async with aiohttp.ClientSession() as client, client.post(url, data=PARAMS, headers=headers) as answer:
        return answer.status, await answer.text()


async def test_documents_are_served_and_requests_recorded() -> None:
    async with Receiver({"/answer": lambda params: f"<Response>{params['CallUUID']}</Response>"}, TOKEN) as receiver:
        assert await _post(receiver.url("/answer?b=2&a=1"), TOKEN) == (200, "<Response>abc</Response>")
        (request,) = receiver.requests_to("/answer")
        assert request.params == dict(PARAMS)
        assert request.query == {"b": "2", "a": "1"}
        assert b"CallUUID=abc" in request.body
        receiver.all_signed()


async def test_a_wrong_signature_is_detected() -> None:
    async with Receiver(token=TOKEN) as receiver:
        await _post(receiver.url("/cb"), "another_token")
        with pytest.raises(AssertionError, match="not signed"):
            receiver.all_signed()


async def test_a_timeout_names_what_arrived_instead() -> None:
    async with Receiver() as receiver:
        coming = asyncio.create_task(receiver.event("ConferenceEnter", CallUUID="abc"))
        await _post(receiver.url("/cb"), TOKEN)
        assert (await coming).path == "/cb"
        with pytest.raises(TimeoutError, match="POST /cb"):
            await receiver.event("ConferenceExit", timeout=0.05)


async def test_the_configured_responses_are_sent() -> None:
    async with Receiver() as receiver:
        receiver.statuses["/cb"] = [500, 503, 200]
        assert [(await _post(receiver.url("/cb"), TOKEN))[0] for _ in range(4)] == [500, 503, 200, 200]
        receiver.delays["/cb"] = 0.2
        start = asyncio.get_running_loop().time()
        await _post(receiver.url("/cb"), TOKEN)
        assert asyncio.get_running_loop().time() - start >= 0.2
