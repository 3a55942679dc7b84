"""What went wrong with an account's calls, as its operator sees it: a list in Redis, the newest first."""

from __future__ import annotations

from typing import cast

import msgspec
import structlog
from redis import Redis

from ari_conf.lanes import PREFIX
from ari_conf.visible import visible

log = structlog.get_logger()

MOST_TEXT = 1000
"""Characters of a problem's text: what it quotes may be as long as a document."""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    at_ms: int
    call_uuid: str
    text: str
    """It quotes documents, servers and callers: control characters are written as their escapes."""
    code: int | None = None

    def __post_init__(self) -> None:
        text = visible(self.text[: MOST_TEXT + 1])
        if len(text) > MOST_TEXT:
            text = text[: MOST_TEXT - 1] + "…"
        msgspec.structs.force_setattr(self, "text", text)


def problems_key(auth_id: str) -> str:
    return f"{PREFIX}problems:{auth_id}"


def encoded(problem: Problem) -> bytes:
    """As it stands in the list."""
    return msgspec.json.encode(problem)


def read_problems(client: Redis, auth_id: str, limit: int = 200) -> list[Problem]:
    """An account's problems, the newest first. One that can't be read hides no other."""
    found = []
    for problem in cast("list[bytes]", client.lrange(problems_key(auth_id), 0, limit - 1)):
        try:
            found.append(msgspec.json.decode(problem, type=Problem))
        except ValueError as error:
            log.warning("a problem can't be read: it is not listed", auth_id=auth_id, reason=str(error))
    return found
