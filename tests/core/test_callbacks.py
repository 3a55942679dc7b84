"""The standard parameters."""

from __future__ import annotations

import pytest

from ari_conf.core import effects as do
from ari_conf.core.callbacks import CAUSES
from ari_conf.core.elements import Speak, Wait
from tests.core.stage import Stage, stay


def first_request(stage: Stage) -> dict[str, str]:
    return dict(stage.all(do.FetchDocument)[0].params)


def test_the_standard_parameters(stage: Stage) -> None:
    stage.call("ann", Wait(1), caller_name="Ann O'Nym", direction="outbound")
    assert first_request(stage) == {
        "CallUUID": "call-ann",
        "From": "4930123",
        "To": "100",
        "Direction": "outbound",
        "CallStatus": "ringing",
        "CallerName": "Ann O'Nym",
        "SessionStart": "2023-11-14 22:13:20.000000",
        "ParentAuthID": "A",
        "RequestUUID": "request-ann",
        "Event": "StartApp",
        "X-PH-Team": "blue",
    }


def test_only_the_leading_plus_is_stripped(stage: Stage) -> None:
    """ "A leading + is stripped from From and To." """
    stage.call("ann", Wait(1))
    assert first_request(stage)["From"] == "4930123"


def test_the_call_status(stage: Stage) -> None:
    """ "CallStatus (ringing, in-progress, completed)" """
    stage.call("ann", stay())
    stage.hang_up("ann")
    assert first_request(stage)["CallStatus"] == "ringing"
    assert [c["CallStatus"] for c in stage.callbacks()] == ["in-progress", "completed"]


def test_a_call_that_is_up_already(stage: Stage) -> None:
    stage.call("ann", Speak("a"), answered=True)
    assert first_request(stage)["CallStatus"] == "in-progress"


@pytest.mark.parametrize("cause", [*CAUSES, 0, 999])
def test_the_hangup_cause(cause: int) -> None:
    stage = Stage(hangup_url="http://hangup.example/")
    stage.call("ann", Speak("a"))
    stage.asterisk.hang_up("ann", cause)
    stage.go_on()
    # 0: Asterisk knows none yet, as often when a caller hangs up.
    assert stage.hangup_request("ann")["HangupCause"] == CAUSES.get(cause or 16, "NORMAL_UNSPECIFIED")
