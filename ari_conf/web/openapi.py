"""OpenAPI description of the routes: parameters and responses, which are not in the handlers' signatures."""

from __future__ import annotations

from typing import Any

from fastapi.responses import Response
from pydantic import BaseModel

from ari_conf.web import models as m
from ari_conf.web.parameters import FORM


def openapi_body(model: type[BaseModel], *, needed: bool = False) -> dict[str, Any]:
    """Return the OpenAPI description of a body with the fields of `model`."""
    schema = model.model_json_schema()
    return {
        "requestBody": {
            "required": needed,
            "content": {kind: {"schema": schema} for kind in ("application/json", FORM)},
        }
    }


def openapi_query(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    required = schema.get("required", ())
    return {
        "parameters": [
            {"name": name, "in": "query", "required": name in required, "schema": kind}
            for name, kind in schema["properties"].items()
        ]
    }


def openapi_responses(
    status: int, model: Any, *, of_owner: bool = True, asynchronous: bool = True, may_be_forbidden: bool = False
) -> dict[str, Any]:
    """Return the status and replies of an API call, for OpenAPI."""
    refusals = [400, 401, 404, 429, 503] + ([409] if of_owner else []) + ([403] if may_be_forbidden else [])
    found: dict[int | str, Any] = {code: {"model": m.ErrorResponse} for code in refusals}
    if asynchronous:
        found[202] = {"model": m.ApiResponse, "description": "With callback_url: the result is sent there."}
    if status == 204:
        found[204] = {"description": "Done.", "content": None}
    else:
        found[status] = {"model": model if status != 202 else model | m.ApiResponse, "description": "Done."}
    return {"status_code": status, "responses": found, "response_class": Response}
