"""How a call ends."""

from __future__ import annotations

from typing import Literal

from ari_conf.core.call_state import CallState
from ari_conf.core.callbacks import CANCELED, CANCELED_CODE, NO_MEDIA, NO_MEDIA_CODE, NORMAL, plausible
from ari_conf.core.effects import Answer, HangUp, StopPreparing
from ari_conf.core.gather import Gather
from ari_conf.core.internal import Out
from ari_conf.core.patience import again_ms
from ari_conf.core.player import Player

HANGUP_CAUSES = {"normal": 16, "busy": 17, "rejected": 21}
"""Q.850, by the reason that ARI is given."""
HANG_UPS_TOLD = 3
"""Asterisk says at once that a channel is gone, and is asked again until it does; after so many times that is told."""


class HangingUp(CallState):
    __slots__ = ()

    def hang_up(self, reason: Literal["normal", "busy", "rejected"], code: int, now: int) -> Out:
        if self.over:
            return []
        self.code, self.hanging_up_until, self.hang_up_at = code, now + again_ms(0), None
        self.hang_ups = 1
        self.cause = HANGUP_CAUSES[reason]
        return [*self._stop_running(), HangUp(self.channel_id, reason), StopPreparing(self.call_uuid)]

    def give_up(self, why: str, now: int) -> Out:
        """It is ended, whatever it is like inside; its hangup URL is told when the channel is gone."""
        self.elements, self.position, self.early, self.undone = (), 0, 0, ()
        self.running = self.conference_id = self.fetching = self.asked = self.hang_up_at = None
        if not plausible(self.started_at, self.answered_at):
            self.started_at, self.answered_at, self.standing = now, None, None
        if self.ended_at is not None:
            return [self.problem(why), *self._finished(now)]
        again = [HangUp(self.channel_id)] if self.over else []
        return [self.problem(why), *again, *self.hang_up("normal", NORMAL, now)]

    def _stop_running(self) -> Out:
        running = self.running
        if isinstance(running, Player | Gather):
            self.running = None
            return [*running.stop()]
        return []

    def _not_obeyed(self, effect: HangUp | Answer, reason: str, gone: bool, now: int) -> Out:
        if gone:
            return self._hung_up(self.cause, now)
        # One that could not be hung up is tried again in a while: it must not stay in Asterisk without us.
        return [] if self.over else [self.problem(reason), *self.hang_up("normal", NORMAL, now)]

    def _hang_up_again(self, now: int) -> Out:
        """Until it is known to be gone: nobody else would ever end it."""
        self.hanging_up_until = now + again_ms(self.hang_ups)
        self.hang_ups += 1
        told: Out = []
        if self.hang_ups == HANG_UPS_TOLD:
            told.append(self.problem("Asterisk does not hang the call up, and is asked again until it does"))
        return [*told, HangUp(self.channel_id)]

    def _hung_up(self, cause: int, now: int) -> Out:
        if self.ended_at is not None:
            return []
        out: Out = [] if self.over else [StopPreparing(self.call_uuid)]
        # Asterisk often knows none yet: then it is ours, or of a caller who hung up, a normal one.
        if not self.over and cause == CANCELED:
            # Also if the answer was on its way: it came too late.
            self.code, self.answered_at = CANCELED_CODE, None
        elif not self.over and cause == NO_MEDIA:
            self.code = NO_MEDIA_CODE
        self.ended_at, self.cause = now, self.cause if self.over and cause == CANCELED else cause or self.cause
        self.hang_up_at = self.hanging_up_until = None
        self.fetching = None
        self._stop_running()
        return out if self.in_conference else out + self._finished(now)

    def _finished(self, now: int) -> Out:
        """hangup_url "is told at a call's end"."""
        account = self.account
        if self.ended_at is None or account is None or account.hangup_url is None:
            return []
        return [self.post(account.hangup_url, account.hangup_method, "Hangup", ())]
