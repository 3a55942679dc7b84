"""The page: its files, and logging in and out."""

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

from ari_conf import transcribers
from ari_conf.settings import Settings
from ari_conf.web import logins
from ari_conf.web.body import read
from ari_conf.web.caller import authenticate, not_too_often
from ari_conf.web.errors import Refused
from ari_conf.web.later import now_ms
from ari_conf.web.parts import parts_of

FOLDER = Path(__file__).parent / "static"
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
class File:
    content: bytes
    kind: str
    etag: str


@cache
def files() -> dict[str, File]:
    """By their path below static/. Read once: nothing else of the disk can be asked for."""
    found = {}
    for path in FOLDER.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.relative_to(FOLDER).as_posix()] = File(content, kind, etag)
    return found


def policy(settings: Settings) -> str:
    """Nothing but ours runs and is shown; recordings come from where RecordUrl leads to."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            " ".join(("media-src 'self'", *_stores(settings))),
            "img-src 'self' data:",
            "font-src 'self'",
            "manifest-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        )
    )


def _stores(settings: Settings) -> list[str]:
    if settings.record_delivery == "web":
        return []
    endpoint = settings.s3_public_endpoint or settings.s3_endpoint
    if endpoint is None:
        domain = f"s3.{settings.s3_region}.amazonaws.com"
        return [f"https://{domain}", f"https://{settings.s3_bucket}.{domain}"]
    parts = urlsplit(endpoint)
    host = parts.netloc if settings.s3_path_style else f"{settings.s3_bucket}.{parts.netloc}"
    return [f"{parts.scheme}://{host}"]


def _headers(settings: Settings) -> dict[str, str]:
    return {
        "Content-Security-Policy": policy(settings),
        "X-Content-Type-Options": "nosniff",
        # Not "no-referrer": with it a form's Origin would be "null".
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "X-Frame-Options": "DENY",
    }


def _file(request: Request, name: str) -> Response:
    file = files().get(name)
    if file is None:
        raise Refused(404, "not found")
    # Asked for again each time, and then sent only if it is another: so the page's parts always fit each other.
    headers = {**_headers(parts_of(request).settings), "ETag": file.etag, "Cache-Control": "no-cache"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.kind, headers=headers)


@router.get("/")
async def index(request: Request) -> Response:
    if await logins.account(parts_of(request), request) is None:
        return _to("/login")
    return _file(request, "index.html")


@router.get("/login")
async def login_page(request: Request) -> Response:
    return _file(request, "login.html")


@router.get("/static/{name:path}")
async def static(request: Request, name: str) -> Response:
    return _file(request, name)


@router.get("/login/me")
async def me(request: Request) -> Response:
    """Whose page it is, what time it is here, and whether what is said can be written down."""
    record = await logins.account(parts_of(request), request)
    if record is None:
        raise Refused(401, "nobody is logged in (any more)")
    parts = parts_of(request)
    now = await now_ms(parts.redis)
    missing = await parts.reads.run(record.auth_id, transcribers.are_missing, parts.blocking)
    told = {"auth_id": record.auth_id, "now_ms": now, "transcribes": not missing}
    return JSONResponse({"api_id": request.scope["api_id"], **told})


class Given(BaseModel):
    model_config = ConfigDict(extra="ignore")

    auth_id: Annotated[str, Field(max_length=100)] = ""
    auth_token: Annotated[str, Field(max_length=200)] = ""


@router.post("/login")
async def log_in(request: Request, given: Annotated[Given, Depends(read(Given))]) -> Response:
    """From the form: 303 to the page, or back to the form, which says why."""
    if not logins.same_site(request):
        # Else another site could log one in as somebody else.
        raise Refused(403, "log in on ari_conf's own page")
    parts = parts_of(request)
    try:
        record = await authenticate(parts, request, given.auth_id.strip(), given.auth_token.strip())
        await not_too_often(parts, record.auth_id)
    except Refused as refused:
        return _to(f"/login?error={'often' if refused.status == 429 else 'wrong'}")
    await logins.end(parts, request)
    cookie, seconds = await logins.begin(parts, record, given.auth_token.strip())
    return _with_cookie(_to("/"), request, cookie, seconds)


@router.post("/logout")
async def log_out(request: Request) -> Response:
    if not logins.same_site(request):
        raise Refused(403, "log out on ari_conf's own page")
    await logins.end(parts_of(request), request)
    return _with_cookie(_to("/login"), request, "", 0)


def _with_cookie(response: Response, request: Request, cookie: str, seconds: int) -> Response:
    secure = request.url.scheme == "https"
    response.set_cookie(logins.COOKIE, cookie, seconds, httponly=True, samesite="strict", secure=secure)
    return response


def _to(place: str) -> Response:
    return RedirectResponse(place, 303)
