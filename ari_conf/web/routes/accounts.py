"""Routes for administrators: accounts and the audit log.

Accounts send Basic credentials, administrators a bearer token or the cookie of their page. So the paths can't be taken
for Plivo's, which are below an account's own path and send Basic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

import msgspec
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from ari_conf.administration import audit, management, removal
from ari_conf.administration.audit import AuditEntry
from ari_conf.administration.management import AccountStatus
from ari_conf.store import accounts
from ari_conf.store.accounts import AccountRecord
from ari_conf.store.removals import Removal
from ari_conf.web import models as m
from ari_conf.web.admin_auth import CurrentAdmin
from ari_conf.web.errors import ApiError
from ari_conf.web.execution import JsonResponse
from ari_conf.web.format import format_time
from ari_conf.web.middleware import ACCOUNT, decode_path_part
from ari_conf.web.openapi import openapi_body, openapi_query, openapi_responses
from ari_conf.web.pagination import paged
from ari_conf.web.parameters import params_dependency

ALL = "/v1/Account/"
ONE = ACCOUNT + "/"
AUDIT = "/v1/Audit/"
HOUR_MS = 3_600_000
MAX_KEPT_HOURS = 24 * 365

router = APIRouter()


# Parameters. The fields of an account are those of its record, which also checks their values.

_FIELDS: dict[str, Any] = {
    one.name: (one.type | None, None)
    for one in msgspec.structs.fields(AccountRecord)
    if one.name in accounts.EDITABLE_FIELDS
}


class _Strict(BaseModel):
    """Parameters of which none is ignored: a misspelled one would leave an account as it is."""

    model_config = ConfigDict(extra="forbid")


Token = Annotated[str | None, Field(description="16 to 100 letters and digits.")]
OptionalId = Annotated[str | None, Field(description="1 to 40 letters and digits; if not given, a generated one.")]
NewAccount: Any = create_model(
    "NewAccount", __base__=_Strict, auth_id=(OptionalId, None), auth_token=(Token, None), with_its_data=(bool, False),
    **_FIELDS,
)  # fmt: skip
AccountChange: Any = create_model(
    "AccountChange",
    __base__=_Strict,
    auth_token=(Token, None),
    rotate_token=(bool, False),
    old_token_hours=(Annotated[float, Field(ge=0, le=MAX_KEPT_HOURS)], 24.0),
    **_FIELDS,
)


class RemovalRequest(_Strict):
    calls: Annotated[
        Literal["end", "keep"] | None,
        BeforeValidator(lambda value: value or None),
        Field(description="end: hang up its live calls. keep: they continue. Required if it has live calls."),
    ] = None
    purge: Annotated[bool, Field(description="Delete everything that is stored of the account.")] = False


class AccountListParams(_Strict):
    search: Annotated[str, Field(max_length=40, description="Part of the auth ID.")] = ""
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    offset: Annotated[int, Field(ge=0, le=10_000_000)] = 0


class AuditParams(_Strict):
    auth_id: Annotated[str, Field(max_length=100, description="Only entries about this account.")] = ""
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class NoParams(_Strict):
    pass


# Replies.


class RemovalModel(BaseModel):
    calls: Literal["end", "keep"]
    purge: bool
    phase: Literal["calls", "callbacks", "data", "removed"]
    began: str
    error: str
    """Reason why the removal can't continue now; it is tried again."""
    total: dict[str, int]
    """Things that were there at the beginning, by kind."""
    left: dict[str, int]


State = Literal["active", "being removed", "removed", "unreadable"]
AccountModel: Any = create_model(
    "AccountModel",
    auth_id=(str, ...),
    state=cast(Any, (State, ...)),
    created=(str | None, None),
    old_tokens_until=(list[str], ...),
    removal=(RemovalModel | None, None),
    **_FIELDS,
)


class AccountList(m.ApiResponse):
    meta: dict[str, Any]
    objects: list[AccountModel]


class AccountResponse(m.ApiResponse):
    account: AccountModel
    auth_token: str | None = None
    """The new token. It is not shown again."""


class AuditEntryModel(BaseModel):
    time: str
    who: str
    via: Literal["api", "page", "cli", "worker"]
    action: str
    auth_id: str
    details: dict[str, str]


class AuditList(m.ApiResponse):
    meta: dict[str, Any]
    objects: list[AuditEntryModel]


def account_id(auth_id: Annotated[str, Path(description="The account.", min_length=1)]) -> str:
    return decode_path_part(auth_id)


Id = Annotated[str, Depends(account_id)]


def _reply(status: int, model: type[BaseModel], *, may_conflict: bool = False) -> dict[str, Any]:
    return openapi_responses(status, model, of_owner=may_conflict, asynchronous=False)


# Accounts.


@router.get(ALL, **_reply(200, AccountList), openapi_extra=openapi_query(AccountListParams))
async def list_accounts(
    request: Request,
    admin: CurrentAdmin,
    query: Annotated[AccountListParams, Depends(params_dependency(AccountListParams))],
) -> Response:
    """List accounts by auth ID, also those that are being removed."""
    total, found = await admin.run(management.list_page, query.search, query.limit, query.offset)
    meta = paged(request, query.limit, query.offset, total)
    return _json(admin.api_id, 200, meta=meta, objects=[account_json(one) for one in found])


@router.post(ALL, **_reply(201, AccountResponse, may_conflict=True), openapi_extra=openapi_body(NewAccount))
async def create_account(
    admin: CurrentAdmin, body: Annotated[BaseModel, Depends(params_dependency(NewAccount))]
) -> Response:
    """Create an account. The reply has its token, which is not shown again."""
    given = body.model_dump()
    auth_id, token = given["auth_id"] or None, given["auth_token"] or None
    record = await admin.run(
        management.create, admin.actor, auth_id, token, _fields(body), with_its_data=given["with_its_data"]
    )
    account = account_json(AccountStatus(record.auth_id, record, None))
    return _json(admin.api_id, 201, account=account, auth_token=record.token)


@router.get(ONE, **_reply(200, AccountResponse), openapi_extra=openapi_query(NoParams))
async def get_account(admin: CurrentAdmin, auth_id: Id) -> Response:
    """Return an account without its token. While it is being removed, `removal` has the progress."""
    found = await admin.run(management.get, auth_id)
    if found is None:
        raise ApiError(404, f"account {auth_id[:40]} does not exist")
    return _json(admin.api_id, 200, account=account_json(found))


@router.patch(ONE, **_reply(200, AccountResponse), openapi_extra=openapi_body(AccountChange))
@router.post(ONE, include_in_schema=False)  # Plivo changes with POST, and some clients have no PATCH
async def change_account(
    admin: CurrentAdmin, auth_id: Id, body: Annotated[BaseModel, Depends(params_dependency(AccountChange))]
) -> Response:
    """Change fields of an account, or its token. The reply has a new token, which is not shown again."""
    given, fields = body.model_dump(), _fields(body)
    token = given["auth_token"] or (accounts.new_token() if given["rotate_token"] else None)
    if token is None and not fields:
        raise ApiError(400, "nothing to change: give a field of the account, auth_token or rotate_token")
    keep_ms = int(given["old_token_hours"] * HOUR_MS)
    record = await admin.run(management.change, admin.actor, auth_id, fields, token, keep_ms)
    account = account_json(AccountStatus(auth_id, record, None))
    return _json(admin.api_id, 200, account=account, **({"auth_token": token} if token else {}))


@router.delete(ONE, **_reply(202, AccountResponse, may_conflict=True), openapi_extra=openapi_query(RemovalRequest))
async def remove_account(
    admin: CurrentAdmin,
    auth_id: Id,
    asked: Annotated[RemovalRequest, Depends(params_dependency(RemovalRequest, with_query=True))],
) -> Response:
    """Begin to remove an account. A worker continues; `GET` of the account has the progress."""
    settings = admin.resources.settings
    begun = await admin.run(_begin_removal, admin.actor, settings, auth_id, asked)
    return _json(admin.api_id, 202, account=account_json(AccountStatus(auth_id, None, begun)))


def _begin_removal(redis: Any, actor: audit.Actor, settings: Any, auth_id: str, asked: RemovalRequest) -> Removal:
    return removal.begin(redis, actor, settings, auth_id, asked.calls, asked.purge)


@router.get(AUDIT, **_reply(200, AuditList), openapi_extra=openapi_query(AuditParams))
async def list_audit_entries(
    request: Request, admin: CurrentAdmin, query: Annotated[AuditParams, Depends(params_dependency(AuditParams))]
) -> Response:
    """List what administrators have changed, the newest first."""
    total, found = await admin.run(audit.read, query.auth_id or None, query.limit, query.offset)
    meta = paged(request, query.limit, query.offset, total)
    return _json(admin.api_id, 200, meta=meta, objects=[entry_json(one) for one in found])


def _json(api_id: str, status: int, **body: Any) -> Response:
    return JsonResponse({"api_id": api_id, **body}, status)


def _fields(body: BaseModel) -> dict[str, Any]:
    """Return the given fields of the account. None removes a URL, and otherwise counts as not given."""
    given: Mapping[str, Any] = body.model_dump(include=body.model_fields_set & set(accounts.EDITABLE_FIELDS))
    return {name: value for name, value in given.items() if value is not None or name.endswith("_url")}


def account_json(status: AccountStatus) -> dict[str, Any]:
    """Return an account without its tokens."""
    record = status.record
    shown: dict[str, Any] = {name: getattr(record, name) for name in _FIELDS} if record is not None else {}
    return {
        "auth_id": status.auth_id,
        "state": _state(status),
        "created": format_time(record.created_ms) if record is not None else None,
        "old_tokens_until": [format_time(old.until_ms) for old in record.old_tokens] if record is not None else [],
        "removal": removal_json(status.removal) if status.removal is not None else None,
        **shown,
    }


def _state(status: AccountStatus) -> State:
    if status.removal is not None:
        return "removed" if status.removal.phase == "removed" else "being removed"
    return "unreadable" if status.record is None else "active"


def removal_json(found: Removal) -> dict[str, Any]:
    return {
        "calls": found.calls,
        "purge": found.purge,
        "phase": found.phase,
        "began": format_time(found.began_ms),
        "error": found.error,
        "total": found.total.counted(),
        "left": found.left.counted(),
    }


def entry_json(entry: AuditEntry) -> dict[str, Any]:
    return {
        "time": format_time(entry.at_ms),
        "who": entry.who,
        "via": entry.via,
        "action": entry.action,
        "auth_id": entry.auth_id,
        "details": entry.details,
    }
