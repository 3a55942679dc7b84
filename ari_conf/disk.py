"""How much waits in Asterisk's recording folder: as long as S3 is away, that grows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

log = structlog.get_logger()
LOOK_EVERY_S = 60.0


def used(folder: Path) -> dict[str, int]:
    """account -> bytes; each has a folder of its own in it. Raises OSError."""
    found: dict[str, int] = {}
    for path in folder.glob("*/*"):
        with suppress(FileNotFoundError):  # it was stored meanwhile
            account = path.parent.name
            found[account] = found.get(account, 0) + path.stat().st_size
    return found


def warning(bytes_by_account: dict[str, int], limit_mb: int) -> str | None:
    whole = sum(bytes_by_account.values())
    if whole <= limit_mb * 1_000_000:
        return None
    return (
        f"recordings of {whole / 1e6:.0f} MB wait on Asterisk's disk, more than {limit_mb} MB: "
        "`ari-conf recordings pending` tells what they wait for"
    )


async def watch(
    folder: Path,
    limit_mb: int,
    tell: Callable[[str, str], None],
    measured: Callable[[int], None],
    every_s: float = LOOK_EVERY_S,
) -> None:
    """Tells the log, and each account that has some of it by `tell(auth_id, text)`, once until it is less again. Never
    returns. What can't be read is told once, too, until it can."""
    told = unread = False
    while True:
        try:
            found = await asyncio.to_thread(used, folder)
        except OSError as error:
            if not unread:
                reason = error.strerror or str(error)
                log.error("the recording folder can't be read: how much waits there is not known", reason=reason)
            unread = True
            await asyncio.sleep(every_s)
            continue
        unread = False
        measured(sum(found.values()))
        text = warning(found, limit_mb)
        if text and not told:
            log.warning("recordings fill the disk", bytes=sum(found.values()), limit_mb=limit_mb)
            for auth_id in found:
                tell(auth_id, text)
        told = text is not None
        await asyncio.sleep(every_s)
