"""Tests of the question whether the calls of a Dial may be placed: each has an answer, whatever Redis does."""

from __future__ import annotations

import asyncio

import pytest
from redis import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from ari_conf.core.effects import AdmitDial
from ari_conf.dialing.admission import Admitted, Refused
from ari_conf.dialing.attempt import DialAttempt
from ari_conf.dialing.permissions import NOTHING, Permissions, Reason
from ari_conf.server import dial_admission
from ari_conf.server.dial_admission import UNAVAILABLE, DialAdmission

WAYS = (DialAttempt("lab", "PJSIP/1@lab"),)


class Policy:
    """Stand-in for Redis and for the policy: a caller ID with a reason is refused, any other one is admitted."""

    def __init__(self) -> None:
        self.refuses: dict[str, Reason] = {}
        self.fails: Exception | None = None
        self.hangs = False
        self.record: bytes | None = None
        self.asked: list[tuple[str, str, str]] = []
        self.permissions: Permissions | None = None
        self.counted: list[str] = []
        self.admission = DialAdmission(self, self, self.counted.append)  # type: ignore[arg-type]

    async def hget(self, key: str, field: str) -> bytes | None:
        if self.hangs:
            await asyncio.Event().wait()
        return self.record

    async def admit(
        self, auth_id: str, permissions: Permissions, uuid: str, from_: str, to: str, limit_s: int
    ) -> Admitted | Refused:
        self.permissions = permissions
        self.asked.append((uuid, from_, to))
        if self.fails is not None and len(self.asked) > 1:
            raise self.fails
        if from_ in self.refuses:
            return Refused(self.refuses[from_], "not allowed")
        return Admitted(WAYS, to, from_, limit_s, 7)  # type: ignore[arg-type]


@pytest.fixture
def policy() -> Policy:
    return Policy()


def effect(*caller_ids: str, name: str = "") -> AdmitDial:
    return AdmitDial("c.x.1", "MA1", (("one", "+491"), ("two", "+492")), caller_ids, name, 60)


async def test_each_call_is_admitted_by_itself(policy: Policy) -> None:
    found = await policy.admission.admit(effect("1", name="Sales"))
    assert [(call.call_uuid, call.to, call.from_, call.caller_name) for call in found.calls] == [
        ("one", "+491", "1", "Sales"),
        ("two", "+492", "1", "Sales"),
    ]
    assert {(call.delay_ms, call.time_limit_s) for call in found.calls} == {(7, 60)} and not found.refusals
    assert policy.permissions == NOTHING, "an account that does not exist may do nothing"


@pytest.mark.parametrize("reason", [Reason.CALLER_ID_NOT_ALLOWED, Reason.CALLER_ID_INVALID])
async def test_the_next_caller_id_is_tried(policy: Policy, reason: Reason) -> None:
    policy.refuses = {"1": reason}
    found = await policy.admission.admit(effect("1", "2"))
    assert {call.from_ for call in found.calls} == {"2"} and not found.refusals and not policy.counted


async def test_another_reason_is_the_end_of_it(policy: Policy) -> None:
    policy.refuses = {"1": Reason.TOO_MANY_CALLS}
    found = await policy.admission.admit(effect("1", "2"))
    assert not found.calls and len(found.refusals) == 2 and len(policy.asked) == 2
    assert policy.counted == [Reason.TOO_MANY_CALLS.value] * 2


async def test_the_first_refusal_is_told_if_no_caller_id_may_be_shown(policy: Policy) -> None:
    policy.refuses = {"1": Reason.CALLER_ID_INVALID, "2": Reason.CALLER_ID_NOT_ALLOWED}
    found = await policy.admission.admit(effect("1", "2"))
    assert all(text.startswith(f"{Reason.CALLER_ID_INVALID}: ") for text in found.refusals)


@pytest.mark.parametrize("error", [RedisConnectionError("gone"), OSError("gone")])
async def test_nothing_is_dialed_if_redis_fails_in_between(policy: Policy, error: Exception) -> None:
    policy.fails = error
    with capture_logs():
        found = await policy.admission.admit(effect("1"))
    assert (found.calls, found.refusals) == ((), (UNAVAILABLE,))


async def test_an_answer_that_does_not_come_is_a_refusal(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_admission, "DEADLINE_S", 0.01)
    policy.hangs = True
    with capture_logs():
        found = await policy.admission.admit(effect("1"))
    assert (found.calls, found.refusals) == ((), (UNAVAILABLE,))


async def test_a_damaged_account_may_dial_nothing(policy: Policy) -> None:
    policy.record = b"{"
    await policy.admission.admit(effect("1"))
    assert policy.permissions == NOTHING
