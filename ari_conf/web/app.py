"""`ari-conf web`: the process of the REST API. Any number of them: what they know is in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

import ari_conf
from ari_conf.settings import Settings
from ari_conf.web import (
    callbacks,
    conferences,
    errors,
    events,
    letters,
    metrics,
    page,
    parts,
    recording_documents,
    recordings,
)
from ari_conf.web.paths import ACCOUNT, Paths


def create(settings: Settings) -> FastAPI:
    measured = metrics.Web()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with parts.running(settings, measured.watch_loop()) as app.state.parts:
            yield

    app = FastAPI(
        title="ari_conf",
        summary=(ari_conf.__doc__ or "").partition("\n")[0],
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        strict_content_type=False,
    )
    app.add_middleware(Paths, observe=measured.observe)
    errors.install(app)
    for part in (conferences, letters, callbacks, recordings, recording_documents, events):
        app.include_router(part.router, prefix=ACCOUNT)
    app.include_router(page.router)
    _add_operating(app, measured)
    whole = app.openapi
    app.openapi = lambda: _corrected(whole())  # type: ignore[method-assign]
    return app


def _corrected(described: dict[str, Any]) -> dict[str, Any]:
    """FastAPI thinks that its own validation answers 422: ours answers 400."""
    for path in described["paths"].values():
        for call in path.values():
            call["responses"].pop("422", None)
    for schema in ("HTTPValidationError", "ValidationError"):
        described["components"]["schemas"].pop(schema, None)
    return described


def _add_operating(app: FastAPI, measured: metrics.Web) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        """This process answers. What it needs (Redis, the application) is /readyz' and `ari-conf doctor`'s to tell."""
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    async def readyz(request: Request) -> Response:
        """Redis answers: calls can be done. Raises RedisError, which is a 503."""
        redis: Any = parts.parts_of(request).redis
        await redis.ping()
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", include_in_schema=False)
    async def metrics_(request: Request) -> Response:
        return await measured.response(parts.parts_of(request))
