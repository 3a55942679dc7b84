"""Make the sample of a release: `python -m tests.upgrade.make_sample RELEASE`, in a checkout of that release.

The whole system runs, with a real Asterisk and phones: a conference that is recorded, a caller who waits, a caller who
enters digits, a placed call that is spoken to over the API and another one that rings, callbacks, a recording and
ended calls that wait for a worker, a stored recording, a dead letter, accounts, a trunk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import requests
from redis import Redis

from ari_conf.core import ids
from ari_conf.dialing import trunk_store, trunks
from ari_conf.local.system import LocalSystem
from ari_conf.ownership import asterisk_identity
from ari_conf.queues import dead_letters
from ari_conf.recordings import index, jobs
from ari_conf.store import accounts
from ari_conf.store.state_store import names_key, state_key
from demo.phone import Switchboard
from tests.integration.called_phone import CalledPhone
from tests.integration.receiver import Receiver
from tests.integration.stage import Stage, ari_of
from tests.upgrade import sample

ANN, BOB = 2575, 2875
RECORDED = '<Conference record="true" recordFileFormat="wav" callbackUrl="{url}/events">standup</Conference>'


async def make(release: str, folder: Path) -> dict[str, Any]:
    settings = {"ARI_CONF_ALLOWED_NETWORKS": "127.0.0.0/8"}
    async with (
        LocalSystem(folder, settings) as system,
        Receiver(port=sample.PORT) as receiver,
        Switchboard(6) as phones,
        CalledPhone("4915550007") as gus,
        CalledPhone("4915550008") as hal,
    ):
        redis = Redis.from_url(system.settings.redis_url.get_secret_value())
        ari = ari_of(system)
        await ari.start()
        stage = Stage(system, receiver, redis, ari)
        stage.asterisk_name = asterisk_identity.entity_id(await ari.request("GET", "/asterisk/info"))
        facts = await play(stage, phones, gus, hal)
        redis.client_pause(10_000, all=False)  # type: ignore[no-untyped-call]
        keys, taken_ms = sample.dump(redis), time.time_ns() // 1_000_000
        redis.client_unpause()
        bridges = await ari.request("GET", "/bridges")
        channels = await ari.request("GET", "/channels")
        await ari.close()
    return {
        "release": release,
        "taken_ms": taken_ms,
        "asterisk_name": stage.asterisk_name,
        "facts": facts,
        "asterisk": {
            "channels": {
                facts["placed"].get(one["id"]) or one["caller"]["number"]: one["id"]
                for one in channels
                if one["name"].startswith("PJSIP/")
            },
            "bridges": {bridge["id"]: sorted(bridge["channels"]) for bridge in bridges},
        },
        "redis": keys,
    }


async def play(stage: Stage, phones: Any, gus: CalledPhone, hal: CalledPhone) -> dict[str, Any]:
    """Let everything happen that the sample has, and return the facts that its test compares."""
    ann, bob, cid, dan, eve, fay = phones
    redis, account = stage.redis, stage.account
    stage.set_account(hangup_url="{url}/hangup")
    accounts.rotate_token(redis, account)
    stage.token = stage.receiver.token = accounts.get(redis, account).token  # type: ignore[union-attr]
    accounts.add(redis, time.time_ns() // 1_000_000, "other", answer_url=stage.receiver.url("/answer"), max_members=50)

    # A stored recording, and a dead letter.
    await stage.call(
        fay, '<Conference record="true" recordFileFormat="wav" callbackUrl="{url}/old">stored</Conference>'
    )
    await stage.enters(fay)
    await stage.listen(fay, 1000)
    await fay.hang_up()
    await stage.event("ConferenceRecord")
    stage.receiver.statuses["/dead"] = [404]
    await stage.call(fay, '<Conference callbackUrl="{url}/dead">dead</Conference>')
    await fay.hang_up()
    await stage.until(lambda: dead_letters.count(redis, account) == 2)
    stage.receiver.statuses.clear()

    # Without a worker, everything waits from here on.
    await stage.until(lambda: not redis.keys("ari_conf:callbacks:partition:*"))
    await stage.system.stop("worker")
    for phone, hz in ((ann, ANN), (bob, BOB)):
        phone.tone(hz)
        await stage.call(phone, RECORDED)
    await asyncio.gather(stage.hears(ann, BOB), stage.hears(bob, ANN))
    await stage.call(cid, '<Conference record="true" callbackUrl="{url}/short">short</Conference>')
    await stage.until(lambda: redis.hexists(names_key(account), "short"))
    await stage.listen(cid, 1000)
    await cid.hang_up()
    await stage.until(lambda: not redis.hexists(names_key(account), "short") and jobs.pending(redis))
    await stage.call(dan, '<Conference startConferenceOnEnter="false" callbackUrl="{url}/events">later</Conference>')
    await stage.call(eve, '<GetDigits action="{url}/pin" numDigits="4" timeout="3600" digitTimeout="3600"/>')
    await eve.press("12")
    conference = redis.hget(names_key(account), "standup").decode().split()[0]  # type: ignore[union-attr]
    members = await mute(stage, conference)
    placed = await place(stage, gus, hal)
    await stage.until(lambda: b'"12"' in b"".join(redis.hvals(state_key(stage.asterisk_name))))
    return {
        "account": account,
        "conference": conference,
        "members": members,
        "muted": members[1],
        "recordings": [one.recording_id for one in index.search(redis, account)[1]],
        "waiting_recordings": [one.job.recording_id for one in jobs.pending(redis)],
        "dead_letters": dead_letters.count(redis, account),
        "placed": {ids.channel_id(uuid, 1): number for number, uuid in placed.items()},
        "placed_calls": placed,
        "callers": {
            "gus": gus.number,
            "hal": hal.number,
            "ann": stage.number(ann),
            "bob": stage.number(bob),
            "dan": stage.number(dan),
            "eve": stage.number(eve),
        },
    }


async def mute(stage: Stage, conference: str) -> list[int]:
    """Mute the second member over the API, and return the IDs of the members."""
    base = f"{stage.system.settings.public_url}/v1/Account/{stage.account}/Conference/standup/"
    login = (stage.account, stage.token)
    shown = await asyncio.to_thread(requests.get, base, auth=login, timeout=10)
    members = sorted(int(member["member_id"]) for member in shown.json()["members"])
    path = f"{base}Member/{members[1]}/Mute/"
    done = await asyncio.to_thread(requests.post, path, auth=login, headers={"Idempotency-Key": "sample"}, timeout=10)
    assert done.status_code == 202, done.text
    return members


async def place(stage: Stage, gus: CalledPhone, hal: CalledPhone) -> dict[str, str]:
    """Call two phones: one answers and is spoken to over the API, one rings. Return the calls' UUIDs by number."""
    base = f"{stage.system.settings.public_url}/v1/Account/{stage.account}/Call/"
    login = (stage.account, stage.token)
    may = {"dial_calls": 10, "dial_calls_per_minute": 100, "dial_minutes_per_day": 1000, "dial_caller_ids": "+4930*"}
    accounts.update(stage.redis, stage.account, dial_prefixes=f"sip:{gus.host},sip:{hal.host}", **may)
    fields = {"dial": "PJSIP/{number}@anonymous", "hosts": [gus.host, hal.host]}
    trunk_store.add(stage.redis, trunks.make("lab", fields), (), lambda *_: None)
    stage.document("/placed", "<Wait length='3600'/>")

    async def post(path: str, **body: Any) -> dict[str, Any]:
        done = await asyncio.to_thread(requests.post, base + path, auth=login, json=body, timeout=10)
        assert done.ok, done.text
        return dict(done.json())

    found: dict[str, str] = {}
    for phone, parent in ((gus, None), (hal, gus.number)):
        urls = {"answer_url": stage.receiver.url("/placed"), "hangup_url": stage.receiver.url("/hangup")}
        done = await post(
            "",
            **{"from": "4930123", "to": phone.uri, "ring_timeout": 600, **urls}
            | ({"parent_call_uuid": found[parent]} if parent else {}),
        )
        found[phone.number] = str(done["request_uuid"])
        await phone.invited()
        phone.reply("180 Ringing")
    gus.answer()
    await stage.receiver.wait_for(lambda request: request.path == "/placed")
    await post(f"{found[gus.number]}/Speak/", text="This is said again and again.", loop=True)
    state = state_key(stage.asterisk_name)
    await stage.until(lambda: b'"state":"playing"' in (stage.redis.hget(state, found[gus.number]) or b""))
    await stage.until(lambda: b'"ringing"' in (stage.redis.hget(state, found[hal.number]) or b""))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", help="the version in setup.cfg")
    release = parser.parse_args().release
    with tempfile.TemporaryDirectory() as folder:
        made = asyncio.run(make(release, Path(folder)))
    path = sample.SAMPLES / f"{release}.json"
    # The sample says nothing of the machine on which it was made.
    path.write_text(json.dumps(made, indent=1).replace(socket.gethostname(), "host") + "\n")
    print(f"{path}: {len(made['redis'])} keys")


if __name__ == "__main__":
    main()
