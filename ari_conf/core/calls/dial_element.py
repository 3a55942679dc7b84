"""Dial: calls people on behalf of a call, and connects it with the first who answers.

The legs are calls of their own, which are placed like those of the API. Both legs meet in a conference that only they
know: the caller waits there and hears the dial music, and the leg that wins joins. When one of the two leaves, the
other one does: the caller's document continues, and the second leg is hung up.

Nothing is dialed before the dialing policy has admitted it: `AdmitDial` asks, and a process that takes over asks again.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from ari_conf.core.effects import AdmitDial, Params
from ari_conf.core.elements import Conference, Dial
from ari_conf.core.hangup_codes import (
    CANCELED_CAUSE,
    NORMAL_CAUSE,
    OUT_OF_ORDER_CAUSE,
    HangupSource,
    cause_name,
    code_name,
    source_of,
)
from ari_conf.core.placing import RINGBACK, CallOptions, CallToPlace, Confirmation
from ari_conf.core.request_params import bool_text

LegChange = Literal["ringing", "answered", "connected", "transferred", "ended"]
GRACE_MS = 180_000
"""Milliseconds beyond the ringing after which the legs are missed, if none has won or the last one has not ended: those
that still exist, such as one whose confirmation takes long, get as much time again. If none does, what became of them
was lost, and the document continues."""
DIAL_MEMBERS = 2
"""Members of the conference in which the caller and the second leg meet."""
EVENT_NAMES = {
    "answer": "DialAnswer",
    "connected": "DialConnected",
    "hangup": "DialHangup",
    "digits": "DialDigitsMatch",
}
"""Event of a callback by its DialAction."""


class DialRun(msgspec.Struct):
    """Running Dial element."""

    element: Dial
    dial_id: str
    """Id of the admission, and part of the conference's name."""
    legs: tuple[str, ...] = ()
    """UUIDs of the calls that have not ended."""
    is_admitted: bool = False
    """False while the dialing policy is asked."""
    rang: bool = False
    connected: str = ""
    """UUID of the leg that has won."""
    status: str = "failed"
    """DialStatus as far as it is known."""
    cause: str = ""
    """DialHangupCause: of the leg that has won, or of the last one that has ended."""
    last: str = ""
    """UUID of the leg that `status` and `cause` are about."""
    gives_up_at: int | None = None
    """Epoch milliseconds at which the legs are missed; None: one is connected, or none is placed yet."""

    def admission(self, auth_id: str, caller_ids: tuple[str, ...]) -> AdmitDial:
        element = self.element
        shown = (element.caller_id,) if element.caller_id is not None else caller_ids
        legs = tuple((uuid, number.to) for uuid, number in zip(self.legs, element.numbers, strict=True))
        return AdmitDial(self.dial_id, auth_id, legs, shown, element.caller_name or "", element.time_limit)

    def options_of(self, placed: CallToPlace, call_uuid: str) -> CallOptions:
        """Return how a leg is placed. `call_uuid`: the call whose element this is."""
        element = self.element
        number = element.numbers[self.legs.index(placed.call_uuid)]
        confirmation = None
        if element.confirm_key is not None:
            confirmation = Confirmation(
                element.confirm_key, element.confirm_sound, timeout_s=element.confirm_timeout, sound_method="POST"
            )
        return CallOptions(
            conference=self._room(call_uuid, digits_match=element.digits_match_b_leg),
            ring_timeout_s=element.timeout,
            time_limit_s=element.time_limit,
            send_digits=number.send_digits or None,
            headers=tuple(dict(element.sip_headers + number.sip_headers).items()),
            confirmation=confirmation,
            dial_music=element.dial_music or RINGBACK,
            parent_call_uuid=call_uuid,
        )

    def room(self, call_uuid: str) -> Conference:
        """Return the element with which the caller waits for the second leg, and talks to it."""
        element = self.element
        return self._room(call_uuid, digits_match=element.digits_match, hangup_on_star=element.hangup_on_star)

    def _room(self, call_uuid: str, *, digits_match: tuple[str, ...], hangup_on_star: bool = False) -> Conference:
        # The matches are told by the callbacks of the conference, from which those of the Dial are made.
        url = self.element.callback_url if digits_match else None
        return Conference(
            self.dial_id,
            call_uuid,
            hangup_on_star=hangup_on_star,
            callback_url=url,
            digits_match=digits_match,
        )

    def wait_for_legs(self, placed: tuple[CallToPlace, ...], now: int) -> None:
        """Begin to wait for the legs that the policy has admitted."""
        self.is_admitted = True
        self.legs = tuple(leg.call_uuid for leg in placed)
        delay_ms = max((leg.delay_ms for leg in placed), default=0)
        self.gives_up_at = now + delay_ms + self.element.timeout * 1000 + GRACE_MS

    def note_connected(self, leg_uuid: str) -> None:
        self.connected = self.last = leg_uuid
        self.status, self.gives_up_at = "completed", None

    def note_ended(self, leg_uuid: str, status: str, cause: int) -> None:
        """Note the end of a leg. The one that has won decides about the result; otherwise the last one does."""
        self.legs = tuple(uuid for uuid in self.legs if uuid != leg_uuid)
        if self.connected in ("", leg_uuid):
            self.last, self.cause = leg_uuid, cause_name(cause)
            # A person who answered and did not press the key is not reached either.
            self.status = "completed" if self.connected else "no-answer" if status == "completed" else status

    def note_left(self, *, by_caller: bool) -> None:
        """Note that the caller has left the conference: `by_caller`, because they have gone or do not want to wait any
        longer; otherwise because there is no conference, such as after an error of Asterisk's."""
        unconnected = ("cancel", CANCELED_CAUSE) if by_caller else ("failed", OUT_OF_ORDER_CAUSE)
        self.status, cause = ("completed", NORMAL_CAUSE) if self.connected else unconnected
        self.cause = cause_name(cause)

    def action_params(self, call_uuid: str) -> Params:
        return (
            ("DialStatus", self.status),
            ("DialRingStatus", bool_text(self.rang)),
            ("DialHangupCause", self.cause),
            ("DialALegUUID", call_uuid),
            ("DialBLegUUID", self.last),
        )


class Leg(Protocol):
    """Part of the second leg, a `Call`, that a callback is about."""

    call_uuid: str
    from_: str
    to: str
    started_at: int
    answered_at: int | None
    ended_at: int | None
    hangup_code: int
    hangup_source: HangupSource | None


def callback_params(action: str, call_uuid: str, leg: Leg, now: int, digits: Params = ()) -> Params:
    """Return the parameters of a callback of the element. `call_uuid`: the call whose element it is."""
    until = now if leg.ended_at is None else leg.ended_at
    billed_ms = 0 if leg.answered_at is None else max(0, until - leg.answered_at)
    params: Params = (
        ("DialAction", action),
        ("DialBLegStatus", action if action != "digits" else "connected"),
        ("DialALegUUID", call_uuid),
        ("DialBLegUUID", leg.call_uuid),
        ("DialBLegFrom", leg.from_.removeprefix("+")),
        ("DialBLegTo", leg.to.removeprefix("+")),
        ("DialBLegDuration", str(max(0, until - leg.started_at) // 1000)),
        # Seconds since the answer, rounded up.
        ("DialBLegBillDuration", str(-(-billed_ms // 1000))),
        *digits,
    )
    if action != "hangup":
        return params
    code = leg.hangup_code
    return (
        *params,
        ("DialBLegHangupCauseName", code_name(code)),
        ("DialBLegHangupCauseCode", str(code)),
        ("DialBLegHangupSource", leg.hangup_source or source_of(code)),
    )
