"""Admission of calls that API requests place: a refusal is a response, a problem of the account, and a metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from ari_conf.common import lua
from ari_conf.core.placing import TIME_LIMIT_S
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.dialing.admission import Admitted, Refused
from ari_conf.dialing.attempt import DialAttempt
from ari_conf.store.problems import Problem, encoded, problems_key
from ari_conf.web.async_calls import now_ms
from ari_conf.web.auth import ApiClient
from ari_conf.web.errors import ApiError

log = structlog.get_logger()

_ADD_PROBLEM = lua.load("ari_conf.store.scripts.add_problem")


async def admit(client: ApiClient, call_uuid: str, from_: str, to: str, time_limit_s: int = TIME_LIMIT_S) -> Admitted:
    """Admit a call, which then counts in the account's limits until it ends, or until `release`.

    Raises ApiError 403 if the account may not place it, or 400 if `from_` or `to` can't be read."""
    resources = client.resources
    permissions = client.record.permissions()
    admitted = await resources.admission.admit(client.auth_id, permissions, call_uuid, from_, to, time_limit_s)
    if isinstance(admitted, Refused):
        await _report(client, admitted)
        raise ApiError(admitted.status, f"{admitted.reason}: {admitted.text}")
    return admitted


async def release(client: ApiClient, call_uuid: str, attempts: Sequence[DialAttempt]) -> None:
    """Take back the admission of a call that no server got, or that the server has refused."""
    await client.resources.admission.release(client.auth_id, call_uuid, attempts)


async def _report(client: ApiClient, refused: Refused) -> None:
    resources = client.resources
    resources.dial_refusals[refused.reason] += 1
    log.info("dialing refused", auth_id=client.auth_id, reason=refused.reason.value)
    redis: Any = resources.redis
    text = f"{refused.reason}: {refused.text}"
    problem = Problem(await now_ms(redis), "", ProblemKind.DIALING_REFUSED, text)
    key, kept = problems_key(client.auth_id), resources.settings.problems_kept
    await redis.eval(_ADD_PROBLEM, 1, key, encoded(problem), kept)
