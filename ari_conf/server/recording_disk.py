"""Recording disk monitor: measures Asterisk's recording folder, which grows while S3 is unreachable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from ari_conf.core.problem_kinds import ProblemKind

log = structlog.get_logger()
POLL_INTERVAL_S = 60.0


def usage_by_account(folder: Path) -> dict[str, int]:
    """Return account -> bytes; each account has a subfolder. Raises OSError if the folder can't be read."""
    found: dict[str, int] = {}
    for path in folder.glob("*/*"):
        with suppress(FileNotFoundError):  # the recording has just been stored
            account = path.parent.name
            found[account] = found.get(account, 0) + path.stat().st_size
    return found


def disk_usage_warning(bytes_by_account: dict[str, int], limit_mb: int) -> str | None:
    whole = sum(bytes_by_account.values())
    if whole <= limit_mb * 1_000_000:
        return None
    return (
        f"recordings on Asterisk's disk exceed {limit_mb} MB: {whole / 1e6:.0f} MB wait to be stored; "
        "`ari-conf recordings pending` shows what they wait for"
    )


async def monitor(
    folder: Path,
    limit_mb: int,
    tell: Callable[[str, ProblemKind, str], None],
    measured: Callable[[int], None],
    every_s: float = POLL_INTERVAL_S,
) -> None:
    """Measure the folder every `every_s` seconds, and warn once when it exceeds `limit_mb`. Never returns.

    The warning goes to the log and by `tell(auth_id, kind, text)` to each account with files in the folder; it can be
    repeated only after usage was below the limit. An unreadable folder is logged once until it can be read.
    `measured` receives the total number of bytes.
    """
    told = unread = False
    while True:
        try:
            found = await asyncio.to_thread(usage_by_account, folder)
        except OSError as error:
            if not unread:
                log.error("recording folder not read", reason=error.strerror or str(error))
            unread = True
            await asyncio.sleep(every_s)
            continue
        unread = False
        measured(sum(found.values()))
        text = disk_usage_warning(found, limit_mb)
        if text and not told:
            log.warning("recordings limit exceeded", bytes=sum(found.values()), limit_mb=limit_mb)
            for auth_id in found:
                tell(auth_id, ProblemKind.RECORDINGS_WAIT, text)
        told = text is not None
        await asyncio.sleep(every_s)
