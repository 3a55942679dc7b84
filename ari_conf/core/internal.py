"""What calls and conferences tell each other: the directory delivers it within the step, none of it leaves the core."""

from __future__ import annotations

from typing import get_args

from ari_conf.core.effects import Effect, Params
from ari_conf.core.elements import Conference
from ari_conf.core.fact import fact


@fact
class Join:
    """The call has come to this element."""

    call_uuid: str
    element: Conference


@fact
class Admitted:
    """The conference takes the call: it is to be answered."""

    call_uuid: str


@fact
class Skipped:
    """The element does not run; nor does its action."""

    call_uuid: str
    problem: str | None


@fact
class Released:
    """The member's stay has ended: his call goes on, unless he has hung up."""

    call_uuid: str
    element: Conference
    params: Params
    """For the action: the conference's name and UUID, the member's id, the recording. Empty: he never entered."""


@fact
class HangUpCall:
    """The API wants it."""

    call_uuid: str


@fact
class Notify:
    """A callback of the conference's; the directory adds what is known of the call."""

    call_uuid: str
    conference_id: str
    element: Conference
    event: str
    params: Params


@fact
class Fetch:
    """A sound document; the directory adds what is known of the call."""

    call_uuid: str
    fetch_id: str
    url: str
    params: Params


@fact
class RecordingAsked:
    """The conference's recording begins for this call's element; the directory adds what is known of the call."""

    call_uuid: str
    conference_id: str


@fact
class Stayed:
    """He was in while it was recorded; the directory adds what is known of the call."""

    call_uuid: str
    recording_id: str
    member_id: int
    entered_ms: int
    left_ms: int | None


Internal = Join | Admitted | Skipped | Released | HangUpCall | Notify | Fetch | RecordingAsked | Stayed
INTERNALS = frozenset(get_args(Internal))
Out = list[Effect | Internal]
