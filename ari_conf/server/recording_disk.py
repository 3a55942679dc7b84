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
    bytes_by_account: dict[str, int] = {}
    for path in folder.glob("*/*"):
        with suppress(FileNotFoundError):  # the recording has just been stored
            account = path.parent.name
            bytes_by_account[account] = bytes_by_account.get(account, 0) + path.stat().st_size
    return bytes_by_account


def disk_usage_warning(bytes_by_account: dict[str, int], limit_mb: int) -> str | None:
    total = sum(bytes_by_account.values())
    if total <= limit_mb * 1_000_000:
        return None
    return (
        f"recordings on Asterisk's disk exceed {limit_mb} MB: {total / 1e6:.0f} MB wait to be stored; "
        "`ari-conf recordings pending` shows what they wait for"
    )


async def monitor(
    folder: Path,
    limit_mb: int,
    report: Callable[[str, ProblemKind, str], None],
    set_bytes: Callable[[int], None],
    every_s: float = POLL_INTERVAL_S,
) -> None:
    """Measure the folder every `every_s` seconds, and warn once when it exceeds `limit_mb`. Never returns.

    The warning goes to the log and by `report(auth_id, kind, text)` to each account with files in the folder; it can be
    repeated only after usage was below the limit. An unreadable folder is logged once until it can be read.
    `set_bytes` receives the total number of bytes.
    """
    is_reported = is_unreadable = False
    while True:
        try:
            bytes_by_account = await asyncio.to_thread(usage_by_account, folder)
        except OSError as error:
            if not is_unreadable:
                log.error("recording folder not read", reason=error.strerror or str(error))
            is_unreadable = True
            await asyncio.sleep(every_s)
            continue
        is_unreadable = False
        set_bytes(sum(bytes_by_account.values()))
        text = disk_usage_warning(bytes_by_account, limit_mb)
        if text and not is_reported:
            log.warning("recordings limit exceeded", bytes=sum(bytes_by_account.values()), limit_mb=limit_mb)
            for auth_id in bytes_by_account:
                report(auth_id, ProblemKind.RECORDINGS_WAIT, text)
        is_reported = text is not None
        await asyncio.sleep(every_s)
