"""What a call is: the fields that are written, what follows from them, and what is kept beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ari_conf.core.account import Account
from ari_conf.core.callbacks import NORMAL, standard
from ari_conf.core.effects import FetchDocument, Params, PostCallback, ReportProblem, Target, Undone
from ari_conf.core.elements import Conference, Element
from ari_conf.core.gather import Gather
from ari_conf.core.player import Player

Purpose = Literal["answer", "action", "redirect"]


class Standing:
    """Beside what a call is, and so not written with it: made when it is first wanted."""

    __slots__ = ("kept", "standing")
    standing: tuple[Params, Params] | None
    """Of the standard parameters: see `callbacks.standard`."""
    kept: tuple[object, object] | None
    """Of the part that writes it down: its elements, and their text."""

    def __post_init__(self) -> None:
        self.standing = self.kept = None

    def stand(self, before: Params, after: Params) -> tuple[Params, Params]:
        self.standing = before, after
        return self.standing


@dataclass(slots=True)
class CallState(Standing):
    call_uuid: str
    request_uuid: str
    channel_id: str
    auth_id: str
    from_: str
    to: str
    caller_name: str
    direction: str
    started_at: int
    document: str | None = None
    document_method: str = "POST"
    account: Account | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """The INVITE's X-PH-* headers."""
    wideband: bool = False
    """His codec carries more than 8 kHz sampled."""
    answered_at: int | None = None
    ended_at: int | None = None
    """When the channel was gone."""
    cause: int = 16
    """Q.850."""
    code: int = NORMAL
    """HangupCauseCode."""
    elements: tuple[Element, ...] = ()
    position: int = 0
    """Of the next element."""
    early: int = 0
    """The elements before this position are PreAnswer's: they run without answering."""
    first: bool = True
    """No element of the call has run yet."""
    fetching: Purpose | None = None
    asked: FetchDocument | None = None
    """The latest request for a document: made again if who made it has died."""
    fallback_asked: bool = False
    running: Player | Gather | Conference | None = None
    conference_id: str | None = None
    """The conference that the running element has joined."""
    serial: int = 0
    """Fetches and players so far: part of their ids."""
    hang_up_at: int | None = None
    """Hangup schedule."""
    hanging_up_until: int | None = None
    """Asterisk was asked to hang up: when it is asked again."""
    hang_ups: int = 0
    """How often Asterisk was asked to."""
    paced_until: int = 0
    """Until when the documents so far last, at HOP_MS each."""
    undone: Undone = ()
    """Of the channel."""
    on_hold: bool = False
    """The phone has put us on hold."""
    stream: int | None = None
    """The SSRC of what the phone sends, as it was last seen."""
    silence: bool = False
    """Asterisk was asked to send silence, and may still do so."""

    # What is derived.

    @property
    def over(self) -> bool:
        """Hung up, by whomever, or about to be."""
        return self.ended_at is not None or self.hanging_up_until is not None

    @property
    def in_conference(self) -> bool:
        return isinstance(self.running, Conference)

    @property
    def done(self) -> bool:
        return self.ended_at is not None and not self.in_conference

    @property
    def target(self) -> Target:
        return Target("channel", self.channel_id)

    @property
    def deadline(self) -> int | None:
        running = self.running
        soonest = None if running is None or isinstance(running, Conference) else running.deadline
        if self.hang_up_at is None and self.hanging_up_until is None:
            return soonest
        times = (soonest, self.hang_up_at, self.hanging_up_until)
        return min([t for t in times if t is not None], default=None)

    # What is said of it.

    def problem(self, text: str, code: int | None = None) -> ReportProblem:
        return ReportProblem(self.auth_id, self.call_uuid, code, text)

    def post(self, url: str, method: str, event: str, params: Params) -> PostCallback:
        """A request whose reply is of no interest, with the standard parameters."""
        return PostCallback(self.call_uuid, self.auth_id, url, method, standard(self, event) + params)
