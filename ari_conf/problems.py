"""What went wrong with an account's calls, as its operator sees it: a list in Redis, the newest first."""

from __future__ import annotations

from typing import cast

import msgspec
from redis import Redis

from ari_conf.lanes import PREFIX

MOST_TEXT = 1000
"""Characters of a problem's text."""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    at_ms: int
    call_uuid: str
    text: str
    code: int | None = None


def problems_key(auth_id: str) -> str:
    return f"{PREFIX}problems:{auth_id}"


def encoded(problem: Problem) -> bytes:
    """As it stands in the list."""
    if len(problem.text) > MOST_TEXT:
        problem = msgspec.structs.replace(problem, text=problem.text[: MOST_TEXT - 1] + "…")
    return msgspec.json.encode(problem)


def read_problems(client: Redis, auth_id: str, limit: int = 200) -> list[Problem]:
    """An account's problems, the newest first."""
    found = cast("list[bytes]", client.lrange(problems_key(auth_id), 0, limit - 1))
    return [msgspec.json.decode(problem, type=Problem) for problem in found]
