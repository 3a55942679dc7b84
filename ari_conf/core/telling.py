"""Within a step: what calls and conferences tell each other is delivered, until only effects are left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, get_args

from ari_conf.core.account import Account
from ari_conf.core.bounds import MOST_UNDONE
from ari_conf.core.call import Call
from ari_conf.core.callbacks import NORMAL, standard
from ari_conf.core.conference import Conference
from ari_conf.core.directory_state import DirectoryState
from ari_conf.core.effects import Effect, FetchSounds, NoteStay, PostCallback, SendSilence, Undoing
from ari_conf.core.insisting import lane_of
from ari_conf.core.internal import (
    INTERNALS,
    Admitted,
    Fetch,
    HangUpCall,
    Internal,
    Join,
    Notify,
    Out,
    RecordingAsked,
    Released,
    Skipped,
    Stayed,
)
from ari_conf.core.member import Member

UNDOING = frozenset(get_args(Undoing))
UNDONE_MS = 30_000
"""By then Asterisk has done it, or never will."""


class Telling(DirectoryState):
    __slots__ = ()

    def _settle(self, out: Out, now: int) -> list[Effect]:
        """Delivers what calls and conferences tell each other until only effects are left, in their order.

        A call goes on only when all that the conference had to say is said: it may come back to it at once, and what
        it then does must not come before what was decided earlier.
        """
        effects = self._effects_of(out, now) if out else []
        self._decided = effects
        for effect in effects:
            if type(effect) in UNDOING:
                self._remember(effect, now)  # type: ignore[arg-type]
        for key in self._touched:
            self._bookkeep(key)
        self._decided = None
        return effects

    def _effects_of(self, out: Out, now: int) -> list[Effect]:
        for item in out:
            if type(item) in INTERNALS:
                break
        else:
            return cast("list[Effect]", out)
        effects: list[Effect] = []
        going_on: list[Internal] = []
        self._deliver(out, effects, going_on, now)
        for waiting in going_on:
            # Meanwhile there may be more of them.
            self._deliver(TELLS[type(waiting)](self, waiting, now), effects, going_on, now)
        return effects

    def _deliver(self, out: Out, effects: list[Effect], going_on: list[Internal], now: int) -> None:
        for item in out:
            kind = type(item)
            if kind not in INTERNALS:
                effects.append(item)  # type: ignore[arg-type]
            elif kind is Notify:
                # The most frequent, and nothing else follows from it.
                effects.append(self._callback(item))  # type: ignore[arg-type]
            elif kind is Released or kind is Skipped:
                going_on.append(item)  # type: ignore[arg-type]
            else:
                self._deliver(TELLS[kind](self, item, now), effects, going_on, now)

    def _remember(self, effect: Undoing, now: int) -> None:
        """What is no longer to be leaves no other trace in the state: after a crash it may be there as yet."""
        if any(getattr(effect, name, None) for name in ("muted", "deaf", "silence", "silence_ms")):
            return
        where = lane_of(effect)
        conference = self.conferences.get(where)
        call = self.calls.get(self._channels.get(where, "")) if conference is None else None
        owner = conference or call
        if owner is not None:
            recent = [u for u in owner.undone if u[0] > now - UNDONE_MS and u[1] != effect]
            owner.undone = (*recent[1 - MOST_UNDONE :], (now, effect))
            self._touched.add(call.call_uuid if call else where)

    # What they tell each other.

    def _fetch(self, fetch: Fetch, now: int) -> Out:
        call = self.calls[fetch.call_uuid]
        params = standard(call, "ConferenceRemoteSounds") + fetch.params
        return [FetchSounds(fetch.fetch_id, call.auth_id, fetch.url, params)]

    def _recording_asked(self, asked: RecordingAsked, now: int) -> Out:
        params = standard(self.calls[asked.call_uuid], "ConferenceRecord")
        self.conferences[asked.conference_id].recording_params(params)
        return []

    def _stayed(self, stayed: Stayed, now: int) -> Out:
        call = self.calls[stayed.call_uuid]
        numbers = call.from_.removeprefix("+"), call.to.removeprefix("+")
        who = (stayed.recording_id, stayed.member_id, stayed.call_uuid, *numbers)
        return [NoteStay(*who, stayed.entered_ms, stayed.left_ms)]

    def _admitted(self, admitted: Admitted, now: int) -> Out:
        return self._changed(admitted.call_uuid).admitted(now)

    def _skipped(self, skipped: Skipped, now: int) -> Out:
        call = self._changed(skipped.call_uuid)
        return ([call.problem(skipped.problem)] if skipped.problem else []) + call.skipped(now)

    def _released(self, released: Released, now: int) -> Out:
        return self._changed(released.call_uuid).released(released, now)

    def _hang_up(self, wanted: HangUpCall, now: int) -> Out:
        return self._changed(wanted.call_uuid).hang_up("normal", NORMAL, now)

    def _changed(self, call_uuid: str) -> Call:
        self._touched.add(call_uuid)
        return self.calls[call_uuid]

    def _callback(self, notify: Notify) -> PostCallback:
        call, element = self.calls[notify.call_uuid], notify.element
        whole = standard(call, notify.event) + notify.params
        url = element.callback_url or ""
        return PostCallback(notify.conference_id, call.auth_id, url, element.callback_method, whole)

    def _join(self, join: Join, now: int) -> Out:
        call = self.calls[join.call_uuid]
        conference = self.conferences.get(self._names.get((call.auth_id, join.element.name), ""))
        account = call.account or Account(call.auth_id)
        refused = account.refused_members(join.element.max_members)
        out: Out = [call.problem(refused)] if refused else []
        # "One that is ending is not live: a caller who arrives then gets a new one, with a new UUID."
        if conference is None or conference.ending:
            conference = Conference(
                self.new_id(),
                call.auth_id,
                join.element.name,
                now,
                account.most_members(join.element.max_members),
                self.public_url,
            )
            self._touched.add(conference.conference_id)
            self.conferences[conference.conference_id] = conference
            self._names[call.auth_id, conference.name] = conference.conference_id
            until = self._watched.get(call.auth_id, now)
            conference.watched_until = until if until > now else None
            out += conference.create()
        elif conference.full or conference.locked:
            # Locked (decided): as when it is full.
            # "Full (maxMembers)? The element and its action are skipped; the next element runs. No callback."
            return [*out, Skipped(call.call_uuid, None)]
        self._touched.update((conference.conference_id, call.call_uuid))
        call.conference_id = conference.conference_id
        recording_id = self.new_id() if join.element.record else ""
        member_id = self.next_member_id
        self.next_member_id += 1
        member = Member.of(
            member_id,
            conference.conference_id,
            call.auth_id,
            call.call_uuid,
            call.channel_id,
            join.element,
            recording_id,
        )
        member.wideband, member.on_hold = call.wideband, call.on_hold
        if call.silence:
            call.silence = False
            out.append(SendSilence(call.channel_id, False))
        return out + conference.join(member, now)


TELLS: dict[type, Callable[[Telling, Any, int], Out]] = {
    Join: Telling._join,
    Admitted: Telling._admitted,
    Skipped: Telling._skipped,
    Released: Telling._released,
    HangUpCall: Telling._hang_up,
    Fetch: Telling._fetch,
    RecordingAsked: Telling._recording_asked,
    Stayed: Telling._stayed,
}
"""All that calls and conferences tell each other but Notify."""
