"""The state of each release is taken over by this one: nothing of it is unreadable, lost, or done twice.

Redis, server, web process and worker are real; a fake of ARI has the channels and bridges that Asterisk had.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import requests
from aiohttp import web

from ari_conf.common.version import VERSION
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.local import processes
from ari_conf.local.processes import Process, free_port
from ari_conf.server.takeover import NEXT_MEMBER_ID
from ari_conf.store import accounts
from ari_conf.store.state_store import names_key, state_key
from tests.bench.fake_ari import FakeAri, Reply
from tests.fakes.asterisk import Bridge
from tests.integration.receiver import Receiver
from tests.lateness import Patience
from tests.redis import RedisServer
from tests.upgrade import sample

RELEASES = sorted(path.stem for path in sample.SAMPLES.glob("*.json"))


class SampledAri(FakeAri):
    """ARI of an Asterisk that has what a sample says."""

    def __init__(self, app_url: str, taken: dict[str, Any]) -> None:
        super().__init__(app_url)
        self._name = taken["asterisk_name"]
        for number, channel_id in taken["asterisk"]["channels"].items():
            self.exten[channel_id] = number
            rings = number == taken["facts"]["callers"].get("hal")
            self.asterisk.call(channel_id, answered=not rings)
            if rings:
                channel = self.asterisk.channels[channel_id]
                channel.endpoint, channel.dialed, channel.ringing = "PJSIP/hal", True, True
        for bridge_id, channels in taken["asterisk"]["bridges"].items():
            self.asterisk.bridges[bridge_id] = Bridge(bridge_id, list(channels))
            for channel_id in channels:
                self.asterisk.channels[channel_id].bridge = bridge_id
        conference, account = taken["facts"]["conference"], taken["facts"]["account"]
        self._account = account
        self.recording = next(recording for recording in recordings_of(taken, conference))
        self.asterisk.recordings[self.recording] = ids.bridge_id(conference)

    def obey(self, method: str, path: str, query: Any, body: str) -> Reply:
        match [method, *(unquote(part) for part in urlsplit(path).path.strip("/").split("/"))]:
            case ["GET", "asterisk", "info"]:
                return 200, json.dumps({"system": {"version": "22.10.1", "entity_id": self._name}}).encode()
            case ["GET", "recordings", "live", name]:
                found = ids.parse_recording_name(name)
                if found is not None and found.recording_id in self.asterisk.recordings:
                    return 200, json.dumps({"name": name, "state": "recording"}).encode()
                return 404, b'{"message":"Recording not found"}'
            case ["POST", "recordings", "live", name, "stop"]:
                found = ids.parse_recording_name(name)
                assert found is not None
                self.asterisk.obey(
                    do.StopRecording(ids.bridge_id(found.conference_id), found.recording_id, found.auth_id)
                )
                return 204, b""
            case ["GET", "recordings", "stored"]:
                return 200, b"[]"
        return super().obey(method, path, query, body)

    def _on_asterisk_event(self, source: str, event: ev.Event) -> None:
        if isinstance(event, ev.RecordingFinished):
            name = str(ids.RecordingName(self._account, event.conference_id, event.recording_id))
            recording = {"name": name, "format": "wav", "state": "done", "target_uri": "bridge:x"}
            self._event("RecordingFinished", b'"recording":' + json.dumps(recording).encode())
        elif isinstance(event, ev.ChannelAnswered):
            self._event("Dial", b'"dialstatus":"ANSWER","peer":' + self.channel(event.channel_id))
        else:
            super()._on_asterisk_event(source, event)


def recordings_of(taken: dict[str, Any], conference_id: str) -> list[str]:
    """Return the IDs of the recordings in the state record of a conference."""
    (state,) = [one["value"] for one in taken["redis"] if one["key"] == state_key(taken["asterisk_name"])]
    return list(json.loads(state[conference_id])["recordings"])


class System:
    """The processes of this release, with the state of a sample."""

    def __init__(self, taken: dict[str, Any], server: RedisServer, folder: Path) -> None:
        self.taken, self.facts, self.server, self.folder = taken, taken["facts"], server, folder
        self.listen, self.ari_port, self.web_port = free_port(), free_port(), free_port()
        self.logs: list[Process] = []
        self.ari = SampledAri(f"ws://127.0.0.1:{self.listen}/ari", taken)
        self.environment = {
            "ARI_CONF_REDIS_URL": server.url,
            "ARI_CONF_ARI_URL": f"http://127.0.0.1:{self.ari_port}/ari",
            "ARI_CONF_ARI_PASSWORD": "secret",
            "ARI_CONF_ARI_SOCKET": "outbound",
            "ARI_CONF_ARI_LISTEN": f"127.0.0.1:{self.listen}",
            "ARI_CONF_ASTERISK_NAME": taken["asterisk_name"],
            "ARI_CONF_METRICS_LISTEN": "",
            "ARI_CONF_SOUNDS_FOLDER": str(folder / "sounds"),
            "ARI_CONF_DATABASE_URL": f"sqlite:///{folder}/history.db",
            "ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8",
            "ARI_CONF_WEB_LISTEN": f"127.0.0.1:{self.web_port}",
            "ARI_CONF_S3_ENDPOINT": "http://127.0.0.1:9",  # recordings wait
            "ARI_CONF_S3_ACCESS_KEY": "key",
            "ARI_CONF_S3_SECRET_KEY": "secret",
            "ARI_CONF_LOG_FORMAT": "json",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = web.Application()
        server.router.add_route("*", "/ari/{path:.*}", self.ari.http)
        runner = web.AppRunner(server, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.ari_port).start()
        connecting = asyncio.create_task(self.ari.connect_for_ever())
        try:
            # In the order of an upgrade.
            for name, words, ready in (
                ("worker", ["tasks"], r"ready\."),
                ("serve", ["ari_conf", "serve"], "reconciliation completed"),
                ("web", ["ari_conf", "web"], "running on"),
            ):
                self.logs.append(await self._start(name, words, ready))
            yield
        finally:
            for process in reversed(self.logs):
                await processes.stop(process)
            connecting.cancel()
            await runner.cleanup()

    async def _start(self, name: str, words: list[str], ready: str) -> Process:
        return await processes.start(
            name,
            [sys.executable, "-m", *words],
            self.folder / f"{name}.log",
            ready=processes.log_matches(ready),
            environment=processes.environment_without_settings() | self.environment,
            folder=self.folder,
        )

    def failures(self) -> list[str]:
        """Return the log lines that report an error or something unreadable."""
        lines = [line for process in self.logs for line in process.read_log().splitlines() if line.startswith("{")]
        logged = [json.loads(line) for line in lines]
        return [str(line) for line in logged if line["level"] in ("error", "critical") or "unreadable" in line["event"]]

    def api(self, method: str, path: str, **more: Any) -> Any:
        record = accounts.get(self.server.client, self.facts["account"])
        assert record is not None
        url = f"http://127.0.0.1:{self.web_port}/v1/Account/{self.facts['account']}/{path}"
        answer = requests.request(method, url, auth=(record.auth_id, record.token), timeout=10, **more)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def command(self, *words: str) -> str:
        command = [sys.executable, "-m", "ari_conf", *words]
        environment = os.environ | processes.environment_without_settings() | self.environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def channel(self, who: str) -> str:
        return str(self.taken["asterisk"]["channels"][self.facts["callers"][who]])


async def until(condition: Any, within: float = 30) -> None:
    patience = Patience(within)
    while not condition():
        assert not patience.over, f"not within {within} s"
        await asyncio.sleep(0.02)


async def check_placed_calls(system: System, receiver: Receiver) -> None:
    """One call is spoken to and keeps its sound and its document; the other one still rings, and can be answered."""
    gus, hal = (system.facts["placed_calls"][system.facts["callers"][who]] for who in ("gus", "hal"))
    assert not system.ari.asterisk.dialed, "nothing is dialed twice"
    live = await asyncio.to_thread(system.api, "GET", "Call/?status=live")
    assert {gus, hal} <= set(live["calls"])
    shown = await asyncio.to_thread(system.api, "GET", f"Call/{hal}/?status=live")
    assert (shown["call_status"], shown["direction"]) == ("ringing", "outbound")
    await until(lambda: system.ari.asterisk.channels[system.channel("gus")].playbacks)
    await asyncio.to_thread(system.api, "DELETE", f"Call/{gus}/Speak/")
    await until(lambda: not system.ari.asterisk.channels[system.channel("gus")].playbacks)
    receiver.documents["/placed"] = "<Response><Wait length='3600'/></Response>"
    system.ari.asterisk.pick_up(system.channel("hal"))
    asked = await receiver.wait_for(lambda request: request.path == "/placed")
    assert asked.params["CallUUID"] == hal
    assert (await asyncio.to_thread(system.command, "trunk", "list")).split().count("lab") == 1
    for who in ("gus", "hal"):
        system.ari.asterisk.hang_up(system.channel(who))
        ended = await receiver.event("Hangup", CallUUID=system.facts["placed_calls"][system.facts["callers"][who]])
        assert (ended.params["CallStatus"], ended.params["Direction"]) == ("completed", "outbound")


async def check_history(system: System, receiver: Receiver) -> None:
    """Check that the database has the calls that waited for it, and those that have ended since."""
    gus, hal = (system.facts["placed_calls"][system.facts["callers"][who]] for who in ("gus", "hal"))

    def ended() -> dict[str, Any]:
        return {one["call_uuid"]: one for one in system.api("GET", "Call/?limit=20")["objects"]}

    patience = Patience(30)
    while not {gus, hal} <= (found := await asyncio.to_thread(ended)).keys():
        assert not patience.over
        await asyncio.sleep(0.1)
    assert (found[hal]["parent_call_uuid"], found[gus]["parent_call_uuid"]) == (gus, None)
    # The caller of the conference `short` has left before the sample was taken.
    past = await asyncio.to_thread(system.api, "GET", "ConferenceHistory/")
    assert "short" in {one["conference_name"] for one in past["objects"]}


def test_the_present_release_has_a_sample() -> None:
    assert VERSION.partition("+")[0] in RELEASES, "run `python -m tests.upgrade.make_sample` for it"


@pytest.mark.parametrize("release", RELEASES)
async def test_the_state_of_a_release_is_taken_over(release: str, redis_server: RedisServer, tmp_path: Path) -> None:
    taken = json.loads((sample.SAMPLES / f"{release}.json").read_text())
    facts, redis = taken["facts"], redis_server.client
    sample.load(redis, taken["redis"], time.time_ns() // 1_000_000 - taken["taken_ms"])
    record = accounts.get(redis, facts["account"])
    assert record is not None and len(record.old_tokens) == 1
    system = System(taken, redis_server, tmp_path)
    async with Receiver(token=record.token, port=sample.PORT) as receiver, system.running():
        # Nobody was hung up, and nobody left a bridge.
        assert system.ari.asterisk.channels.keys() == set(taken["asterisk"]["channels"].values())
        has = {id: sorted(bridge.channels) for id, bridge in system.ari.asterisk.bridges.items()}
        assert has == taken["asterisk"]["bridges"]
        assert list(system.ari.asterisk.recordings) == [system.ari.recording], "the recording continues"

        # What waited for a worker arrives, in order.
        await receiver.event("ConferenceEnter", From=facts["callers"]["bob"])
        entered = await receiver.event("ConferenceEnter", From=facts["callers"]["ann"])
        assert entered.params["ConferenceUUID"] == facts["conference"]
        await receiver.event("ConferenceExit", ConferenceName="short", ConferenceLastMember="true")
        assert [one for one in facts["waiting_recordings"] if one in system.command("recordings", "pending")]

        if "placed" in facts:
            await check_placed_calls(system, receiver)

        # What was stored is there.
        recordings = await asyncio.to_thread(system.api, "GET", "Recording/")
        assert [one["recording_id"] for one in recordings["objects"]] == facts["recordings"]
        letters = await asyncio.to_thread(system.command, "dead-letters", "list", facts["account"])
        assert len(letters.splitlines()) == facts["dead_letters"]
        await asyncio.to_thread(system.command, "dead-letters", "resend", facts["account"])
        await receiver.wait_for(lambda request: request.path == "/dead")
        assert await asyncio.to_thread(system.command, "problems", facts["account"])
        other = accounts.get(redis, "other")
        assert other is not None and other.max_members == 50 and other.answer_url

        # The conference continues: who is in, who is muted, and the API.
        shown = await asyncio.to_thread(system.api, "GET", "Conference/standup/")
        assert {int(one["member_id"]): bool(one["muted"]) for one in shown["members"]} == {
            member: member == facts["muted"] for member in facts["members"]
        }
        first, second = facts["members"]
        again = {"headers": {"Idempotency-Key": "sample"}}
        repeated = await asyncio.to_thread(
            lambda: system.api("POST", f"Conference/standup/Member/{second}/Mute/", **again)
        )
        assert repeated["message"] == "muted", "the stored response"
        await asyncio.to_thread(system.api, "DELETE", f"Conference/standup/Member/{second}/Mute/")
        await asyncio.to_thread(system.api, "POST", f"Conference/standup/Member/{first}/Kick/")
        await receiver.event("ConferenceExit", From=facts["callers"]["ann"], ConferenceExitReason="kick")

        # Digits that were entered before count.
        for digit in "34":
            system.ari.asterisk.press(system.channel("eve"), digit)
        digits = await receiver.wait_for(lambda request: request.path == "/pin")
        assert digits.params["Digits"] == "1234"

        # Everything ends as usual.
        for who in ("bob", "dan", "eve"):
            if system.channel(who) in system.ari.asterisk.channels:
                system.ari.asterisk.hang_up(system.channel(who))
        await receiver.event("ConferenceExit", ConferenceName="standup", ConferenceLastMember="true")
        await receiver.event("ConferenceExit", ConferenceName="later", ConferenceLastMember="true")
        for who in ("ann", "bob", "dan", "eve"):
            await receiver.event("Hangup", From=facts["callers"][who])
        if "placed" in facts:
            await check_history(system, receiver)
        state = state_key(taken["asterisk_name"])
        await until(lambda: set(redis.hkeys(state)) <= {NEXT_MEMBER_ID.encode()})
        assert not redis.hgetall(names_key(facts["account"])) and not system.ari.asterisk.channels
        await until(lambda: system.ari.recording in system.command("recordings", "pending"))
        assert system.failures() == [] and system.ari.unknown == []
        # A channel may have gone before its hangup is requested.
        assert [text for text in system.ari.refused if "Channel not found" not in text] == []
    receiver.all_signed()
    told = [request.params for request in receiver.requests if request.params.get("ConferenceName") == "standup"]
    numbers = [int(params["ConferenceSequence"]) for params in told if "ConferenceSequence" in params]
    assert numbers == list(range(1, len(numbers) + 1)), "each callback once, in its order"
