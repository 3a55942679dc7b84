"""Problems with an account's calls, for the account's owner: a list in Redis, the newest first."""

from __future__ import annotations

from typing import cast

import msgspec
import structlog
from redis import Redis

from ari_conf.common.redis_keys import PREFIX
from ari_conf.common.safe_text import visible
from ari_conf.core.problem_kinds import ProblemKind

log = structlog.get_logger()

MAX_TEXT_LENGTH = 1000
"""Maximum characters of a problem's text: its quotations may be as long as a document."""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    at_ms: int
    call_uuid: str
    kind: ProblemKind
    text: str
    """Text with escaped control characters, because it quotes documents, servers and callers."""
    code: int | None = None

    def __post_init__(self) -> None:
        text = visible(self.text[: MAX_TEXT_LENGTH + 1])
        if len(text) > MAX_TEXT_LENGTH:
            text = text[: MAX_TEXT_LENGTH - 1] + "…"
        msgspec.structs.force_setattr(self, "text", text)


def problems_key(auth_id: str) -> str:
    return f"{PREFIX}problems:{auth_id}"


def encoded(problem: Problem) -> bytes:
    """Return the problem as an entry of the list."""
    return msgspec.json.encode(problem)


def read_problems(client: Redis, auth_id: str, limit: int = 200) -> list[Problem]:
    """Return an account's problems, the newest first. A problem that can't be read is logged and left out."""
    found = []
    for problem in cast("list[bytes]", client.lrange(problems_key(auth_id), 0, limit - 1)):
        try:
            found.append(msgspec.json.decode(problem, type=Problem))
        except ValueError as error:
            log.warning("problem unreadable", auth_id=auth_id, reason=str(error), action="not listed")
    return found
