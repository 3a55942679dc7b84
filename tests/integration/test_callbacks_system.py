"""Callbacks of the whole system, from a call to the user's receiver: signatures, retries, dead letters, the guard."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, closing
from urllib.parse import urlsplit

import pytest
from plivo.utils import validate_signature, validate_v3_signature

from ari_conf.store import accounts
from demo.phone import Phone
from tests.integration.receiver import Request
from tests.integration.stage import Stage
from tests.lateness import Patience, took_s

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOM = '<Conference callbackUrl="{url}/events" digitsMatch="1">standup</Conference>'
FORBIDDEN = ("http://10.0.0.1/{path}", "http://169.254.169.254/{path}", "http://[::1]:{port}/{path}")
AT_ONCE_S = 1.5
"""Seconds, well below `ct`, after which the worker gives up a connection that nobody answers."""


@asynccontextmanager
async def alone(stage: Stage, document: str) -> AsyncGenerator[Phone]:
    """Yield the only caller of a conference."""
    async with stage.callers(1) as (ann,):
        await stage.call(ann, document)
        yield ann
        await ann.hang_up()


async def command(stage: Stage, *words: str) -> str:
    """Run `ari-conf WORDS` and return its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ARI_CONF_")}
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ari_conf", *words),
        env=environment | stage.system.values,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, complaint = await run.communicate()
    assert run.returncode == 0, complaint.decode()
    return told.decode()


def signed(request: Request, token: str) -> tuple[bool, bool]:
    """Return the verdicts of Plivo's SDK on both signatures: (V3, V2)."""
    v3, v2 = "X-Plivo-Signature-V3", "X-Plivo-Signature-V2"
    nonces = [request.headers[f"{name}-Nonce"] for name in (v3, v2)]
    return (
        validate_v3_signature("POST", request.url, nonces[0], token, request.headers[v3], dict(request.params)),
        validate_signature(request.url, nonces[1], request.headers[v2], token),
    )


async def pressed(stage: Stage, phone: Phone) -> Request:
    """Press one more digit and return its callback."""
    before = len(stage.events("ConferenceDigitsMatch"))
    await phone.press("1")
    await stage.until(lambda: len(stage.events("ConferenceDigitsMatch")) > before)
    return stage.events("ConferenceDigitsMatch")[-1]


async def test_a_token_is_rotated_while_callbacks_flow(stage: Stage) -> None:
    """> During a token's rotation several signatures stand in the header, joined by a comma."""
    async with alone(stage, ROOM) as ann:
        first = await pressed(stage, ann)
        printed = await command(stage, "account", "rotate-token", stage.account)
        old, new = stage.token, accounts.get(stage.redis, stage.account).token
        assert new in printed
        assert signed(first, old) == (True, True)
        patience = Patience(20)
        # A URL with a port has several signatures of each token.
        while not signed(seen := await pressed(stage, ann), new)[0]:
            # A worker rereads an account after 5 s; the old token is valid in any case.
            assert signed(seen, old) == (True, True)
            assert not patience.over, "the new token never signed"
        last = await stage.event("ConferenceDigitsMatch", ConferenceSequence=seen.params["ConferenceSequence"])
        assert signed(last, old)[0]
        # The SDK compares V2 as a whole, so V2 can have only one token's signature: the new token's.
        assert signed(last, new) == (True, True)
        assert not any(signed(last, "x" * 40))
    exit_ = await stage.event("ConferenceExit")
    assert signed(exit_, old)[0]
    assert signed(exit_, new) == (True, True)
    sequence = [int(one.params["ConferenceSequence"]) for one in stage.receiver.requests_to("/events")]
    assert sequence == list(range(1, len(sequence) + 1))
    stage.receiver.requests.clear()  # checked here, since no single token fits all of them


async def test_a_callback_is_tried_as_its_url_says_and_then_a_dead_letter(stage: Stage) -> None:
    stage.receiver.statuses["/events"] = [503, 500, 404, 503, 200]
    stage.receiver.delays["/slow"] = 3
    # The fragment asks for three retries after any response; the slow URL gets 300 ms and no second try.
    document = ROOM.replace("/events", "/events#rc=3&amp;rp=all")
    async with alone(stage, document):
        await stage.event("ConferenceEnter")
        async with alone(stage, ROOM.replace("/events", "/slow#rt=300&amp;rc=0").replace("standup", "other")):
            await stage.until(lambda: stage.receiver.requests_to("/slow"))
    await stage.until(lambda: len(letters(stage)) == 3 and len(stage.receiver.requests_to("/events")) == 5)
    arrived = [(one.params["Event"], one.params["ConferenceSequence"]) for one in stage.receiver.requests_to("/events")]
    assert arrived == [("ConferenceEnter", "1")] * 4 + [("ConferenceExit", "2")]

    slow, enter = sorted(await listed(stage), key=lambda line: line[2])[1:]
    assert (slow[2], enter[2]) == ("1", "4")
    assert enter[3] == stage.receiver.url("/events#rc=3&rp=all")
    shown = await command(stage, "dead-letters", "show", stage.account, enter[0])
    assert [line.split("\t")[1][:4] for line in shown.splitlines()[2:6]] == ["503,", "500,", "404,", "503,"]
    assert "ConferenceSequence\t1" in shown
    assert "did not respond in time" in await command(stage, "dead-letters", "show", stage.account, slow[0])
    assert any(
        f"{stage.url}/slow is a dead letter after 1 try: it did not respond" in text for text in stage.problems()
    )
    assert f"{stage.url}/events is a dead letter after 4 tries" in await command(stage, "problems", stage.account)

    told = await command(stage, "dead-letters", "resend", stage.account, enter[0])
    assert told == "1 callback will be resent.\n"
    await stage.until(lambda: len(stage.receiver.requests_to("/events")) == 6)
    assert stage.receiver.requests_to("/events")[-1].params["ConferenceSequence"] == "1"
    assert len(await listed(stage)) == 2


def letters(stage: Stage) -> list[bytes]:
    return list(stage.redis.xrange(f"ari_conf:callbacks:dead-letters:{stage.account}"))


async def listed(stage: Stage) -> list[list[str]]:
    told = await command(stage, "dead-letters", "list", stage.account)
    return [line.split("\t") for line in told.splitlines()]


async def test_lanes_are_shown_while_a_callback_is_under_way(stage: Stage) -> None:
    stage.receiver.delays["/events"] = 4
    async with alone(stage, ROOM) as ann:
        await stage.event("ConferenceEnter")
        await ann.press("1")
        await stage.until(lambda: depth(stage) == 2)
        (lane,) = [line.split("\t") for line in (await command(stage, "lanes")).splitlines()]
        stage.receiver.delays.clear()
    account, state, depth_, oldest, url = lane
    assert (account, state, depth_, url) == (stage.account, "being sent", "2", f"{stage.url}/events")
    assert oldest.endswith(" s")
    await stage.event("ConferenceExit")


def depth(stage: Stage) -> int:
    return sum(
        stage.redis.llen(key) for key in stage.redis.scan_iter(f"ari_conf:callbacks:partition:{stage.account}:*")
    )


@pytest.fixture
def forbidden(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield a URL that is closed to requests; for the local one, check at the end that no connection came."""
    with closing(socket.create_server(("::1", 0), family=socket.AF_INET6)) as listening:
        listening.setblocking(False)
        yield str(request.param).format(path="x", port=listening.getsockname()[1])
        with pytest.raises(BlockingIOError):
            listening.accept()


refused_everywhere = pytest.mark.parametrize("forbidden", FORBIDDEN, indirect=True)


async def refused(stage: Stage, url: str, began: float) -> None:
    """Assert that the account's problems name the URL within AT_ONCE_S."""

    def found() -> bool:
        return any(bare(url) in text and "ARI_CONF_ALLOWED_NETWORKS" in text for text in stage.problems())

    await stage.until(found, description=f"{url} is not among {stage.problems()}")
    assert took_s(began) < AT_ONCE_S


def bare(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


@refused_everywhere
async def test_no_callback_goes_to_a_forbidden_address(stage: Stage, forbidden: str) -> None:
    async with alone(stage, f'<Conference callbackUrl="{forbidden}#rc=5&amp;rp=all">standup</Conference>'):
        await refused(stage, forbidden, time.monotonic())
    await stage.until(lambda: len(letters(stage)) == 2)


@refused_everywhere
async def test_no_document_is_requested_from_a_forbidden_address(stage: Stage, forbidden: str) -> None:
    stage.set_account(answer_url=forbidden, fallback_url="{url}/fallback")
    stage.document("/fallback", '<Conference callbackUrl="{url}/events">standup</Conference>')
    async with stage.callers(1) as (ann,):
        began = time.monotonic()
        await stage.dial(ann, None)
        await refused(stage, forbidden, began)
        await stage.event("ConferenceEnter")
        await ann.hang_up()
    await stage.event("ConferenceExit")


@refused_everywhere
async def test_no_sound_is_fetched_from_a_forbidden_address(stage: Stage, forbidden: str) -> None:
    play, wait_sound = forbidden.replace("/x", "/play.wav"), forbidden.replace("/x", "/wait")
    document = f'<Play>{play}</Play><Conference waitSound="{wait_sound}" startConferenceOnEnter="false">a</Conference>'
    async with alone(stage, document) as ann:
        began = time.monotonic()
        await refused(stage, play, began)
        await refused(stage, wait_sound, began)
        assert stage.is_music(await stage.listen(ann, 3000)), "without its sound: the default music"
