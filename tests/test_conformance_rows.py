"""Each parameter of the calls' API, of calling people into a conference and of the elements around it has its row."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from ari_conf.core import elements as el
from ari_conf.web.call_models import CallRequest, CallsQuery
from ari_conf.web.live_call_models import DtmfRequest, PlayToCallRequest, SpeakToCallRequest, TransferRequest
from ari_conf.web.member_call_models import MemberCallRequest
from ari_conf.web.models import ApiRequest, RecordCallRequest

TESTS = Path(__file__).parent / "integration"
LANGUAGE = {"transcription_language", "transcriptionLanguage"}
"""Not Plivo's. The engine takes it or not: tests of transcriptions."""
ASYNC = {"callback_url", "callback_method"}
"""Of every request: proven for Call/. Those of recordings have another meaning, and rows of their own."""


def names(marks: Iterable[str]) -> dict[str, set[str]]:
    """Return the parameters by what they belong to: "Call: from, to", or "Call Play, Call Speak: legs"."""
    found: dict[str, set[str]] = defaultdict(set)
    for mark in marks:
        owners, _, parameters = mark.partition(": ")
        for owner in owners.split(", "):
            found[owner] |= set(filter(None, parameters.split(", ")))
    return found


def marks() -> list[str]:
    """Return the first argument of each `pytest.mark.row`."""
    found = []
    for path in TESTS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.row":
                found.append(ast.literal_eval(node.args[0]))
    return found


ROWS = names(marks())


def parameters(model: type[ApiRequest]) -> set[str]:
    def name(field: str, info: FieldInfo) -> str:
        alias = info.validation_alias
        return str(alias.choices[0]) if isinstance(alias, AliasChoices) else info.alias or field

    return {name(field, info) for field, info in model.model_fields.items()}


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        ("Call", parameters(CallRequest)),
        ("Calls", parameters(CallsQuery) - ASYNC),
        ("Member", parameters(MemberCallRequest) - LANGUAGE),
        ("Transfer", parameters(TransferRequest) - ASYNC),
        ("Call Play", parameters(PlayToCallRequest) - ASYNC),
        ("Call Speak", parameters(SpeakToCallRequest) - ASYNC),
        ("Call DTMF", parameters(DtmfRequest) - ASYNC),
        ("Call Record", parameters(RecordCallRequest) - LANGUAGE),
        ("Dial", set(el.attribute_fields(el.Dial))),
        ("Number", set(el.attribute_fields(el.Number))),
        ("DTMF", set(el.attribute_fields(el.DTMF))),
        ("GetInput", set(el.attribute_fields(el.GetInput))),
        (
            "Record",
            set(el.attribute_fields(el.Record)) - LANGUAGE,
        ),
        ("Message", {"src", "dst", "type", "callbackUrl", "callbackMethod"}),
    ],
)
def test_each_parameter_has_a_row(owner: str, expected: set[str]) -> None:
    assert len(expected) > 0
    assert sorted(expected - ROWS[owner]) == []


def test_no_row_names_a_parameter_that_does_not_exist() -> None:
    """So a parameter that is renamed takes its row along."""
    assert names(["Call Play, Call Speak: legs, mix", "Record"]) == {
        "Call Play": {"legs", "mix"},
        "Call Speak": {"legs", "mix"},
        "Record": set(),
    }
    assert ROWS["Dial"] <= set(el.attribute_fields(el.Dial)) | {"User"}
    assert ROWS["Record"] <= set(el.attribute_fields(el.Record))
    assert ROWS["GetInput"] <= set(el.attribute_fields(el.GetInput))
