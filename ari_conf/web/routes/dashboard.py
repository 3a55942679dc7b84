"""Routes of the dashboard: its static files, login and logout."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from ari_conf.recordings import transcribers
from ari_conf.settings import Settings
from ari_conf.web import sessions
from ari_conf.web.async_calls import now_ms
from ari_conf.web.auth import authenticate, not_too_often
from ari_conf.web.errors import ApiError
from ari_conf.web.parameters import params_dependency
from ari_conf.web.resources import resources_of

FOLDER = Path(__file__).parents[1] / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".LICENSE": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class StaticFile:
    content: bytes
    kind: str
    etag: str


@cache
def files() -> dict[str, StaticFile]:
    """Return the static files by their path below static/. They are read once, so no other file can be served."""
    found = {}
    for path in FOLDER.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.relative_to(FOLDER).as_posix()] = StaticFile(content, kind, etag)
    return found


def content_security_policy(settings: Settings) -> str:
    """Return the policy: only the dashboard's own files run and are shown; media may also come from the bucket."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            " ".join(("media-src 'self'", *_bucket_origins(settings))),
            "img-src 'self' data:",
            "font-src 'self'",
            "manifest-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        )
    )


def _bucket_origins(settings: Settings) -> list[str]:
    if settings.record_delivery == "web":
        return []
    endpoint = settings.s3_public_endpoint or settings.s3_endpoint
    if endpoint is None:
        domain = f"s3.{settings.s3_region}.amazonaws.com"
        return [f"https://{domain}", f"https://{settings.s3_bucket}.{domain}"]
    url = urlsplit(endpoint)
    host = url.netloc if settings.s3_path_style else f"{settings.s3_bucket}.{url.netloc}"
    return [f"{url.scheme}://{host}"]


def _headers(settings: Settings) -> dict[str, str]:
    return {
        "Content-Security-Policy": content_security_policy(settings),
        "X-Content-Type-Options": "nosniff",
        # "no-referrer" would make browsers send "Origin: null" with a form.
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "X-Frame-Options": "DENY",
    }


def file_response(request: Request, name: str) -> Response:
    file = files().get(name)
    if file is None:
        raise ApiError(404, "not found")
    # The browser revalidates every file on each load, so that files of two versions are never mixed.
    headers = {**_headers(resources_of(request).settings), "ETag": file.etag, "Cache-Control": "no-cache"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.kind, headers=headers)


@router.get("/")
async def index(request: Request) -> Response:
    if await sessions.current_account(resources_of(request), request) is None:
        return redirect("/login")
    return file_response(request, "index.html")


@router.get("/login")
async def login_page(request: Request) -> Response:
    return file_response(request, "login.html")


@router.get("/static/{name:path}")
async def static(request: Request, name: str) -> Response:
    return file_response(request, name)


@router.get("/login/me")
async def current_session(request: Request) -> Response:
    """Return the account of the session, the server's time, and whether transcriptions can be made."""
    record = await sessions.current_account(resources_of(request), request)
    if record is None:
        raise ApiError(401, "not logged in: the session does not exist, or has ended")
    resources = resources_of(request)
    now = await now_ms(resources.redis)
    missing = await resources.reads.run(record.auth_id, transcribers.are_missing, resources.sync_redis)
    session = {"auth_id": record.auth_id, "now_ms": now, "transcribes": not missing}
    return JSONResponse({"api_id": request.scope["api_id"], **session})


class LoginForm(BaseModel):
    model_config = ConfigDict(extra="ignore")

    auth_id: Annotated[str, Field(max_length=100)] = ""
    auth_token: Annotated[str, Field(max_length=200)] = ""


@router.post("/login")
async def log_in(request: Request, given: Annotated[LoginForm, Depends(params_dependency(LoginForm))]) -> Response:
    """Log in with the form's fields: 303 to the dashboard, or to the form with the reason of the failure."""
    if not sessions.same_site(request):
        # Otherwise another site could log the user in with another account.
        raise ApiError(403, "the login must come from the dashboard: log in at /login")
    resources = resources_of(request)
    try:
        record = await authenticate(resources, request, given.auth_id.strip(), given.auth_token.strip())
        await not_too_often(resources, record.auth_id)
    except ApiError as refused:
        return redirect(f"/login?error={'often' if refused.status == 429 else 'wrong'}")
    await sessions.delete(resources, request)
    cookie, seconds = await sessions.create(resources, record, given.auth_token.strip())
    return with_cookie(redirect("/"), request, sessions.COOKIE, cookie, seconds)


@router.post("/logout")
async def log_out(request: Request) -> Response:
    if not sessions.same_site(request):
        raise ApiError(403, "the logout must come from the dashboard")
    await sessions.delete(resources_of(request), request)
    return with_cookie(redirect("/login"), request, sessions.COOKIE, "", 0)


def with_cookie(response: Response, request: Request, name: str, cookie: str, seconds: int) -> Response:
    secure = request.url.scheme == "https"
    response.set_cookie(name, cookie, seconds, httponly=True, samesite="strict", secure=secure)
    return response


def redirect(place: str) -> Response:
    return RedirectResponse(place, 303)
