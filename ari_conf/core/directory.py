"""All calls and conferences of one application, and the one door to them: `receive(event, now) -> effects`.

It finds whom an event is for, carries what calls and conferences tell each other within the step, and knows the next
deadline. An event about what is gone, or never was, yields nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from ari_conf.core import events as ev
from ari_conf.core import ids
from ari_conf.core.call import Call
from ari_conf.core.callbacks import NORMAL, standard
from ari_conf.core.conference import Conference, given_up
from ari_conf.core.effects import (
    AddChannel,
    ClaimName,
    CreateBridge,
    DestroyBridge,
    Effect,
    FetchDocument,
    FetchSounds,
    HangUp,
    NoteStay,
    PlayMedia,
    PostCallback,
    PrepareSound,
    RemoveChannel,
    ReportProblem,
    StartRecording,
    StopPlayback,
    StopRecording,
    Undoing,
)
from ari_conf.core.internal import (
    INTERNALS,
    Admitted,
    Fetch,
    Finished,
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
from ari_conf.core.obey import refused

UNDOING = frozenset(get_args(Undoing))
UNDONE_MS = 30_000
"""By then Asterisk has done it, or never will."""
BROKEN = "the call has met a defect of ari_conf and is ended: please report it, with what the log says"


@dataclass(slots=True)
class Directory:
    new_id: Callable[[], str]
    """Makes conferences' and recordings' ids: unguessable, never the same twice."""
    public_url: str = "http://127.0.0.1:8080"
    calls: dict[str, Call] = field(default_factory=dict)
    conferences: dict[str, Conference] = field(default_factory=dict)
    next_member_id: int = 1
    """"a small integer, from a counter that all conferences share"."""
    _channels: dict[str, str] = field(default_factory=dict)
    """channel id -> call uuid"""
    _names: dict[tuple[str, str], str] = field(default_factory=dict)
    """(account, name) -> the live conference: a name belongs to one account"""
    _due: dict[str, int] = field(default_factory=dict)
    """call uuid or conference id -> its deadline"""
    _deadlines: list[tuple[int, str]] = field(default_factory=list)
    """A heap of these; one that is not in `_due` any more is stale."""
    _touched: set[str] = field(default_factory=set)
    _whole: tuple[list[Effect], set[str]] = field(default_factory=lambda: ([], set()))
    """Of a step that broke: what was decided before, and whom that changed."""
    _watched: dict[str, int] = field(default_factory=dict)
    """account -> until when"""

    @property
    def deadline(self) -> int | None:
        """Epoch ms of the next TimePassed, None if nothing is awaited."""
        while self._deadlines:
            at, key = self._deadlines[0]
            if self._due.get(key) == at:
                return at
            heapq.heappop(self._deadlines)
        return None

    def touched(self) -> dict[str, Call | Conference | None]:
        """What the last steps may have changed, since this was last asked: id -> as it is now, None if it is gone."""
        if len(self._touched) == 1:
            # As a rule: nothing to put in order.
            key = self._touched.pop()
            return {key: self.calls.get(key) or self.conferences.get(key)}
        touched, self._touched = self._touched, set()
        return {key: self.calls.get(key) or self.conferences.get(key) for key in sorted(touched)}

    def restore(self, calls: list[Call], conferences: list[Conference], next_member_id: int) -> None:
        """What another process has written. Each deadline that has passed meanwhile is due at once."""
        self.next_member_id = max(self.next_member_id, next_member_id)
        for call in calls:
            self.calls[call.call_uuid] = call
            self._channels[call.channel_id] = call.call_uuid
            self._bookkeep(call.call_uuid)
        for conference in conferences:
            self.conferences[conference.conference_id] = conference
            if not conference.ending:
                self._names[conference.auth_id, conference.name] = conference.conference_id
            self._bookkeep(conference.conference_id)

    def resume(self, out: Out, now: int) -> list[Effect]:
        """Effects of what is to be done again: see `reconcile`."""
        return self._settle(out, now)

    def whose(self, channel_id: str) -> dict[str, str]:
        """The call and the conference of a channel, as far as it has them."""
        call = self.calls.get(self._channels.get(channel_id, ""))
        if call is None:
            return {}
        found = {"call_uuid": call.call_uuid}
        return found | {"conference_id": call.conference_id} if call.conference_id else found

    def receive(self, event: ev.Event, now: int) -> list[Effect]:
        kind = type(event)
        if kind is ev.TalkingStarted or kind is ev.TalkingFinished:
            return self._talk(event, now)  # type: ignore[arg-type]
        if kind is ev.TimePassed:
            return self._time(now)
        return self._settle(ROUTES[kind](self, event, now), now)

    def _arrived(self, event: ev.CallArrived, now: int) -> Out:
        if event.channel_id in self._channels:
            return []
        self.calls[event.call_uuid], out = Call.arrived(event, now)
        self._channels[event.channel_id] = event.call_uuid
        self._touched.add(event.call_uuid)
        return out

    def give_up(self) -> list[Effect]:
        """After `receive` raised, which is a defect: those whom the step concerned are half changed. They are ended, so
        that nobody stays on the phone with what does not answer any more; all others go on."""
        broken, (effects, earlier) = self._touched, self._whole
        self._whole = [], set()
        conferences = [c for key in broken if (c := self.conferences.pop(key, None)) is not None]
        members = {m.call_uuid for c in conferences for m in c.members.values()}
        for conference in conferences:
            effects += given_up(conference)
            self._forget_name(conference)
        for key in sorted(broken | members):
            call = self.calls.pop(key, None)
            if call is not None:
                self._channels.pop(call.channel_id, None)
                effects += [ReportProblem(call.auth_id, key, None, BROKEN), HangUp(call.channel_id)]
        self._touched = broken | members
        for key in self._touched:
            self._bookkeep(key)
        self._touched |= earlier
        return effects

    # Whom an event is for.

    def _call(self, call_uuid: str, event: ev.Event, now: int) -> Out:
        call = self.calls.get(call_uuid)
        if call is None:
            return []
        self._touched.add(call_uuid)
        out = call.receive(event, now)
        if call.ended_at is not None and (conference := self._conference_of(call)) is not None:
            # However that became known: by the event, or because the channel could not be hung up any more.
            self._touched.add(conference.conference_id)
            out += conference.leave(call.channel_id, "hangup", now)
        return out

    def _conference(self, conference_id: str, event: ev.Event, now: int) -> Out:
        conference = self.conferences.get(conference_id)
        if conference is None:
            return []
        self._touched.add(conference_id)
        return conference.receive(event, now)

    def _of_conference(self, event: _OfConference, now: int) -> Out:
        return self._conference(event.conference_id, event, now)

    def _of_bridge(self, event: _OfBridge, now: int) -> Out:
        return self._conference(event.bridge_id, event, now)

    def _of_playback(self, event: _OfPlayback, now: int) -> Out:
        return self._owner(event.playback_id, event, now)

    def _of_fetch(self, event: _OfFetch, now: int) -> Out:
        return self._owner(event.fetch_id, event, now)

    def _of_call(self, event: ev.CallIdentified, now: int) -> Out:
        return self._call(event.call_uuid, event, now)

    def _hung_up(self, event: ev.ChannelHungUp, now: int) -> Out:
        return self._call(self._channels.get(event.channel_id, ""), event, now)

    def _owner(self, owned_id: str, event: ev.Event, now: int) -> Out:
        kind, owner = ids.owner_of(owned_id)
        return self._call(owner, event, now) if kind == "c" else self._conference(owner, event, now)

    def _talk(self, event: ev.TalkingStarted | ev.TalkingFinished, now: int) -> list[Effect]:
        """The most frequent by far, and no deadline of a conference's depends on them."""
        call = self.calls.get(self._channels.get(event.channel_id, ""))
        if call is None:
            return []
        conference = self.conferences.get(call.conference_id or "")
        if conference is None:
            return self._settle(self._call(call.call_uuid, event, now), now)
        self._touched.add(conference.conference_id)
        out = conference.talk(event, now)
        return self._effects_of(out, now) if out else []

    def _of_channel(self, event: ev.DigitReceived | ev.BeepHeard, now: int) -> Out:
        call = self.calls.get(self._channels.get(event.channel_id, ""))
        if call is None:
            return []
        conference = self._conference_of(call)
        if conference is not None:
            return self._conference(conference.conference_id, event, now)
        return self._call(call.call_uuid, event, now)

    def _conference_of(self, call: Call) -> Conference | None:
        return self.conferences.get(call.conference_id) if call.conference_id else None

    def _command(self, event: ev.CommandReceived, now: int) -> Out:
        if event.expires_at <= now:
            return [refused(event.command_id, 503, "the command came too late to be done: try again")]
        conference = self.conferences.get(self._names.get((event.auth_id, event.conference_name), ""))
        if conference is None or conference.ending or conference.claim != "held":
            return [refused(event.command_id, 404, "conference not found")]
        self._touched.add(conference.conference_id)
        return conference.command(event, now)

    def _watch(self, event: ev.AccountWatched, now: int) -> Out:
        auth_id, until = event.auth_id, event.until
        # Of the others those that nobody has looked at for some time are forgotten.
        self._watched = {account: end for account, end in self._watched.items() if end > now}
        if until <= now:
            return []
        self._watched[auth_id] = until
        out: Out = []
        for conference in [c for c in self.conferences.values() if c.auth_id == auth_id and not c.ending]:
            self._touched.add(conference.conference_id)
            out += conference.watch(until, now)
        return out

    def _failed(self, event: ev.EffectFailed, now: int) -> Out:
        match event.effect:
            case AddChannel(_, bridge_id) | RemoveChannel(_, bridge_id):
                return self._conference(bridge_id, event, now)
            case CreateBridge(bridge_id) | DestroyBridge(bridge_id):
                return self._conference(bridge_id, event, now)
            case StartRecording(bridge_id) | StopRecording(bridge_id):
                return self._conference(bridge_id, event, now)
            case PlayMedia(_, playback_id):
                return self._owner(playback_id, event, now)
            case ClaimName(_, _, conference_id):
                return self._conference(conference_id, event, now)
            # Those that say by themselves how they failed: so they do unless what runs them is broken.
            case FetchDocument(fetch_id):
                return self._owner(fetch_id, ev.DocumentFailed(fetch_id, False, event.reason), now)
            case FetchSounds(fetch_id):
                return self._owner(fetch_id, ev.SoundsFailed(fetch_id, event.reason), now)
            case PrepareSound(playback_id, sound):
                return self._owner(playback_id, ev.SoundFailed(playback_id, sound, event.reason), now)
            case _:
                channel_id = getattr(event.effect, "channel_id", None)
                return self._call(self._channels.get(channel_id or "", ""), event, now)

    # Within a step.

    def _settle(self, out: Out, now: int) -> list[Effect]:
        """Delivers what calls and conferences tell each other until only effects are left, in their order.

        A call goes on only when all that the conference had to say is said: it may come back to it at once, and what
        it then does must not come before what was decided earlier.
        """
        effects = self._effects_of(out, now) if out else []
        for effect in effects:
            if type(effect) in UNDOING:
                self._remember(effect, now)  # type: ignore[arg-type]
        for key in self._touched:
            self._bookkeep(key)
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
        channel_id = effect.target.id if isinstance(effect, StopPlayback) else getattr(effect, "channel_id", "")
        if getattr(effect, "muted", False) or getattr(effect, "deaf", False) or getattr(effect, "silence_ms", None):
            return
        conference = self.conferences.get(channel_id)
        call = self.calls.get(self._channels.get(channel_id, "")) if conference is None else None
        owner = conference or call
        if owner is not None:
            recent = (u for u in owner.undone if u[0] > now - UNDONE_MS and u[1] != effect)
            owner.undone = (*recent, (now, effect))
            self._touched.add(call.call_uuid if call else channel_id)

    # What they tell each other.

    def _finished(self, finished: Finished, now: int) -> Out:
        self._forget_name(self.conferences.pop(finished.conference_id))
        return []

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
        out: Out = []
        # "One that is ending is not live: a caller who arrives then gets a new one, with a new UUID."
        if conference is None or conference.ending:
            conference = Conference(
                self.new_id(), call.auth_id, join.element.name, now, join.element.max_members, self.public_url
            )
            self.conferences[conference.conference_id] = conference
            self._names[call.auth_id, conference.name] = conference.conference_id
            until = self._watched.get(call.auth_id, now)
            conference.watched_until = until if until > now else None
            out += conference.create()
        elif conference.full or conference.locked:
            # Locked (decided): as when it is full.
            # "Full (maxMembers)? The element and its action are skipped; the next element runs. No callback."
            return [Skipped(call.call_uuid, None)]
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
        member.wideband = call.wideband
        return out + conference.join(member, now)

    def _bookkeep(self, key: str) -> None:
        deadline = None
        if (call := self.calls.get(key)) is not None:
            if call.done:
                del self.calls[key]
                del self._channels[call.channel_id]
            else:
                deadline = call.deadline
        elif (conference := self.conferences.get(key)) is not None:
            if conference.ending:
                self._forget_name(conference)
            deadline = conference.deadline
        if deadline is None:
            self._due.pop(key, None)
        elif self._due.get(key) != deadline:
            self._due[key] = deadline
            heapq.heappush(self._deadlines, (deadline, key))
            if len(self._deadlines) > 2 * len(self._due) + 100:
                # Those that were put off stay in the heap until they come to its top: now and then make it anew.
                self._deadlines = [(at, k) for k, at in self._due.items()]
                heapq.heapify(self._deadlines)

    def _forget_name(self, conference: Conference) -> None:
        name = (conference.auth_id, conference.name)
        if self._names.get(name) == conference.conference_id:
            del self._names[name]

    def _time(self, now: int) -> list[Effect]:
        """To all whose deadline has come, each once: one of them may have a new one at once."""
        due: list[str] = []
        while (deadline := self.deadline) is not None and deadline <= now:
            key = heapq.heappop(self._deadlines)[1]
            del self._due[key]
            due.append(key)
        effects: list[Effect] = []
        earlier, self._touched = self._touched, set()
        for at, key in enumerate(due):
            # One after another: what the one leads to may concern the next.
            self._touched.add(key)
            deliver = self._call if key in self.calls else self._conference
            try:
                effects += self._settle(deliver(key, ev.TimePassed(), now), now)
            except Exception:
                # Whose turn it was is to be given up; the others' comes again, or is done.
                self._whole = effects, earlier
                for other in {*due[at + 1 :], *earlier}:
                    self._bookkeep(other)
                raise
            earlier |= self._touched
            self._touched = set()
        self._touched = earlier
        return effects


_OfConference = ev.NameClaimed | ev.NameRefused
_OfBridge = (
    ev.ChannelEnteredBridge
    | ev.ChannelLeftBridge
    | ev.BridgeCreated
    | ev.BridgeDestroyed
    | ev.RecordingStarted
    | ev.RecordingFinished
)
_OfPlayback = ev.SoundPrepared | ev.SoundFailed | ev.PlaybackStarted | ev.PlaybackFinished
_OfFetch = ev.DocumentFetched | ev.DocumentFailed | ev.SoundsFetched | ev.SoundsFailed

# By the event's class: trying one pattern after another takes as long as what then follows.
ROUTES: dict[type, Callable[[Directory, Any, int], Out]] = {
    ev.CallArrived: Directory._arrived,
    ev.CallIdentified: Directory._of_call,
    ev.ChannelHungUp: Directory._hung_up,
    ev.EffectFailed: Directory._failed,
    ev.CommandReceived: Directory._command,
    ev.AccountWatched: Directory._watch,
    ev.DigitReceived: Directory._of_channel,
    ev.BeepHeard: Directory._of_channel,
    **dict.fromkeys(get_args(_OfConference), Directory._of_conference),
    **dict.fromkeys(get_args(_OfBridge), Directory._of_bridge),
    **dict.fromkeys(get_args(_OfPlayback), Directory._of_playback),
    **dict.fromkeys(get_args(_OfFetch), Directory._of_fetch),
}

TELLS: dict[type, Callable[[Directory, Any, int], Out]] = {
    Join: Directory._join,
    Admitted: Directory._admitted,
    Skipped: Directory._skipped,
    Released: Directory._released,
    HangUpCall: Directory._hang_up,
    Fetch: Directory._fetch,
    RecordingAsked: Directory._recording_asked,
    Stayed: Directory._stayed,
    Finished: Directory._finished,
}
"""All that calls and conferences tell each other but Notify."""
