"""Routes of the administrator's page: login and logout with a key. Its files are those of the dashboard."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from ari_conf.web import admin_auth, sessions
from ari_conf.web.async_calls import now_ms
from ari_conf.web.errors import ApiError
from ari_conf.web.parameters import params_dependency
from ari_conf.web.resources import resources_of
from ari_conf.web.routes.dashboard import file_response, redirect, with_cookie

router = APIRouter(include_in_schema=False)

LOGIN = "/admin/login"


@router.get("/admin")
@router.get("/admin/")
async def index(request: Request) -> Response:
    if await admin_auth.session_name(resources_of(request), request) is None:
        return redirect(LOGIN)
    return file_response(request, "admin.html")


@router.get(LOGIN)
async def login_page(request: Request) -> Response:
    _require_key(request)
    return file_response(request, "admin_login.html")


@router.get("/admin/me")
async def current_session(request: Request) -> Response:
    """Return the name of the session's key, and the server's time."""
    resources = resources_of(request)
    name = await admin_auth.session_name(resources, request)
    if name is None:
        raise ApiError(401, "not logged in: the session does not exist, or has ended")
    session = {"name": name, "now_ms": await now_ms(resources.redis)}
    return JSONResponse({"api_id": request.scope["api_id"], **session})


class LoginForm(BaseModel):
    model_config = ConfigDict(extra="ignore")

    key: Annotated[str, Field(max_length=250)] = ""


@router.post(LOGIN)
async def log_in(request: Request, given: Annotated[LoginForm, Depends(params_dependency(LoginForm))]) -> Response:
    """Log in with the form's key: 303 to the page, or to the form with the reason of the failure."""
    _require_key(request)
    if not sessions.same_site(request):
        raise ApiError(403, f"the login must come from the page: log in at {LOGIN}")
    resources = resources_of(request)
    try:
        name = await admin_auth.authenticate(resources, request, given.key.strip())
    except ApiError as refused:
        return redirect(f"{LOGIN}?error={'often' if refused.status == 429 else 'wrong'}")
    await admin_auth.delete_session(resources, request)
    cookie, seconds = await admin_auth.create_session(resources, name)
    return with_cookie(redirect("/admin"), request, admin_auth.COOKIE, cookie, seconds)


@router.post("/admin/logout")
async def log_out(request: Request) -> Response:
    if not sessions.same_site(request):
        raise ApiError(403, "the logout must come from the page")
    await admin_auth.delete_session(resources_of(request), request)
    return with_cookie(redirect(LOGIN), request, admin_auth.COOKIE, "", 0)


def _require_key(request: Request) -> None:
    if not resources_of(request).settings.admin_keys:
        raise ApiError(404, admin_auth.OFF)
