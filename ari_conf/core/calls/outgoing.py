"""Outgoing: what only a placed call has: the ways to reach its destination, and the times until it is answered.

A call that is placed is a `Call` like one that arrives; `Call.outgoing` is this part of it. Its channel is requested
first (`CreateChannel`), and dialed once Asterisk has it (`DialChannel`). Each decision is persisted before it is
carried out: a process that takes over finds what was dialed by the id of the channel, and dials nothing twice.
"""

from __future__ import annotations

import msgspec

from ari_conf.core import digit_sequence, ids
from ari_conf.core.calls.machine_detection import MachineDetection
from ari_conf.core.digit_sequence import DigitSequence
from ari_conf.core.effects import CreateChannel, DialChannel, Effect
from ari_conf.core.hangup_codes import LOGIN_STATUSES
from ari_conf.core.placing import CallOptions, CallToPlace, DialAttempt

__all__ = ["CallOptions", "CallToPlace", "DialAttempt", "Outgoing"]

ASTERISK_GRACE_S = 5
"""Seconds that Asterisk waits longer than the server, which cancels the call itself."""
UNCONFIRMED_MS = 5000
"""Milliseconds without any sign of the phone after which a channel counts as not dialed, if the process that was to
dial it no longer exists, or Asterisk did not answer."""
MAX_REDIALS = 2
"""Channels that replace another one of the same way because it was not dialed."""
CONGESTION_CAUSES = frozenset((3, 27, 34, 38, 41, 42, 102))
"""Q.850 causes of a way that is congested or out of order; the destination itself has not refused."""
NO_REPLY_STATUS = 408


class Outgoing(msgspec.Struct):
    options: CallOptions
    attempts: tuple[DialAttempt, ...]
    time_limit_s: int
    dial_at: int
    """Epoch milliseconds at which the call is dialed, unless it is canceled before."""
    attempt: int = 0
    """Index of the present way."""
    channels: int = 1
    """Number of channels requested so far, or about to be: the last one is the call's."""
    redials: int = 0
    was_dialed: bool = False
    """True once a channel was ordered to be dialed, whichever way it takes; False again if it turned out not to be."""
    created: bool = False
    """True once the channel exists, and is or was ordered to be dialed."""
    rings_until: int | None = None
    """Epoch milliseconds at which the call is canceled because of ring_timeout."""
    rang_at: int | None = None
    """Epoch milliseconds of the first sign that the phone rings."""
    unconfirmed_until: int | None = None
    """Epoch milliseconds at which the channel counts as not dialed."""
    ends_at: int | None = None
    """Epoch milliseconds of the time limit."""
    digits: DigitSequence | None = None
    """Digits of send_digits that are to be sent."""
    codec_known: bool = False
    rivals: tuple[str, ...] = ()
    """UUIDs of the calls of the same request that this one competes with, until one of them has won."""
    first_leg: str = ""
    """UUID of the call whose Dial element placed this one: it is told what becomes of it. Empty: none."""
    is_confirming: bool = False
    """True while the key of the confirmation is asked for."""
    machine: MachineDetection | None = None
    """Detection of an answering machine, from the answer on. None: the request did not ask for it."""

    @classmethod
    def of(cls, placed: CallToPlace, options: CallOptions, dial_at: int) -> Outgoing:
        limits = [limit for limit in (options.time_limit_s, placed.time_limit_s) if limit is not None]
        digits = digit_sequence.parse(options.send_digits) if options.send_digits else None
        return cls(options, placed.attempts, min(limits), dial_at, digits=digits)

    # Derived values.

    @property
    def present(self) -> DialAttempt:
        return self.attempts[self.attempt]

    @property
    def deadline(self) -> int | None:
        """Epoch milliseconds of the earliest timer of a call that is dialed or answered."""
        digits_at = self.digits.next_at if self.digits is not None else None
        machine_at = self.machine.deadline if self.machine is not None else None
        times = (self.rings_until, self.stops_ringing_at, self.unconfirmed_until, self.ends_at, digits_at, machine_at)
        return min([at for at in times if at is not None], default=None)

    @property
    def lives_until(self) -> int:
        """Epoch milliseconds at which the call ends at the latest, if it is not answered before."""
        return self.ends_at or self.rings_until or self.dial_at + self.options.ring_timeout_s * 1000

    @property
    def stops_ringing_at(self) -> int | None:
        """Epoch milliseconds at which the call is canceled because of hangup_on_ring."""
        seconds, is_waiting = self.options.hangup_on_ring_s, self.rings_until is not None
        return (
            self.rang_at + seconds * 1000 if is_waiting and seconds is not None and self.rang_at is not None else None
        )

    @property
    def holds_document(self) -> bool:
        """Return True while the document has to wait until it is known who has answered."""
        return self.machine is not None and self.machine.holds_document

    @property
    def is_machine(self) -> bool:
        """Return True if an answering machine has answered."""
        return self.machine is not None and self.machine.is_machine

    def may_try_next(self, cause: int, sip_status: int) -> bool:
        """Return whether the next way is to be tried: this one is congested or refuses the login, and the phone has not
        rung."""
        if self.rang_at is not None or self.attempt + 1 >= len(self.attempts):
            return False
        if sip_status:
            return 500 <= sip_status < 600 or sip_status == NO_REPLY_STATUS or sip_status in LOGIN_STATUSES
        return cause in CONGESTION_CAUSES

    # Steps.

    def start(self, now: int) -> None:
        """Start the time for which the phone may ring, whichever way is taken."""
        self.rings_until, self.was_dialed = now + self.options.ring_timeout_s * 1000, False

    def channel_request(self, call_uuid: str, from_: str, caller_name: str, not_after: int = 0) -> CreateChannel:
        """Return the request for the channel of the present way."""
        channel_id = ids.channel_id(call_uuid, self.channels)
        headers = self.options.headers
        return CreateChannel(channel_id, self.present.endpoint, from_, caller_name, headers, not_after)

    def dial(self, channel_id: str, now: int) -> DialChannel:
        """Dial the channel, which Asterisk has."""
        if not self.was_dialed:
            # A crash may have taken a part of the time.
            self.start(now)
        self.created = self.was_dialed = True
        left_ms = max(0, (self.rings_until or now) - now)
        return DialChannel(channel_id, -(-left_ms // 1000) + ASTERISK_GRACE_S)

    def dial_again(self, channel_id: str) -> DialChannel:
        """Dial the channel unless the process that no longer exists has."""
        return DialChannel(channel_id, self.options.ring_timeout_s + ASTERISK_GRACE_S, repeated=True)

    def next_channel(self, call_uuid: str, *, same_way: bool) -> str:
        """Give up the channel, and return the id of the one that takes its place."""
        self.channels += 1
        self.created, self.unconfirmed_until = False, None
        if same_way:
            self.redials += 1
            self.was_dialed = False
        else:
            self.attempt, self.redials = self.attempt + 1, 0
        return ids.channel_id(call_uuid, self.channels)

    def wait_for_sign(self, now: int) -> None:
        """Wait for a sign of the phone, for which there is time: without one, the channel was not dialed."""
        self.unconfirmed_until = now + UNCONFIRMED_MS
        self.rings_until = max(self.rings_until or now, self.unconfirmed_until + 1)

    def answered(self, now: int) -> None:
        self.rings_until = self.unconfirmed_until = None
        self.ends_at = now + self.time_limit_s * 1000

    def detect_machine(self, channel_id: str, call_uuid: str, now: int) -> list[Effect]:
        """Begin to find out who has answered, if the request asks for it."""
        if self.options.machine_detection is None:
            return []
        self.machine = MachineDetection(self.options.machine_detection, channel_id, call_uuid, now)
        return self.machine.start()

    def send_digits(self, channel_id: str, now: int) -> list[Effect]:
        """Begin to send the digits, or continue; nothing if all of them are sent."""
        if self.digits is None:
            return []
        out = self.digits.start(channel_id, now)
        if self.digits.next_at is None:
            self.digits = None
        return out
