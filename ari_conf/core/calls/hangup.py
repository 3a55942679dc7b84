"""Hangup handling: ends a call, and repeats HangUp until Asterisk confirms it."""

from __future__ import annotations

from typing import Literal

from ari_conf.core.backoff import again_ms
from ari_conf.core.calls.gather import Gather
from ari_conf.core.calls.state import CallState
from ari_conf.core.effects import Answer, HangUp, StopPreparing
from ari_conf.core.messages import Outputs
from ari_conf.core.playback.player import Player
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.core.request_params import CANCELED, CANCELED_CODE, NO_MEDIA, NO_MEDIA_CODE, NORMAL, plausible

HANGUP_CAUSES = {"normal": 16, "busy": 17, "rejected": 21}
"""Q.850 causes by the reason that ARI receives."""
HANG_UPS_TOLD = 3
"""Number of HangUp requests after which a problem is reported. Asterisk normally confirms the first one immediately."""


class HangupHandling(CallState):
    __slots__ = ()

    def hang_up(self, reason: Literal["normal", "busy", "rejected"], code: int, now: int) -> Outputs:
        if self.is_ending:
            return []
        self.code, self.hanging_up_until, self.hang_up_at = code, now + again_ms(0), None
        self.hang_ups = 1
        self.cause = HANGUP_CAUSES[reason]
        return [*self._stop_running(), HangUp(self.channel_id, reason), StopPreparing(self.call_uuid)]

    def give_up(self, why: str, now: int) -> Outputs:
        """End the call in whatever state it is. The hangup URL gets its callback when the channel no longer exists."""
        self.elements, self.position, self.early, self.undone = (), 0, 0, ()
        self.running = self.conference_id = self.fetching = self.asked = self.hang_up_at = None
        if not plausible(self.started_at, self.answered_at):
            self.started_at, self.answered_at, self.constant_params = now, None, None
        if self.ended_at is not None:
            return [self.problem(ProblemKind.CALL_ENDED_BY_ERROR, why), *self._hangup_callback(now)]
        again = [HangUp(self.channel_id)] if self.is_ending else []
        ended = self.hang_up("normal", NORMAL, now)
        return [self.problem(ProblemKind.CALL_ENDED_BY_ERROR, why), *again, *ended]

    def _stop_running(self) -> Outputs:
        running = self.running
        if isinstance(running, Player | Gather):
            self.running = None
            return [*running.stop()]
        return []

    def _on_effect_failed(self, effect: HangUp | Answer, reason: str, gone: bool, now: int) -> Outputs:
        if gone:
            return self._on_hung_up(self.cause, now)
        # A failed HangUp is repeated at its deadline, so that the channel is not left behind in Asterisk.
        if self.is_ending:
            return []
        return [self.problem(ProblemKind.ASTERISK_FAILED, reason), *self.hang_up("normal", NORMAL, now)]

    def _retry_hangup(self, now: int) -> Outputs:
        """Repeat HangUp until Asterisk reports that the channel no longer exists: nothing else would ever end it."""
        self.hanging_up_until = now + again_ms(self.hang_ups)
        self.hang_ups += 1
        told: Outputs = []
        if self.hang_ups == HANG_UPS_TOLD:
            text = "Asterisk does not hang up the call: the request is repeated until it does"
            told.append(self.problem(ProblemKind.ASTERISK_FAILED, text))
        return [*told, HangUp(self.channel_id)]

    def _on_hung_up(self, cause: int, now: int) -> Outputs:
        if self.ended_at is not None:
            return []
        out: Outputs = [] if self.is_ending else [StopPreparing(self.call_uuid)]
        # Asterisk often reports no cause (0): then that of the server's HangUp counts, or 16 if the caller hung up.
        if not self.is_ending and cause == CANCELED:
            # This includes an answer that was on its way: it came too late.
            self.code, self.answered_at = CANCELED_CODE, None
        elif not self.is_ending and cause == NO_MEDIA:
            self.code = NO_MEDIA_CODE
        self.ended_at, self.cause = now, self.cause if self.is_ending and cause == CANCELED else cause or self.cause
        self.hang_up_at = self.hanging_up_until = None
        self.fetching = None
        self._stop_running()
        return out if self.in_conference else out + self._hangup_callback(now)

    def _hangup_callback(self, now: int) -> Outputs:
        """Return the callback to the hangup URL if the call has ended."""
        account = self.account
        if self.ended_at is None or account is None or account.hangup_url is None:
            return []
        return [self.callback(account.hangup_url, account.hangup_method, "Hangup", ())]
