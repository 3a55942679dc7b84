"""Servers that accept a connection and never answer, and names that are never resolved: they delay only the work that
depends on them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis import Redis

from ari_conf.http_client import dns_lookup
from ari_conf.local.system import LocalSystem
from ari_conf.media import sounds
from demo.phone import Phone, now_ms
from tests.integration.receiver import Receiver
from tests.integration.stage import ALLOWED, Stage, ari_of, staged
from tests.lateness import took_ms, took_s

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANN, BOB = 2575, 2875
SOUND = 1825
ROOM = '<Conference callbackUrl="{url}/events">standup</Conference>'
JOIN_S = 2.0
"""Seconds from a call until it is heard, on a busy machine."""
ASKED_MS = 1000
"""The maximum ms by which other accounts' slow servers and names may delay a request."""
MANY = 12
"""The number of calls that hang: more than the server fetches at a time for one account."""


@contextmanager
def silent() -> Generator[str]:
    """Yield host:port of a server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        # The kernel accepts connections and keeps the received data.
        listening.listen(200)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


async def joins(stage: Stage, phone: Phone, other: Phone, hz: int) -> float:
    """Call, and return the seconds until the phone hears the other, less those that the machine was late."""
    began = time.monotonic()
    called = now_ms()
    await stage.call(phone, ROOM)
    await stage.hears(phone, hz, after=called)
    return took_s(began)


async def nobody_waits(stage: Stage, hanging: Callable[[str, Phone], Coroutine[Any, Any, None]]) -> str:
    """Assert that a caller joins, hears and is reported in time while others hang; return the silent address."""
    with silent() as nobody:
        async with stage.callers(7) as board:
            ann, bob, *stuck = board
            ann.tone(ANN)
            bob.tone(BOB)
            await stage.call(ann, ROOM)
            await asyncio.gather(*(hanging(nobody, phone) for phone in stuck))
            took = await joins(stage, bob, ann, ANN)
            assert took < JOIN_S
            since = now_ms()
            told = await stage.enters(bob)
            assert took_ms(float(told.params["Timestamp"]), told.at_ms) < 1000, "the callback came late"
            await stage.listen(bob, 1500)
            assert stage.gaps(bob, ANN, since, ann) == []
            stage.saw(f"with five that hang, a sixth was heard {took * 1000:.0f} ms after the call")
            for phone in (ann, bob, *stuck):
                await phone.hang_up()
            await stage.leaves(bob)
    return nobody


async def test_an_answer_url(stage: Stage) -> None:
    async def hanging(nobody: str, phone: Phone) -> None:
        calling.append(asyncio.create_task(stage.dial(phone, f"http://{nobody}/answer#rt=20000")))

    calling: list[asyncio.Task[None]] = []
    asked = stage.system.process("serve").read_log().count('"FetchDocument"')
    await nobody_waits(stage, hanging)
    assert stage.system.process("serve").read_log().count('"FetchDocument"') >= asked + 5
    await asyncio.gather(*calling, return_exceptions=True)


async def test_a_sound(stage: Stage) -> None:
    async def hanging(nobody: str, phone: Phone) -> None:
        await stage.call(phone, f"<Play>http://{nobody}/sound.wav</Play>")

    await nobody_waits(stage, hanging)


async def heard_all_the_same(neighbor: Stage, phone: Phone, document: str, sound: str) -> None:
    """Assert that another account's sound is requested without delay, and heard."""
    called = now_ms()
    await neighbor.dial(phone, document)
    answered = now_ms()
    asked = await neighbor.until(lambda: [r for r in neighbor.receiver.requests if r.path == sound])
    assert took_ms(called, asked[0].at_ms) < ASKED_MS
    heard = await neighbor.hears(phone, SOUND, after=answered)
    neighbor.saw(f"heard {heard - called:.0f} ms after the call")
    await phone.hang_up()


async def test_more_sounds_than_are_fetched_at_once(stage: Stage) -> None:
    """The sounds never arrive, and each call names more of them, which are prefetched. Another account's caller hears
    the right sound, and nothing is fetched for the first account after its callers have hung up."""
    assert MANY > sounds.MAX_FETCHES_PER_ACCOUNT + sounds.MAX_PREFETCHES_PER_ACCOUNT
    with silent() as nobody:
        async with staged(stage.system) as neighbor, stage.callers(MANY + 1) as (phone, *stuck):
            for n, one in enumerate(stuck):
                many = "".join(f"<Play>http://{nobody}/{n}.{more}.wav</Play>" for more in range(100))
                await stage.call(one, many)
            neighbor.tones("/tone.wav", (SOUND, 2000))
            document = neighbor.document("/plays", "<Play>{url}/tone.wav</Play><Wait length='60'/>")
            await heard_all_the_same(neighbor, phone, document, "/tone.wav")
            for one in stuck:
                await one.hang_up()
        # `Stage.ends_well` checks that nothing is left in the folder.


RESOLVER = """
import socket, time
found = socket.getaddrinfo
def getaddrinfo(host, *others, **more):
    if str(host).endswith(".hangs.example"):
        time.sleep(3600)
    return found("127.0.0.1" if str(host).endswith(".quick.example") else host, *others, **more)
socket.getaddrinfo = getaddrinfo
"""
"""The code of a resolver for the system's processes, whose server never answers for some names."""


@pytest_asyncio.fixture(loop_scope="session")
async def hanging_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Stage]:
    (tmp_path / "sitecustomize.py").write_text(RESOLVER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))))
    parts = ("redis", "asterisk", "worker", "serve")
    async with LocalSystem(tmp_path / "system", ALLOWED, parts) as system, staged(system) as stage:
        yield stage


async def test_more_names_than_are_looked_up_at_once(hanging_names: Stage) -> None:
    """One account's documents and sounds, each on a different host."""
    stage = hanging_names
    count = 40
    assert count > 32 and count > dns_lookup.MAX_LOOKUPS_PER_ACCOUNT
    async with staged(stage.system) as neighbor, stage.callers(count + 1) as (phone, *stuck):
        # A document may take as long as allowed: the caller hears nothing until then.
        patient = "ct=10000&tt=55000&rc=5"
        calling = [
            asyncio.create_task(stage.dial(one, f"http://n{n}.hangs.example/answer#{patient}"))
            for n, one in enumerate(stuck[: count - MANY])
        ]
        for n, one in enumerate(stuck[count - MANY :]):
            await stage.call(one, f"<Play>http://s{n}.hangs.example/sound.wav#{patient.replace('&', '&amp;')}</Play>")
        neighbor.tones("/tone.wav", (SOUND, 2000))
        sound, at = "/tone.wav", f"quick.example:{neighbor.receiver.port}"
        neighbor.document("/plays", f"<Play>http://b.{at}{sound}</Play><Wait length='60'/>")
        await heard_all_the_same(neighbor, phone, f"http://a.{at}/plays", sound)
        for task in calling:
            task.cancel()
        await asyncio.gather(*calling, return_exceptions=True)
        for one in stuck:
            await one.hang_up()


async def test_a_receiver(stage: Stage) -> None:
    """Callbacks to another receiver aren't late, although each hanging one holds a thread of the worker."""

    async def hanging(nobody: str, phone: Phone) -> None:
        room = f'<Conference callbackUrl="http://{nobody}/events#rt=4000&amp;rc=0">of {phone.name}</Conference>'
        await stage.call(phone, room)

    await nobody_waits(stage, hanging)


@pytest_asyncio.fixture(loop_scope="session")
async def without_s3(tmp_path: Path) -> AsyncGenerator[Stage]:
    """Yield a stage whose S3 never answers."""
    parts = ("redis", "asterisk", "worker", "serve")
    with silent() as nobody:
        configured = {
            "ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8",
            "ARI_CONF_S3_ENDPOINT": f"http://{nobody}",
            "ARI_CONF_S3_ACCESS_KEY": "key",
            "ARI_CONF_S3_SECRET_KEY": "secret",
            "ARI_CONF_S3_DEADLINE": "2",
        }
        async with LocalSystem(tmp_path, configured, parts) as system, Receiver() as receiver:
            redis = Redis.from_url(system.settings.redis_url.get_secret_value())
            ari = ari_of(system)
            await ari.start()
            yield Stage(system, receiver, redis, ari)
            await ari.close()
            redis.close()


async def test_s3(without_s3: Stage) -> None:
    """Recordings wait on Asterisk's disk; calls and callbacks continue."""
    stage = without_s3
    recorded = '<Conference callbackUrl="{url}/events" record="true">recorded</Conference>'
    async with stage.callers(3) as (ann, bob, cid):
        await stage.call(cid, recorded)
        await stage.enters(cid)
        await stage.listen(cid, 500)
        await cid.hang_up()
        await stage.leaves(cid)
        ann.tone(ANN)
        await stage.call(ann, ROOM)
        took = await joins(stage, bob, ann, ANN)
        assert took < JOIN_S
        told = await stage.enters(bob)
        assert took_ms(float(told.params["Timestamp"]), told.at_ms) < 1000
        await bob.hang_up()
        await ann.hang_up()
        await stage.leaves(ann)
    assert stage.events("ConferenceRecord") == []
    folder = stage.system.settings.recording_folder
    assert folder is not None and len([*(folder / stage.account).glob("*.wav")]) == 1
    await stage.system.kill("worker")  # the worker would retry until it is killed
