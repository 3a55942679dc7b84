"""What stands beside a recording: who was in, who spoke when, what was said."""

from __future__ import annotations

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from ari_conf.bucket import Bucket
from ari_conf.errors import RecordingFailed
from ari_conf.recording_document import object_key
from ari_conf.recording_index import Stored
from ari_conf.web import models as m
from ari_conf.web.answer import Answer, answer
from ari_conf.web.body import described_query, read
from ari_conf.web.caller import Calling
from ari_conf.web.conferences import replies
from ari_conf.web.errors import Refused, unavailable
from ari_conf.web.parts import Parts
from ari_conf.web.recordings import Id, own

log = structlog.get_logger()
router = APIRouter()


class RecordingDocument(m.Reply):
    document: dict[str, Any]


@router.get(
    "/Recording/{recording_id}/Document/",
    **replies(200, RecordingDocument, of_owner=False),
    openapi_extra=described_query(m.Asynchronous),
)
async def get_document(
    request: Request, caller: Calling, id: Id, body: Annotated[m.Asynchronous, Depends(read(m.Asynchronous))]
) -> Response:
    """Through us, not from the bucket: a page need not be allowed to read there."""

    async def work() -> Answer:
        stored = await own(caller, id)
        try:
            document = await caller.parts.storage.run(caller.auth_id, _read, caller.parts, stored)
        except RecordingFailed as failure:
            log.error("document not read", auth_id=caller.auth_id, recording_id=id, reason=str(failure))
            raise unavailable("the bucket can't be reached now: try again") from None
        if document is None:
            raise Refused(404, "this recording has no document in the bucket (any more)")
        return Answer(200, {"document": document})

    return await answer(request, caller, body, work)


def _read(parts: Parts, stored: Stored) -> dict[str, Any] | None:
    return Bucket(parts.settings).get_json(object_key(stored.auth_id, stored.recording_id, stored.start_ms, "json"))
