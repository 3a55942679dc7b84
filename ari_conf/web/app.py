"""Application of `ari-conf web`: REST API, event stream and dashboard. Any number of web processes may run, because all
shared state is in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

import ari_conf
from ari_conf.common.version import VERSION
from ari_conf.settings import Settings
from ari_conf.web import errors, metrics, resources
from ari_conf.web.middleware import ACCOUNT, RequestMiddleware
from ari_conf.web.routes import (
    accounts,
    admin_page,
    call_recording,
    call_states,
    callbacks,
    calls,
    conference_history,
    conferences,
    dashboard,
    dead_letters,
    event_stream,
    live_calls,
    member_calls,
    recording_sidecars,
    recordings,
    trunks,
)


def create(settings: Settings) -> FastAPI:
    web_metrics = metrics.WebMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with resources.open_resources(settings, web_metrics.watch_loop()) as app.state.resources:
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
    app.add_middleware(RequestMiddleware, observe=web_metrics.observe)
    errors.install(app)
    conference_modules = conferences, member_calls, conference_history, recordings, recording_sidecars
    for module in (
        *conference_modules,
        calls,
        live_calls,
        call_recording,
        call_states,
        dead_letters,
        callbacks,
        event_stream,
    ):
        app.include_router(module.router, prefix=ACCOUNT)
    app.include_router(accounts.router)
    app.include_router(trunks.router)
    app.include_router(dashboard.router)
    app.include_router(admin_page.router)
    _add_operator_routes(app, web_metrics)
    describe = app.openapi
    app.openapi = lambda: _without_422(describe())  # type: ignore[method-assign]
    return app


def _without_422(described: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI description without FastAPI's 422 responses: invalid requests get a 400."""
    for path in described["paths"].values():
        for call in path.values():
            call["responses"].pop("422", None)
    for schema in ("HTTPValidationError", "ValidationError"):
        described["components"]["schemas"].pop(schema, None)
    return described


def _add_operator_routes(app: FastAPI, web_metrics: metrics.WebMetrics) -> None:
    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        """Return 200 while this process responds. /readyz checks Redis, and `ari-conf doctor` every component."""
        return {"status": "ok", "version": VERSION}

    @app.get("/readyz", include_in_schema=False)
    async def readyz(request: Request) -> Response:
        """Return 200 if Redis responds, so that API calls can be executed. Raises RedisError, which becomes a 503."""
        redis: Any = resources.resources_of(request).redis
        await redis.ping()
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", include_in_schema=False)
    async def metrics_(request: Request) -> Response:
        return await web_metrics.response(resources.resources_of(request))
