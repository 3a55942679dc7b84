"""Routes for administrators: trunks, and how a number would be routed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from ari_conf.administration import trunk_management
from ari_conf.administration.trunk_management import RouteExplanation
from ari_conf.dialing import trunks
from ari_conf.dialing.trunk_store import ConfiguredTrunk
from ari_conf.web import models as m
from ari_conf.web.admin_auth import Admin, CurrentAdmin
from ari_conf.web.errors import ApiError
from ari_conf.web.execution import JsonResponse
from ari_conf.web.middleware import decode_path_part
from ari_conf.web.openapi import openapi_body, openapi_query, openapi_responses
from ari_conf.web.parameters import params_dependency

ALL = "/v1/Trunk/"
ONE = "/v1/Trunk/{name}/"
ROUTE = "/v1/Route/"
MAX_CHARACTERS = 400

router = APIRouter()


class _Strict(BaseModel):
    """Parameters of which none is ignored: a misspelled one would leave a trunk as it is."""

    model_config = ConfigDict(extra="forbid")


Texts = Annotated[
    list[str] | str | None, Field(description="A list, or a text with commas. Not given or null: unchanged, or empty.")
]
Limit = Annotated[int | None, Field(ge=0, le=trunks.MAX_CALLS, description="0: no limit.")]


class TrunkChange(_Strict):
    dial: Annotated[str | None, Field(description="Such as PJSIP/{number}@provider.")] = None
    prefixes: Texts = None
    caller_ids: Texts = None
    hosts: Texts = None
    calls: Limit = None
    per_second: Limit = None
    priority: Annotated[int | None, Field(ge=0, le=trunks.MAX_PRIORITY)] = None
    enabled: bool | None = None

    def given(self) -> dict[str, Any]:
        return {name: value for name in trunks.FIELDS if (value := getattr(self, name)) is not None}


class NewTrunk(TrunkChange):
    name: Annotated[str, Field(description="1 to 40 letters, digits, _ or -.")]


class RouteParams(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    auth_id: Annotated[str, Field(max_length=40, description="The account that calls.")]
    to: Annotated[str, Field(max_length=MAX_CHARACTERS, description="Number or SIP URI.")]
    from_: Annotated[
        str | None,
        Field(alias="from", max_length=MAX_CHARACTERS, description="If not given, the first number that it may show."),
    ] = None


class NoParams(_Strict):
    pass


class TrunkModel(BaseModel):
    name: str
    dial: str
    prefixes: list[str]
    caller_ids: list[str]
    hosts: list[str]
    calls: int
    per_second: int
    priority: int
    enabled: bool
    in_settings: bool
    """True if it is in the settings, and can't be changed here."""


class TrunkList(m.ApiResponse):
    objects: list[TrunkModel]


class TrunkResponse(m.ApiResponse):
    trunk: TrunkModel


class VerdictModel(BaseModel):
    trunk: str
    prefix: str
    refusal: str
    """Reason why the trunk is not used; empty if it can be."""


class RouteResponse(m.ApiResponse):
    destination: str
    category: str
    caller_id: str
    reason: str | None
    """Reason of the refusal; null if the call would be placed."""
    refusal: str | None
    trunks: list[VerdictModel]
    dialed: list[str]


def trunk_name(name: Annotated[str, Path(description="The trunk.", min_length=1)]) -> str:
    return decode_path_part(name)


Name = Annotated[str, Depends(trunk_name)]


def _reply(status: int, model: type[BaseModel] | None, *, may_conflict: bool = False) -> dict[str, Any]:
    return openapi_responses(status, model, of_owner=may_conflict, asynchronous=False)


@router.get(ALL, **_reply(200, TrunkList), openapi_extra=openapi_query(NoParams))
async def list_trunks(admin: CurrentAdmin) -> Response:
    """List all trunks: those of the settings, then the others by name."""
    found = await admin.run(trunk_management.list_all, _of_settings(admin))
    return JsonResponse({"api_id": admin.api_id, "objects": [trunk_json(one) for one in found]})


@router.post(ALL, **_reply(201, TrunkResponse, may_conflict=True), openapi_extra=openapi_body(NewTrunk, needed=True))
async def create_trunk(
    admin: CurrentAdmin, body: Annotated[NewTrunk, Depends(params_dependency(NewTrunk))]
) -> Response:
    """Create a trunk. Calls are placed over it as soon as an account may call a number that it is for."""
    if body.dial is None:
        raise ApiError(400, "dial is required")
    made = await admin.run(trunk_management.create, _of_settings(admin), admin.actor, body.name, body.given())
    return _trunk_response(admin, 201, ConfiguredTrunk(made, is_setting=False))


@router.get(ONE, **_reply(200, TrunkResponse), openapi_extra=openapi_query(NoParams))
async def get_trunk(admin: CurrentAdmin, name: Name) -> Response:
    """Return a trunk."""
    return _trunk_response(admin, 200, await admin.run(trunk_management.get, _of_settings(admin), name))


@router.patch(ONE, **_reply(200, TrunkResponse, may_conflict=True), openapi_extra=openapi_body(TrunkChange))
@router.post(ONE, include_in_schema=False)  # some clients have no PATCH
async def change_trunk(
    admin: CurrentAdmin, name: Name, body: Annotated[TrunkChange, Depends(params_dependency(TrunkChange))]
) -> Response:
    """Change fields of a trunk. Calls that are placed from now on use them."""
    if not (fields := body.given()):
        raise ApiError(400, "nothing to change: give a field of the trunk")
    changed = await admin.run(trunk_management.change, _of_settings(admin), admin.actor, name, fields)
    return _trunk_response(admin, 200, ConfiguredTrunk(changed, is_setting=False))


@router.delete(ONE, **_reply(204, None, may_conflict=True))
async def remove_trunk(admin: CurrentAdmin, name: Name) -> Response:
    """Remove a trunk: no call is placed over it from now on, and its live calls continue."""
    await admin.run(trunk_management.remove, _of_settings(admin), admin.actor, name)
    return Response(status_code=204)


@router.get(ROUTE, **_reply(200, RouteResponse), openapi_extra=openapi_query(RouteParams))
async def explain_route(
    admin: CurrentAdmin, query: Annotated[RouteParams, Depends(params_dependency(RouteParams))]
) -> Response:
    """Return how a number would be dialed for an account, or why it would be refused. Nothing is dialed."""
    country = admin.resources.settings.default_country
    found = await admin.run(
        trunk_management.explain_route, _of_settings(admin), query.auth_id, query.to, query.from_, country
    )
    return JsonResponse({"api_id": admin.api_id, **_route_json(found)})


def _of_settings(admin: Admin) -> tuple[trunks.Trunk, ...]:
    return admin.resources.admission.trunks_of_settings


def _trunk_response(admin: Admin, status: int, one: ConfiguredTrunk) -> Response:
    return JsonResponse({"api_id": admin.api_id, "trunk": trunk_json(one)}, status)


def trunk_json(one: ConfiguredTrunk) -> dict[str, Any]:
    fields = {name: getattr(one.trunk, name) for name in ("name", *trunks.FIELDS)}
    return {**fields, "in_settings": one.is_setting}


def _route_json(found: RouteExplanation) -> dict[str, Any]:
    verdicts = [{"trunk": one.trunk.name, "prefix": one.prefix, "refusal": one.refusal} for one in found.verdicts]
    return {
        "destination": found.destination,
        "category": found.category,
        "caller_id": found.caller_id,
        "reason": found.denial.reason.value if found.denial is not None else None,
        "refusal": found.denial.text if found.denial is not None else None,
        "trunks": verdicts,
        "dialed": list(found.dialed),
    }
