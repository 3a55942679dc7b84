"""Pagination: the metadata of lists that are returned page by page."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import Request


def paged(request: Request, limit: int, offset: int, total: int) -> dict[str, Any]:
    """Return the metadata of one page of a list, in Plivo's format."""

    def page(at: int) -> str:
        query = {**request.query_params, "limit": str(limit), "offset": str(at)}
        return f"{request.scope['path']}?{urlencode(query)}"

    return {
        "limit": limit,
        "offset": offset,
        "total_count": total,
        "next": page(offset + limit) if offset + limit < total else None,
        "previous": page(max(0, offset - limit)) if offset else None,
    }
