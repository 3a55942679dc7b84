"""Start of a call's recording in Asterisk: a snoop channel that listens to the call, and the recording of that channel.

Both steps may be repeated, because each finds out whether it has been done already: after a lost response, and after a
crash between the two.
"""

from __future__ import annotations

import asyncio

from ari_conf.ari.client import Client
from ari_conf.ari.translate import path, snoop_request, to_requests
from ari_conf.core import ids
from ari_conf.core.effects import StartRecording
from ari_conf.errors import AriError, AriNotFound, AriUnreachable

ARRIVAL_ATTEMPTS, ARRIVAL_DELAY_S = 100, 0.01
"""Attempts, and seconds between them, until a new snoop channel is in the Stasis application: normally 2 ms."""


async def start(ari: Client, effect: StartRecording) -> None:
    """Start the recording unless it runs. Raises AriError, and AriNotFound if the call's channel no longer exists."""
    assert effect.snoop is not None
    await _create_snoop(ari, effect)
    (record,) = to_requests(effect)
    name = str(ids.recording_name(effect.source_id, effect.auth_id, effect.recording_id))
    for left in reversed(range(ARRIVAL_ATTEMPTS)):
        try:
            await ari.request(record.method, record.path, record.query, over=record.over)
            return
        except AriError as error:
            # The channel is not in the Stasis application yet, or it is being recorded already.
            if error.status not in (409, 422):
                raise
            if await _exists(ari, path("recordings", "live", name)):
                return
            if not left:
                raise
        await asyncio.sleep(ARRIVAL_DELAY_S)


async def _create_snoop(ari: Client, effect: StartRecording) -> None:
    assert effect.snoop is not None
    snoop = snoop_request(effect.source_id, effect.snoop, ari.app)
    try:
        await ari.request(snoop.method, snoop.path, snoop.query, over=snoop.over)
    except (AriNotFound, AriUnreachable):
        raise
    except AriError:
        # Asterisk refuses a second channel with the same id.
        if not await _exists(ari, path("channels", effect.source_id)):
            raise


async def _exists(ari: Client, where: str) -> bool:
    try:
        await ari.request("GET", where)
    except AriNotFound:
        return False
    return True
