"""The standard parameters."""

from __future__ import annotations

import pytest

from ari_conf.core import effects as do
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


CAUSES = [
    (1, "UNALLOCATED_NUMBER"), (16, "NORMAL_CLEARING"), (17, "USER_BUSY"), (18, "NO_USER_RESPONSE"), (19, "NO_ANSWER"),
    (20, "SUBSCRIBER_ABSENT"), (21, "CALL_REJECTED"), (27, "DESTINATION_OUT_OF_ORDER"), (28, "INVALID_NUMBER_FORMAT"),
    (31, "NORMAL_UNSPECIFIED"), (34, "NORMAL_CIRCUIT_CONGESTION"), (38, "NETWORK_OUT_OF_ORDER"),
    (41, "NORMAL_TEMPORARY_FAILURE"), (44, "MEDIA_TIMEOUT"), (58, "BEARERCAPABILITY_NOTAVAIL"),
    (88, "INCOMPATIBLE_DESTINATION"), (102, "RECOVERY_ON_TIMER_EXPIRE"), (127, "INTERWORKING"),
    (487, "ORIGINATOR_CANCEL"),
    # Any other.
    (2, "NORMAL_UNSPECIFIED"), (999, "NORMAL_UNSPECIFIED"),
    # Asterisk knows no cause yet, as often when a caller hangs up.
    (0, "NORMAL_CLEARING"),
]  # fmt: skip
"""Q.850 cause numbers, with Plivo's names for them."""


@pytest.mark.parametrize(("cause", "name"), CAUSES)
def test_the_hangup_cause(cause: int, name: str) -> None:
    stage = Stage(hangup_url="http://hangup.example/")
    stage.call("ann", Speak("a"))
    stage.asterisk.hang_up("ann", cause)
    stage.go_on()
    assert stage.hangup_request("ann")["HangupCause"] == name
