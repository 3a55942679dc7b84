"""Tests of the written step and the effects of a decision, read back from the Redis that it was written to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.conferences.member import Member
from ari_conf.core.effects import CommandReply
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.recordings import jobs
from ari_conf.server.step_builder import StepBuilder
from ari_conf.server.takeover import NEXT_MEMBER_ID
from ari_conf.settings import from_environment
from ari_conf.store import state_store
from ari_conf.store.state_store import StateStore, names_key
from tests.core.stage import Stage, players, stay
from tests.redis import RedisServer

NOW = 1_790_000_000_000


def no_replies(_: CommandReply) -> Callable[[Any], Any]:
    raise AssertionError("nothing was commanded")


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def steps(stage: Stage) -> StepBuilder:
    return StepBuilder(stage.engine, from_environment({}), no_replies)


@pytest.fixture
async def kept(redis_server: RedisServer) -> AsyncIterator[StateStore]:
    client = state_store.connect(redis_server.url)
    yield StateStore(client, "pbx")
    await client.aclose()


def test_effects_for_redis_are_written_and_the_others_run(steps: StepBuilder) -> None:
    callback = do.PostCallback("c1", "A", "http://callback.example/", "POST", ())
    problem = do.ReportProblem("A", "u1", ProblemKind.ASTERISK_FAILED, None, "odd")
    name = do.ReleaseName("A", "standup", "c1")
    run = [do.Answer("ann"), do.IdentifyCall("u1", "ann", "A"), do.ClaimName("A", "standup", "c2")]
    step, todo = steps.build([run[0], callback, problem, run[1], name, run[2]], NOW)
    assert (step.callbacks, step.problems, step.released) == ([callback], [problem], [name])
    assert todo == run and step.now_ms == NOW


async def test_notes_beside_a_recording_are_written(
    steps: StepBuilder, kept: StateStore, redis_server: RedisServer
) -> None:
    stayed = do.AddAttendanceNote("r1", 7, "u1", "4930", "100", NOW, NOW + 5000)
    talked = do.AddSpeechNote("r1", 7, NOW + 1000, NOW + 2000)
    step, todo = steps.build([stayed, talked], NOW)
    await kept.write([step])
    found = jobs.read_notes(redis_server.client, "r1")
    assert [(m["member_id"], m["call_uuid"], m["entered_ms"], m["left_ms"]) for m in found.members] == [
        (7, "u1", NOW, NOW + 5000)
    ]
    assert found.talk == ((7, NOW + 1000, NOW + 2000),)
    assert todo == []


async def test_a_recording_is_handed_to_the_workers(
    steps: StepBuilder, kept: StateStore, redis_server: RedisServer
) -> None:
    whole = do.StoreRecording(
        "r1", "A", "c1", "standup", "u1", "http://x/r1", "mp3", NOW, NOW + 1, None, False, None, ""
    )
    step, todo = steps.build([whole], NOW)
    await kept.write([step])
    (lane,) = redis_server.client.scan_iter(f"*{jobs.STORE_QUEUE}:partition:*")
    (entry,) = cast("list[bytes]", redis_server.client.lrange(lane, 0, -1))
    assert json.loads(entry)["recording_id"] == "r1" and todo == []


async def test_a_reply_is_written_with_what_it_answers(
    stage: Stage, kept: StateStore, redis_server: RedisServer
) -> None:
    reply = CommandReply("command 1", 204)
    steps = StepBuilder(
        stage.engine, from_environment({}), lambda reported: lambda pipe: pipe.set("reply", reported.command_id)
    )
    step, _ = steps.build([reply], NOW)
    await kept.write([step])
    assert redis_server.client.get("reply") == b"command 1"


def test_the_next_members_id_is_written_once_for_each_that_was_given(stage: Stage, steps: StepBuilder) -> None:
    first, _ = steps.build([], NOW)
    second, _ = steps.build([], NOW)
    players(stage, "ann")
    third, _ = steps.build([], NOW)
    ids = [step.state.get(NEXT_MEMBER_ID) for step in (first, second, third)]
    assert ids == [b"1", None, b"2"]


def test_only_changed_members_of_a_conference_are_written(stage: Stage, steps: StepBuilder) -> None:
    players(stage, "ann", "bob")
    steps.build([], NOW)
    stage.talk("bob")
    step, _ = steps.build([], NOW)
    ((conference_id, changed),) = step.members.items()
    assert conference_id in stage.engine.conferences
    assert [cast(Member, member).channel_id for member in changed.values()] == ["bob"]


def test_where_nothing_has_changed_there_is_no_step(stage: Stage, steps: StepBuilder) -> None:
    stage.call("ann", stay())
    assert steps.build_pending(NOW) is not None
    assert steps.build_pending(NOW) is None
    stage.tell(ev.DigitReceived("nobody", "1"))
    assert steps.build_pending(NOW) is None


async def test_a_name_that_is_free_again_is_anybodys(
    stage: Stage, steps: StepBuilder, kept: StateStore, redis_server: RedisServer
) -> None:
    await kept.claim("A", "standup", "c1")
    assert redis_server.client.hlen(names_key("A")) == 1
    await kept.write([steps.build([do.ReleaseName("A", "standup", "c1")], NOW)[0]])
    assert redis_server.client.hlen(names_key("A")) == 0
