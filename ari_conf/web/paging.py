"""Lists that are given out in parts."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import Request


def paged(request: Request, limit: int, offset: int, total: int) -> dict[str, Any]:
    """As Plivo tells which part of a list this is."""

    def page(at: int) -> str:
        asked = {**request.query_params, "limit": str(limit), "offset": str(at)}
        return f"{request.scope['path']}?{urlencode(asked)}"

    return {
        "limit": limit,
        "offset": offset,
        "total_count": total,
        "next": page(offset + limit) if offset + limit < total else None,
        "previous": page(max(0, offset - limit)) if offset else None,
    }
