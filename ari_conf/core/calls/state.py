"""State of a call: the persisted fields, the values derived from them, and a cache that is not persisted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ari_conf.core.account import Account
from ari_conf.core.calls.gather import Gather
from ari_conf.core.effects import FetchDocument, Params, PostCallback, ReportProblem, SwitchOffs, Target
from ari_conf.core.elements import Conference, Element
from ari_conf.core.playback.player import Player
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.request_params import NORMAL, standard_params

Purpose = Literal["answer", "action", "redirect"]


class ConstantParamsCache:
    """Cache of values derived from a call: computed on first use, never persisted."""

    __slots__ = ("constant_params", "kept")
    constant_params: tuple[Params, Params] | None
    """Constant standard parameters, before and after CallStatus: see `request_params.standard_params`."""
    kept: tuple[object, object] | None
    """Elements of the call and their encoded form, for the code that persists the call."""

    def __post_init__(self) -> None:
        self.constant_params = self.kept = None

    def fill(self, before: Params, after: Params) -> tuple[Params, Params]:
        self.constant_params = before, after
        return self.constant_params


@dataclass(slots=True)
class CallState(ConstantParamsCache):
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
    """True if the caller's codec has a sample rate above 8 kHz."""
    answered_at: int | None = None
    ended_at: int | None = None
    """Epoch milliseconds of the end of the channel."""
    cause: int = 16
    """Q.850 cause, or `request_params.CANCELED`."""
    code: int = NORMAL
    """HangupCauseCode."""
    elements: tuple[Element, ...] = ()
    position: int = 0
    """Index of the next element."""
    early: int = 0
    """Index of the first element after PreAnswer's; those before it run without answering the call."""
    first: bool = True
    """True until an element of the call has run."""
    fetching: Purpose | None = None
    asked: FetchDocument | None = None
    """Pending request for a document; a server that takes over repeats it."""
    fallback_asked: bool = False
    running: Player | Gather | Conference | None = None
    conference_id: str | None = None
    """The conference that the running element has joined."""
    serial: int = 0
    """Number of fetches and players so far: part of their ids."""
    hang_up_at: int | None = None
    """Epoch milliseconds of the hangup that a Hangup element has scheduled."""
    hanging_up_until: int | None = None
    """Epoch milliseconds at which HangUp is repeated; None: no hangup is in progress."""
    hang_ups: int = 0
    """Number of HangUp requests so far."""
    paced_until: int = 0
    """Epoch milliseconds until which the documents so far last, at RAPID_DOCUMENT_MS each."""
    undone: SwitchOffs = ()
    """Effects that recently switched something off on the channel; a server that takes over repeats them."""
    on_hold: bool = False
    """True while the caller's phone has put the call on hold."""
    stream: int | None = None
    """SSRC of the phone's RTP stream, as last seen."""
    silence: bool = False
    """True if Asterisk was asked to send silence and may still be sending it."""

    # Derived values.

    @property
    def is_ending(self) -> bool:
        """Return True if the channel has hung up or a hangup is in progress."""
        return self.ended_at is not None or self.hanging_up_until is not None

    @property
    def in_conference(self) -> bool:
        return isinstance(self.running, Conference)

    @property
    def is_finished(self) -> bool:
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

    # Problems and callbacks.

    def problem(self, kind: ProblemKind, text: str, code: int | None = None) -> ReportProblem:
        return ReportProblem(self.auth_id, self.call_uuid, kind, code, text)

    def callback(self, url: str, method: str, event: str, params: Params) -> PostCallback:
        """Return a request with the standard parameters whose reply is ignored."""
        return PostCallback(self.call_uuid, self.auth_id, url, method, standard_params(self, event) + params)
