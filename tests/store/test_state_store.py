import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from structlog.testing import capture_logs

from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member import Member
from ari_conf.core.effects import PostCallback, ReleaseName, ReportProblem
from ari_conf.core.elements import Conference as Element
from ari_conf.core.events import CallArrived
from ari_conf.core.hangup_codes import HangupCode
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.errors import StoreUnavailable
from ari_conf.ownership.lease import last_batch_key
from ari_conf.queues import limits, outbox, partitioned_queue
from ari_conf.server.takeover import load
from ari_conf.store import accounts, removals, state_store
from ari_conf.store.members import members_key
from ari_conf.store.problems import read_problems
from ari_conf.store.state_codec import decode, encode, encode_without_members
from ari_conf.store.state_store import StateStore, Step
from ari_conf.store.step_batch import Batch, QueuedJob
from tests.between import between
from tests.core.copies import copied
from tests.redis import RedisServer

NOW = 1_790_000_000_000


@pytest.fixture
async def kept(redis_server: RedisServer) -> AsyncIterator[StateStore]:
    client = state_store.connect(redis_server.url)
    yield StateStore(client, "asterisk one", problems_kept=3)
    await client.aclose()


def callback(number: int, lane: str = "c1") -> PostCallback:
    return PostCallback(lane, "MA1", "https://example.com/cb", "POST", (("ConferenceSequence", str(number)),))


def problem(text: str) -> ReportProblem:
    return ReportProblem("MA1", "u1", ProblemKind.DOCUMENT_INVALID, 8011, text)


def batch_of(kept: StateStore, *steps: Step) -> Batch:
    batch = kept.batch()
    for step in steps:
        batch.add(step)
    batch.close()
    return batch


def waiting(server: RedisServer) -> list[bytes]:
    return [entry for key in server.client.scan_iter("*:partition:*") for entry in server.client.lrange(key, 0, -1)]


async def test_one_transaction_holds_the_state_and_what_follows_from_it(redis_server: RedisServer, kept: StateStore):
    await kept.write([Step(NOW, {"call:u1": b"\x00snapshot", "conference:c1": b"c"}, [callback(1)], [problem("odd")])])
    assert await kept.load() == {"call:u1": b"\x00snapshot", "conference:c1": b"c"}
    assert len(waiting(redis_server)) == 1
    (found,) = read_problems(redis_server.client, "MA1")
    assert (found.at_ms, found.code, found.text) == (NOW, 8011, "odd")


async def test_of_several_steps_the_last_state_holds(kept: StateStore):
    await kept.write([Step(NOW, {"call:u1": b"1", "call:u2": b"1"}), Step(NOW, {"call:u1": b"2", "call:u2": None})])
    assert await kept.load() == {"call:u1": b"2"}


def member(member_id: int, conference_id: str = "c1") -> Member:
    return Member.create(
        member_id, conference_id, "MA1", f"u{member_id}", f"channel{member_id}", Element("standup"), "r"
    )


async def test_of_a_conference_the_members_that_have_changed_are_written(redis_server: RedisServer, kept: StateStore):
    conference = Conference("c1", "MA1", "standup", NOW, 20, "http://x")
    conference.members |= {id: member(id) for id in (9, 10, 11)}
    theirs = members_key("c1")
    await kept.write([Step(NOW, {"c1": conference}, members={"c1": dict(conference.members)})])
    assert decode((await kept.load())["c1"], {}) == whole(conference)
    del conference.members[11]
    talks, comes = conference.members[10], member(12)
    conference.members[12] = comes
    talks.talking = True
    first, then = {11: talks}, {11: None, 10: talks, 12: comes}
    steps = [Step(NOW, {"c1": conference}, members={"c1": changed}) for changed in (first, then)]
    redis_server.client.hset(theirs, 9, "not written again")
    for _ in range(2):  # the answer was lost
        await kept.write(steps)
    found = redis_server.client.hgetall(theirs)
    assert sorted(map(int, found)) == [9, 10, 12] and found[b"9"] == b"not written again"
    assert b'"talking":true' in found[b"10"]
    await kept.write([Step(NOW, {"c1": None})])
    assert await kept.load() == {} and not redis_server.client.exists(theirs)


@pytest.mark.parametrize(("field", "text"), [("x", "{}"), ("7", "{"), ("7", ""), ("", "5"), (b'\xff"', b"\xff")])
async def test_damaged_members_cost_their_conference_and_no_other(
    field: str | bytes, text: str | bytes, redis_server: RedisServer, kept: StateStore
):
    conferences = {id: Conference(id, "MA1", id, NOW, 20, "http://x") for id in ("c1", "c2")}
    members = {id: {9: member(9, id)} for id in conferences}
    await kept.write([Step(NOW, dict(conferences), members=members)])
    redis_server.client.hset(members_key("c1"), field, text)
    _, (found,), _ = load(await kept.load())
    assert found.conference_id == "c2" and list(found.members) == [9]


def whole(conference: Conference) -> Conference:
    """Return the conference rebuilt from its fields, so that its indexes cover all its members."""
    return copied(conference)


async def test_change_during_a_write_waits_for_its_own_step(kept: StateStore):
    """Otherwise its callbacks could be lost: the state would say that they were sent."""
    call, _ = Call.from_arrival(CallArrived("channel", "u1", "request", "MA1", "+4930", "100"), NOW)
    batch = batch_of(kept, Step(NOW, {"u1": call}))
    as_it_was = encode(call)
    call.hang_up("normal", HangupCode.NORMAL, NOW)
    await kept.send(batch)
    assert (await kept.load())["u1"] == as_it_was != encode(call)


async def test_viewers_are_notified_once_after_the_write(redis_server: RedisServer, kept: StateStore):
    with redis_server.client.pubsub(ignore_subscribe_messages=True) as watching:
        watching.subscribe(state_store.changes_key("MA1"))
        watching.get_message(timeout=5)
        one, other = (Conference(f"c{n}", f"MA{n}", "standup", NOW, 20, "http://x") for n in (1, 2))
        await kept.write([Step(NOW, {"c1": one}), Step(NOW, {"c1": one, "c2": other})])
        assert watching.get_message(timeout=5)["data"] == b"c1 asterisk one"
        assert (await kept.load())["c1"] == encode_without_members(one)
        assert watching.get_message(timeout=0.1) is None
        await kept.write([Step(NOW, {"c1": None}, released=[ReleaseName("MA1", "standup", "c1")])])
        assert watching.get_message(timeout=5)["data"] == b"c1 asterisk one"


async def test_each_asterisk_has_its_own_state(redis_server: RedisServer, kept: StateStore):
    await kept.write([Step(NOW, {"call:u1": b"1"})])
    client = state_store.connect(redis_server.url)
    assert await StateStore(client, "asterisk two").load() == {}
    await client.aclose()


@pytest.mark.parametrize("parked", [False, True])
async def test_a_batch_that_comes_again_is_written_once(redis_server: RedisServer, kept: StateStore, parked: bool):
    """Redis applied the batch, and its answer was lost: the application writes the same batch again, and then the newer
    steps."""
    first, second, third = (Step(NOW, callbacks=[callback(n)], problems=[problem(str(n))]) for n in range(3))
    batches = [batch_of(kept, first, second), batch_of(kept, third)]
    for batch in (batches[0], *batches):
        if parked:
            batch.park()
        await kept.send(batch)
    assert [entry.count(b'"%d"' % n) for n, entry in enumerate(waiting(redis_server))] == [1, 1, 1]
    assert [found.text for found in read_problems(redis_server.client, "MA1")] == ["2", "1", "0"]


async def test_the_oldest_problems_go(redis_server: RedisServer, kept: StateStore):
    await kept.write([Step(NOW, problems=[problem(str(n))]) for n in range(5)])
    assert [found.text for found in read_problems(redis_server.client, "MA1")] == ["4", "3", "2"]


async def test_a_callback_that_is_too_long_becomes_a_problem_and_the_step_is_written(
    redis_server: RedisServer, kept: StateStore
):
    long = PostCallback("c1", "MA1", "https://example.com/" + "a" * 70_000, "POST", (("CallUUID", "u1"),))
    await kept.write([Step(NOW, {"call:u1": b"1"}, [callback(1), long, callback(2)], [problem("x" * 5000)])])
    assert await kept.load() == {"call:u1": b"1"}
    assert len(waiting(redis_server)) == 2
    too_long, cut = read_problems(redis_server.client, "MA1")
    assert "it takes 70" in too_long.text and too_long.call_uuid == "u1"
    assert len(cut.text) == 1000 and cut.code == 8011


async def test_a_full_partition_is_reported(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch):
    client, dropped = state_store.connect(redis_server.url), list[int]()
    kept = StateStore(client, "asterisk one", on_dropped=dropped.append)
    await kept.write([Step(NOW, callbacks=[callback(n) for n in range(limits.MAX_PARTITION_ENTRIES - 1)])])
    assert dropped == []
    await kept.write([Step(NOW, {"call:u1": b"1"}, [callback(n) for n in range(3)])])
    assert dropped == [2] and await kept.load() == {"call:u1": b"1"}
    (reported,) = read_problems(redis_server.client, "MA1")
    assert "callbacks of one conference to one URL wait already" in reported.text
    await client.aclose()


# Writes that Redis refuses, since a key holds another type.


WRONG = {
    "members": members_key("c1"), "names": "ari_conf:names:MA1", "problems": "ari_conf:problems:MA1",
    "wake-ups": "ari_conf:callbacks:unanswered-wakeups",
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG.values(), ids=WRONG)
async def test_a_key_that_holds_something_else_costs_what_belongs_there(redis_server: RedisServer, key: str):
    client, there = state_store.connect(redis_server.url), redis_server.client
    kept = StateStore(client, "asterisk one")
    partitioned_queue.PartitionedQueue(there).heartbeat("w1", 8, [], 0, reclaim=True)
    there.set(key, "something else")
    conference = Conference("c1", "MA1", "standup", NOW, 20, "http://x")
    step = Step(NOW, {"c1": conference, "call:u1": b"1"}, [callback(1), callback(2, "c2")], [problem("odd")])
    step.members["c1"] = {9: member(9)}
    step.released.append(ReleaseName("MA1", "standup", "c1"))
    step.extra_commands.append(lambda pipe: pipe.set("more", "1"))
    batch = batch_of(kept, step)
    with capture_logs() as logged:
        for _ in range(2):
            await kept.send(batch)
    reported = {line["event"] for line in logged if line["log_level"] == "error"}
    assert reported == {"key write refused"}
    assert there.hget("ari_conf:state:asterisk one", "call:u1") == b"1" and there.get("more") == b"1"
    assert there.hlen(members_key("c1")) if key != members_key("c1") else True
    waits = [text for each in there.scan_iter("*:partition:*", _type="list") for text in there.lrange(each, 0, -1)]
    assert len(waits) == 2
    await client.aclose()


@pytest.mark.parametrize(
    "key",
    [
        *(last_batch_key("asterisk one"), "ari_conf:callbacks:entries", "ari_conf:callbacks:bytes"),
        *("ari_conf:callbacks:accounts", f"ari_conf:callbacks:partition:{outbox.partition_key(callback(1))}"),
    ],
)
async def test_a_damaged_key_that_can_be_rebuilt_loses_nothing(redis_server: RedisServer, kept: StateStore, key: str):
    there = redis_server.client
    there.sadd(key, "something else")
    batch = batch_of(kept, Step(NOW, {"call:u1": b"1"}, [callback(1), callback(2, "c2")]))
    with capture_logs() as logged:
        for _ in range(2):
            await kept.send(batch)
    assert logged == [] and there.type(key) != b"set"
    waits = [text for each in there.scan_iter("*:partition:*", _type="list") for text in there.lrange(each, 0, -1)]
    assert len(waits) == 2, "each callback is queued exactly once"
    taken = partitioned_queue.PartitionedQueue(there).claim("w1", 8, 1)
    assert taken is not None
    partitioned_queue.PartitionedQueue(there).settle("w1", 8, partitioned_queue.ack(taken))
    left = [text for each in there.scan_iter("*:partition:*", _type="list") for text in there.lrange(each, 0, -1)]
    assert len(left) == 1


async def test_a_conference_whose_members_can_not_be_read_costs_itself(redis_server: RedisServer, kept: StateStore):
    conferences = {id: Conference(id, "MA1", id, NOW, 20, "http://x") for id in ("c1", "c2")}
    await kept.write([Step(NOW, dict(conferences), members={id: {9: member(9, id)} for id in conferences})])
    redis_server.client.delete(members_key("c1"))
    redis_server.client.set(members_key("c1"), "no hash")
    redis_server.client.hset("ari_conf:state:asterisk one", b"\xff", b"what is this")
    _, (found,), _ = load(await kept.load())
    assert found.conference_id == "c2" and list(found.members) == [9]


# Redis hangs.


async def test_a_redis_that_hangs_makes_one_call_wait_and_no_other(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
):
    accounts.add(redis_server.client, NOW, "MA1")
    accounts.add(redis_server.client, NOW, "MA2")
    monkeypatch.setattr(state_store, "ACCOUNT_CACHE_S", 0.0)
    async with between(redis_server.port) as way:
        client = state_store.connect(way.url)
        kept = StateStore(client, "asterisk one")
        seen = await kept.account("MA1")
        way.hold()
        with pytest.raises(StoreUnavailable, match="within 1 s"):
            await kept.account("MA2")
        # From here on nothing waits: the loop has no turn in which time could pass.
        for _ in range(50):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                await kept.account("MA2")
            with pytest.raises(StoreUnavailable, match="does not answer"):
                await kept.claim("MA2", "weekly", "c1")
            assert await kept.account("MA1") == seen
        way.let_through()
        async with asyncio.timeout(30):
            while kept.hangs:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await kept.account("MA2") and await kept.claim("MA2", "weekly", "c1") is None
        await kept.close()
        await client.aclose()


async def test_a_name_belongs_to_one_process(kept: StateStore):
    assert await kept.claim("MA1", "weekly", "c1") is None
    assert await kept.claim("MA1", "weekly", "c9", "asterisk two") == "asterisk one"
    assert await kept.claim("MA2", "weekly", "c9", "asterisk two") is None
    assert await kept.names("MA1") == {"weekly": ("c1", "asterisk one")}


async def test_of_two_claims_at_once_one_is_refused(redis_server: RedisServer, kept: StateStore):
    names = [f"name {n}" for n in range(20)]
    claims = [kept.claim("MA1", name, "c", owner) for name in names for owner in ("one", "two")]
    answers = await asyncio.gather(*claims)
    assert [sum(answer is None for answer in answers[i : i + 2]) for i in range(0, 40, 2)] == [1] * 20


async def test_a_process_may_claim_its_name_again_for_the_next_conference(kept: StateStore):
    await kept.claim("MA1", "weekly", "c1")
    assert await kept.claim("MA1", "weekly", "c2") is None
    await kept.write([Step(NOW, released=[ReleaseName("MA1", "weekly", "c1")])])
    assert await kept.names("MA1") == {"weekly": ("c2", "asterisk one")}, "a late release removed the next owner's name"
    await kept.write([Step(NOW, released=[ReleaseName("MA1", "weekly", "c2")])])
    assert await kept.names("MA1") == {}


async def test_an_account_is_read_again_after_five_seconds(
    redis_server: RedisServer, kept: StateStore, monkeypatch: pytest.MonkeyPatch
):
    accounts.add(redis_server.client, NOW, "MA1", answer_url="https://example.com/1")
    assert (await kept.account("MA1")).answer_url == "https://example.com/1"
    accounts.update(redis_server.client, "MA1", answer_url="https://example.com/2")
    assert (await kept.account("MA1")).answer_url == "https://example.com/1"
    monkeypatch.setattr(state_store, "ACCOUNT_CACHE_S", 0.0)
    assert (await kept.account("MA1")).answer_url == "https://example.com/2"
    redis_server.client.hdel(accounts.KEY, "MA1")
    assert await kept.account("MA1") is None


async def test_an_account_that_is_being_removed_is_marked_and_still_signs(redis_server: RedisServer, kept: StateStore):
    token = accounts.add(redis_server.client, NOW, "MA1").token

    def make(record: accounts.AccountRecord | None, _: removals.Removal | None) -> removals.Removal:
        assert record is not None
        marked = msgspec.structs.replace(record, removed=True)
        return removals.Removal(auth_id="MA1", record=marked, calls="end", began_ms=NOW, phase_ms=NOW)

    removals.begin(redis_server.client, "MA1", make, lambda pipe: None)
    record = await kept.account("MA1")
    assert record is not None and record.removed and record.signing_tokens() == [token]


async def test_while_redis_is_gone_an_account_is_as_it_was(
    redis_server: RedisServer, kept: StateStore, monkeypatch: pytest.MonkeyPatch
):
    accounts.add(redis_server.client, NOW, "MA1")
    before = await kept.account("MA1")
    monkeypatch.setattr(state_store, "ACCOUNT_CACHE_S", 0.0)
    redis_server.kill()
    assert await kept.account("MA1") == before
    with pytest.raises(StoreUnavailable, match="Redis is unavailable"):
        await kept.account("MA2")


async def test_written_state_survives_kill_9_of_redis(redis_server: RedisServer, kept: StateStore):
    await kept.write([Step(NOW, {"call:u1": b"1"}, [callback(1)])])
    redis_server.kill()
    lost = Step(NOW, {"call:u1": b"2"}, [callback(2)])
    with pytest.raises(StoreUnavailable):
        await kept.write([lost])
    redis_server.start()
    assert await kept.load() == {"call:u1": b"1"}
    await kept.write([lost])
    assert await kept.load() == {"call:u1": b"2"}
    assert len(waiting(redis_server)) == 2


async def test_other_parts_add_to_the_transaction(redis_server: RedisServer, kept: StateStore):
    await kept.write([Step(NOW, {"call:u1": b"1"}, extra_commands=[lambda pipe: pipe.hset("more", "a", "b")])])
    assert redis_server.client.hget("more", "a") == b"b"


async def test_a_worker_with_room_gets_a_wakeup_in_the_same_transaction(redis_server: RedisServer, kept: StateStore):
    client = state_store.connect(redis_server.url)
    telling = StateStore(client, "asterisk two")
    steps = [Step(NOW, callbacks=[callback(n, f"lane {n}")]) for n in range(4)]
    await telling.write(steps[:1])
    assert redis_server.client.exists("ari_conf:callbacks:wakeups") == 0, "no worker was there"
    partitioned_queue.PartitionedQueue(redis_server.client).heartbeat("w1", 8, [], 0, reclaim=True)
    redis_server.client.set("ari_conf:callbacks:wakeups", "something else")
    await telling.write(steps[1:])
    wakeups = redis_server.client.lrange("ari_conf:callbacks:wakeups", 0, -1)
    assert len(wakeups) == 3, "one wake-up for each callback of the batch"
    assert set(redis_server.client.zrange("ari_conf:callbacks:unanswered-wakeups", 0, -1)) == set(wakeups)
    await telling.write([Step(NOW, callbacks=[callback(n, f"lane {n}")]) for n in range(9, 19)])
    assert redis_server.client.llen("ari_conf:callbacks:wakeups") == 5, "this receiver has no room for more"
    await client.aclose()


async def test_a_job_for_another_queue_is_written_once(redis_server: RedisServer, kept: StateStore):
    batch = batch_of(kept, Step(NOW, jobs=[QueuedJob("recordings", "MA1:o:1", b"store it")]))
    await kept.send(batch)
    await kept.send(batch)
    assert redis_server.client.lrange("ari_conf:recordings:partition:MA1:o:1", 0, -1) == [b"store it"]
    assert redis_server.client.lrange("ari_conf:recordings:accounts", 0, -1) == [b"MA1"]


async def test_a_restarted_redis_gets_the_script_again(redis_server: RedisServer, kept: StateStore):
    await kept.write([Step(NOW, {"call:u1": b"1"})])
    redis_server.client.script_flush()
    await kept.write([Step(NOW, {"call:u1": b"2"})])
    assert await kept.load() == {"call:u1": b"2"}


async def test_all_the_state_of_a_large_asterisk_is_one_write(kept: StateStore):
    state = {f"call:u{n}": b"%d" % n for n in range(30_000)}
    await kept.write([Step(NOW, state)])
    assert await kept.load() == state
    await kept.write([Step(NOW, dict.fromkeys(state))])
    assert await kept.load() == {}


async def test_a_full_redis_takes_all_or_nothing(kept: StateStore, redis_server: RedisServer):
    redis_server.client.config_set("maxmemory", "1")
    with pytest.raises(StoreUnavailable):
        await kept.write([Step(NOW, {"call:u1": b"1"}, [callback(1)])])
    redis_server.client.config_set("maxmemory", "0")
    assert await kept.load() == {}
    assert waiting(redis_server) == []
