"""Judge: checks the promises of the specification at every step from requests, effects and the state.

It keeps its own account of who is in which conference, from the callbacks alone (`seen`), and of what each channel was
told to do, from the effects (`hearing`). The state of the core must agree with both accounts, must be valid
(`invariants`), and must be written completely.
"""

from __future__ import annotations

from collections.abc import Iterable

from ari_conf.core import effects as do
from ari_conf.core import elements as el
from ari_conf.core import events as ev
from ari_conf.core import ids, invariants
from ari_conf.core.calls.call import Call
from ari_conf.core.calls.call_state import UNANSWERED, CallState
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.conferences.member_state import MemberState
from ari_conf.core.engine import Engine
from ari_conf.store.state_codec import decode, encode, encode_without_members, merge_members
from tests.fakes.asterisk import Asterisk, Refused
from tests.simulation.hearing import Hearing
from tests.simulation.seen import Seen, Stay

BUSY_LOOP = 20


class Judge:
    def __init__(self, engine: Engine, asterisk: Asterisk) -> None:
        self.engine = engine
        self.asterisk = asterisk
        self.hearing = Hearing(engine, asterisk)
        self.seen: dict[str, Seen] = {}
        self.live: set[str] = set()
        self.placed: dict[str, int] = {}
        """Placed call -> how often its end was reported."""
        self.rings_told: set[str] = set()
        self.examined: dict[str, int] = {}
        """Placed call that is being examined for a machine -> latest time of the verdict."""
        self.holding: set[str] = set()
        """Calls whose document waits for the verdict."""
        self.verdicts: dict[str, bool] = {}
        """Call -> True if a machine has answered, as the URLs were told."""
        self.member_ids: set[int] = set()
        self.tainted: set[str] = set()
        """Channels and conferences to which something happened that Asterisk does not do automatically."""
        self.calls_recorded: dict[tuple[str, str], bool] = {}
        """(call UUID, recording id) of each recording of a call that was begun -> whether it is handed on."""
        self._moments = (0, 0)
        self._written: dict[str, bytes] = {}
        """Persisted state, as a crash would leave it."""
        self._members: dict[str, dict[bytes, bytes]] = {}
        self._mixed: dict[str, tuple[str, int, bool]] = {}
        self._rooms: dict[str, list[el.Conference]] = {}
        """Conference elements of the document that each call received last."""
        self.effects: list[do.Effect] = []
        self.touched: set[str] = set()
        """Keys of the calls and conferences that the steps so far have changed."""

    def provoked(self, *things: str) -> None:
        """`things`: ids of channels, conferences, and their bridges."""
        found = _with_conferences(things)
        self.tainted.update(found)
        self.hearing.tainted.update(found)

    # Around each step.

    def before(self, event: ev.Event, now: int) -> None:
        self.hearing.before(event)
        if isinstance(event, ev.DocumentFetched):
            call = self.engine.calls.get(ids.call_of(event.fetch_id) or "")
            # A document that arrives again after another one is not run.
            if call is not None and call._is_pending(event.fetch_id):
                rooms = [element for element in event.elements if isinstance(element, el.Conference)]
                self._rooms[call.call_uuid] = rooms
        self._mixed = {
            m.channel_id: (c.conference_id, m.member_id, m.silenced)
            for c in self.engine.conferences.values()
            for m in c.members_in_bridge
        }

    def after(self, event: ev.Event, effects: list[do.Effect], now: int) -> None:
        self.effects = effects
        floors = self._floor_expected(event)
        for at, effect in enumerate(effects):
            match effect:
                case do.PostCallback(lane, _, _, _, params) if "ConferenceAction" in dict(params):
                    self._callback(lane, dict(params), effects[at + 1 :], floors, now)
                case do.StartRecording(bridge_id, recording_id) if ids.recorder_of(bridge_id) is None:
                    self._recording_starts(ids.conference_of(bridge_id) or "", recording_id)
                case do.StoreRecording() if effect.conference_id:
                    self._recording_is_handed_on(effect)
                case do.CommandReply(_, 201, body):
                    uuids = dict(body)["request_uuid"]
                    self.placed.update(dict.fromkeys((uuids,) if isinstance(uuids, str) else uuids, 0))
                case do.ListenForMachine(_, on, call_uuid):
                    self._examined(call_uuid, on, now)
                case do.FetchDocument(_, _, _, _, params) if dict(params)["CallUUID"] in self.placed:
                    self._told_of_placed(dict(params))
                case do.PostCallback(_, _, _, _, params) if dict(params)["CallUUID"] in self.placed:
                    self._told_of_placed(dict(params))
                case do.StartRecording() | do.StoreRecording():
                    self.of_call(effect)
        assert not floors, f"these took the floor, and nobody was told: {floors}"
        self._no_stray_actions(effects)
        self._state(now)
        self._relayed(event, effects)
        self.hearing.after(event, effects)

    def time_moved_on(self, now: int) -> None:
        deadline = self.engine.deadline
        assert deadline is None or deadline >= now, "a deadline in the past: a busy loop"
        self._moments = (now, self._moments[1] + 1 if self._moments[0] == now else 0)
        assert self._moments[1] < BUSY_LOOP, "the same instant again and again: a busy loop"
        for call_uuid, until in self.examined.items():
            call = self.engine.calls.get(call_uuid)
            assert call is None or call.is_ending or until >= now, "machine_detection_time: nobody waits longer"
        for conference in self._live_ones():
            ends_at = self.seen[conference.conference_id].ends_at if conference.conference_id in self.seen else None
            assert ends_at is None or ends_at > now, "timeLimit: the conference ends after it"

    def gone(self, names: dict[tuple[str, str], str]) -> None:
        """ "Ended means: recording stopped, bridge destroyed, name free, nothing left in Asterisk or in Redis." """
        for conference_id in self.live - set(self.engine.conferences):
            assert conference_id not in names.values(), "ended, and its name is not free"
            seen = self.seen.get(conference_id)
            assert seen is None or not seen.inside
            assert seen is None or seen.recording_id is None or seen.handed_on, "ended, and the recording not handed on"
            if conference_id not in self.tainted:
                bridge = ids.bridge_id(conference_id)
                assert bridge not in self.asterisk.bridges, "ended, and its bridge stands"
                assert bridge not in self.asterisk.recordings.values(), "ended, and its recording runs"
        self.live = set(self.engine.conferences)

    def refused(self, effect: do.Effect, refused: Refused) -> None:
        """Check that news under way explains why Asterisk refused the effect."""
        channel_id = getattr(effect, "channel_id", None)
        target = getattr(effect, "target", None)
        about = _with_conferences(
            (channel_id, getattr(effect, "bridge_id", None) or getattr(effect, "source_id", None), target and target.id)
        )
        left = {i for i in (channel_id, target and target.kind == "channel" and target.id) if i} - set(
            self.asterisk.channels
        )
        finished = isinstance(effect, do.StopPlayback) and refused.gone
        if isinstance(effect, do.StartRecording | do.StopRecording) and ids.recorder_of(effect.source_id) is not None:
            # The snoop channel has ended with the recording, or with the call.
            assert refused.gone, f"Asterisk refuses {effect}: {refused.reason}"
            return
        assert left or finished or about & self.tainted, f"Asterisk refuses {effect}: {refused.reason}"

    def calm(self) -> None:
        """Check that all is as it should be, whatever failed before: nothing has failed for some time."""
        self.tainted.clear()
        self.hearing.tainted.clear()
        self.settled()

    def settled(self) -> None:
        self.hearing.settled()
        calls = {key: encode(call) for key, call in self.engine.calls.items()}
        conferences = {key: self._as_written(key, c) for key, c in self.engine.conferences.items()}
        assert self._written == calls | conferences, "the persisted state is the state"
        for conference in self._live_ones():
            if conference.started and any(m.element.record for m in conference.members_in_bridge):
                assert conference.conference_id in self.seen
                assert self.seen[conference.conference_id].recording_id, "record: it begins when such a member is in"

    def over(self, names: dict[tuple[str, str], str]) -> None:
        """Check that nothing is left: all callers hung up long ago."""
        assert not self.engine.calls, "a call is stuck forever"
        assert not self.engine.conferences, "a conference is stuck forever"
        assert self.engine.deadline is None, "a timer is left"
        assert not names, "a name is left"
        assert set(self.placed.values()) <= {1}, "each placed call ends, and its end is told once"
        assert not any(seen.inside for seen in self.seen.values()), "a member entered and never left"
        assert not self.asterisk.channels, "a channel is left"
        assert not self.asterisk.bridges, "a bridge is left"
        assert not self.asterisk.recordings, "a recording is left"
        assert not self.asterisk.playbacks, "a playback is left"
        lost = [of for of, handed_on in self.calls_recorded.items() if not handed_on]
        assert not lost, f"recordings of calls are not handed on: {lost}"

    def out_is_out(self, channel_id: str, conference_id: str) -> None:
        """Check that a member whose exit is reported neither hears the others nor is heard, whatever fails."""
        channel = self.asterisk.channels.get(channel_id)
        assert channel is None or channel.bridge != ids.bridge_id(conference_id), (
            "reported as out, and still in the bridge"
        )

    def fits(self) -> None:
        for call in self.engine.calls.values():
            assert list(invariants.call_violations(call)) == [], call
        for conference in self.engine.conferences.values():
            assert list(invariants.conference_violations(conference)) == [], conference

    # Placed calls.

    def _examined(self, call_uuid: str, on: bool, now: int) -> None:
        options = self.engine.calls[call_uuid].outgoing
        assert options is not None and options.options.machine_detection is not None, "nobody asked for it"
        settings = options.options.machine_detection
        if on:
            assert call_uuid not in self.examined, "examined twice"
            self.examined[call_uuid] = now + settings.time_ms
            self.holding |= set() if settings.url else {call_uuid}
        else:
            del self.examined[call_uuid]
            self.holding.discard(call_uuid)

    def _told_of_placed(self, params: dict[str, str]) -> None:
        call_uuid = params["CallUUID"]
        assert call_uuid not in self.holding or params["Event"] == "Hangup", "no document runs while it listens"
        is_machine = params.get("Machine") == "true"
        assert is_machine >= self.verdicts.get(call_uuid, False), "a machine is one in all later requests"
        match params["Event"]:
            case "MachineDetection":
                assert call_uuid not in self.verdicts, "the verdict is told once"
                assert params["Machine"] in ("true", "false") and params["IfMachine"] in ("continue", "hangup")
            case "Hangup":
                assert is_machine or params["HangupCauseCode"] != "9100", "only a machine is hung up on"
        if "Machine" in params:
            self.verdicts[call_uuid] = is_machine
        match params["Event"]:
            case "Ring":
                assert call_uuid in self.asterisk.rang, "the ring URL is told, and no phone rang"
                assert call_uuid not in self.rings_told, "the ring URL is told once"
                self.rings_told.add(call_uuid)
            case "Hangup":
                self.placed[call_uuid] += 1
                is_answered = params["AnswerTime"] != ""
                assert (params["CallStatus"] == "completed") == is_answered
                assert not is_answered or call_uuid in self.asterisk.rang

    # The callbacks.

    def _callback(
        self, lane: str, params: dict[str, str], following: list[do.Effect], floors: list[int], now: int
    ) -> None:
        conference_id, member_id = params["ConferenceUUID"], int(params["ConferenceMemberID"])
        assert lane == conference_id
        assert params["Timestamp"] == str(now)
        if params["ConferenceAction"] == "enter":
            self._enters(conference_id, member_id, params, now)
        seen = self.seen[conference_id]
        seen.sequence += 1
        assert params["ConferenceSequence"] == str(seen.sequence), "1, 2, 3 … without gaps"
        assert params["ConferenceName"] == seen.name
        stay = seen.inside[member_id]
        assert params["CallUUID"] == stay.call_uuid
        match params["ConferenceAction"]:
            case "exit":
                self._exits(seen, stay, params, following, now)
            case "floor":
                assert member_id in floors, "a floor callback, and the member has not taken the floor"
                floors.remove(member_id)
            case "digits":
                assert params["ConferenceDigitsMatch"] in stay.element.digits_match

    def _enters(self, conference_id: str, member_id: int, params: dict[str, str], now: int) -> None:
        call = self.engine.calls[params["CallUUID"]]
        theirs = [room for room in self._rooms[call.call_uuid] if room.name == params["ConferenceName"]]
        # If one step handles several deadlines, a later one may have ended the element already.
        element = call.running if isinstance(call.running, el.Conference) else theirs[0]
        assert element in theirs, "they enter what their document says"
        seen = self.seen.setdefault(
            conference_id,
            Seen(conference_id, call.auth_id, element.name, self.engine.conferences[conference_id].max_members),
        )
        assert (call.auth_id, element.name) == (seen.auth_id, seen.name)
        assert params["ConferenceFirstMember"] == ("false" if seen.entered else "true")
        assert member_id not in self.member_ids, "an ID comes from a counter that all conferences share"
        self.member_ids.add(member_id)
        for other in self.seen.values():
            assert call.call_uuid not in {stay.call_uuid for stay in other.inside.values()}, "in two conferences"
            if other is not seen and (other.auth_id, other.name) == (seen.auth_id, seen.name) and other.inside:
                assert self.engine.conferences[other.conference_id].ending, "two live conferences of one name"
        stay = Stay(member_id, call.call_uuid, call.channel_id, element)
        seen.inside[member_id] = stay
        seen.entered.append(stay)
        assert len(seen.inside) <= seen.max_members, "more than maxMembers"
        if element.time_limit is not None and seen.ends_at is None:
            seen.ends_at = now + (element.time_limit or 86400) * 1000

    def _exits(self, seen: Seen, stay: Stay, params: dict[str, str], following: list[do.Effect], now: int) -> None:
        del seen.inside[stay.member_id]
        assert params["ConferenceLastMember"] == ("false" if seen.inside else "true")
        reason = params["ConferenceExitReason"]
        call = self.engine.calls.get(stay.call_uuid)
        hung_up = call is None or call.is_ending
        provoked = bool({seen.conference_id, *(other.channel_id for other in seen.entered)} & self.tainted)
        # A reason follows from earlier exits; the consequences of this exit come after it.
        why = {
            "hangup": hung_up,
            "star": stay.element.hangup_on_star,
            "time_limit": seen.ends_at is not None and seen.ends_at <= now,
            "host_left": any(other.element.end_conference_on_exit for other in seen.left),
            # At most one member is left alone; members who could not be admitted leave with them.
            "left_alone": bool(seen.left)
            and not all(other.element.stay_alone for other in seen.entered)
            and ("left_alone" not in seen.reasons or provoked),
            "conference_ended": bool({seen.conference_id, stay.channel_id} & self.tainted),
        }
        assert why[reason], f"{reason} is not why they left"
        seen.left.append(stay)
        seen.reasons.append(reason)
        self.out_is_out(stay.channel_id, seen.conference_id)
        seen.talking.discard(stay.member_id)
        seen.floor = None if seen.floor == stay.member_id else seen.floor
        self.hearing.left(stay.channel_id, hung_up, self.effects[: -len(following) or None])
        if stay.element.action is not None:
            self._action(seen, stay, hung_up, following)

    def _action(self, seen: Seen, stay: Stay, hung_up: bool, following: list[do.Effect]) -> None:
        """Check that the action is requested once, after the exit, also if the member hung up (reply then ignored)."""
        requests = [e for e in following if _action_of(e) == str(stay.member_id)]
        assert len(requests) == 1, "every leaver's action is requested once"
        request = requests[0]
        ignored = hung_up or not stay.element.redirect
        assert isinstance(request, do.PostCallback if ignored else do.FetchDocument)
        assert request.method == stay.element.method
        params = dict(request.params)
        assert (params["ConferenceUUID"], params["ConferenceName"]) == (seen.conference_id, seen.name)
        recorded = seen.recording_id if stay.element.record else None
        assert params.get("RecordingID") == recorded, "RecordingID with record=true, from the recording's beginning"
        assert ("RecordUrl" in params) == (recorded is not None)

    def _no_stray_actions(self, effects: list[do.Effect]) -> None:
        exits = {
            dict(e.params)["ConferenceMemberID"]
            for e in effects
            if isinstance(e, do.PostCallback) and dict(e.params).get("ConferenceAction") == "exit"
        }
        assert {a for e in effects if (a := _action_of(e))} <= exits, "an action for a member who hasn't left"

    def _recording_starts(self, conference_id: str, recording_id: str) -> None:
        conference, seen = self.engine.conferences[conference_id], self.seen[conference_id]
        assert seen.recording_id is None, "one recording per conference"
        assert conference.started and any(m.element.record for m in conference.members_in_bridge)
        assert recording_id, "the id exists before the recording does"
        seen.recording_id = recording_id

    def _recording_is_handed_on(self, effect: do.StoreRecording) -> None:
        seen = self.seen[effect.conference_id]
        assert effect.recording_id == seen.recording_id and not seen.handed_on, "handed on once, and the one that ran"
        assert effect.start_ms <= effect.end_ms
        seen.handed_on = True
        if effect.callback is not None:
            seen.sequence += 1
            assert dict(effect.callback.params)["ConferenceSequence"] == str(seen.sequence), "1, 2, 3 … without gaps"

    def of_call(self, effect: do.StartRecording | do.StoreRecording) -> None:
        """Note the start of a call's recording, or check that it is handed on once."""
        if isinstance(effect, do.StartRecording):
            if (started := ids.recorder_of(effect.source_id)) is not None:
                self.calls_recorded.setdefault(started, False)
            return
        of = effect.call_uuid, effect.recording_id
        # The step that was to begin it may have failed: then there is no file, and the job says that there may be none.
        assert self.calls_recorded.get(of, not effect.failed) is False, "handed on once, and one that was begun"
        assert effect.start_ms <= effect.end_ms and effect.tracks
        named = dict(effect.callback.params) if effect.callback is not None else {"CallUUID": effect.call_uuid}
        assert named.get("CallUUID", named.get("call_uuid")) == effect.call_uuid
        self.calls_recorded[of] = True

    # Floor and digits.

    def _floor_expected(self, event: ev.Event) -> list[int]:
        channel_id = getattr(event, "channel_id", "")
        for seen in self.seen.values():
            stay = next((s for s in seen.inside.values() if s.channel_id == channel_id), None)
            if stay is None:
                continue
            call = self.engine.calls.get(stay.call_uuid)
            if isinstance(event, ev.TalkingFinished):
                seen.talking.discard(stay.member_id)
            elif isinstance(event, ev.AudioStopped | ev.PhoneHeld):
                return self._floor_passed(seen, stay, event)
            elif isinstance(event, ev.TalkingStarted) and not (call is not None and call.on_hold):
                seen.talking.add(stay.member_id)
                _, _, muted = self._mixed.get(channel_id, ("", 0, True))
                free = seen.floor is None or (seen.floor != stay.member_id and seen.floor not in seen.talking)
                if not muted and free:
                    seen.floor = stay.member_id
                    return [stay.member_id] if stay.element.floor_event else []
        return []

    def _floor_passed(self, seen: Seen, stay: Stay, event: ev.AudioStopped | ev.PhoneHeld) -> list[int]:
        """Pass the floor of a member who falls silent to another who talks, if there is one."""
        talked = stay.member_id in seen.talking
        seen.talking.discard(stay.member_id)
        if seen.floor != stay.member_id or (isinstance(event, ev.AudioStopped) and not talked):
            return []
        heard = {id: key for key, (room, id, muted) in self._mixed.items() if room == seen.conference_id and not muted}
        talkers = seen.talking & set(heard) - {stay.member_id}
        conference = self.engine.conferences.get(seen.conference_id)
        holder = conference.floor if conference is not None else None
        if not talkers:
            seen.floor = None if isinstance(event, ev.PhoneHeld) else seen.floor
            return []
        assert holder in talkers, "a member who talks takes over the floor of a silent one"
        seen.floor = holder
        inside = seen.inside[holder]
        return [holder] if inside.element.floor_event else []

    def _relayed(self, event: ev.Event, effects: list[do.Effect]) -> None:
        if not isinstance(event, ev.DigitReceived):
            return
        sent = [e for e in effects if isinstance(e, do.SendDigits)]
        stays = [s for seen in self.seen.values() for s in seen.inside.values() if s.channel_id == event.channel_id]
        for stay in stays if sent else ():
            assert stay.element.relay_dtmf
            assert event.channel_id not in {e.channel_id for e in sent}, "digits are sent to all others"
            assert not any(p in e.digits for p in stay.element.digits_match for e in sent), "matched digits never are"

    # The state.

    def _live_ones(self) -> list[Conference]:
        """Return the conferences that others know of: those of a Dial have no callbacks to judge them by."""
        return [c for c in self.engine.conferences.values() if not (c.ending or c.is_private)]

    def _as_written(self, key: str, thing: Call | Conference) -> bytes:
        """Return the persisted form. Of a conference's members, only those reported as changed are written."""
        if isinstance(thing, Call):
            return encode(thing)
        theirs = self._members.setdefault(key, {})
        for member_id, member in thing.take_changed_members().items():
            theirs.pop(b"%d" % member_id, None)
            if member is not None:
                theirs[b"%d" % member_id] = encode(member)
        return merge_members(encode_without_members(thing), theirs)

    def _state(self, now: int) -> None:
        for key, thing in self.engine.take_changes().items():
            self.touched.add(key)
            self._written.pop(key, None)
            if thing is not None:
                self._written[key] = self._as_written(key, thing)
                assert decode(self._written[key], {}) == thing
        for conference in self.engine.conferences.values():
            members = conference.members.values()
            due = {m.member_id: m.deadline for m in members if m.deadline is not None}
            assert conference.index.deadlines == due, "the deadline of every member is in the index"
            assert conference.index.by_channel == {m.channel_id: m for m in members}, (
                "each member is found by their channel"
            )
        self.fits()
        names = [(c.auth_id, c.name) for c in self._live_ones()]
        assert len(names) == len(set(names)), "never two live conferences of one account and name"
        for conference in self._live_ones():
            assert conference.update_media(now) == [], "nothing follows for conferences that the event is not about"
            seen = self.seen.get(conference.conference_id)
            begun = any(stay.element.start_conference_on_enter for stay in seen.entered) if seen else False
            assert conference.started == begun, "the first member with startConferenceOnEnter=true starts it for good"
            if seen is not None and not any(m.state is MemberState.LEAVING for m in conference.members.values()):
                assert seen.ought_to_end is None, f"it ought to have ended: {seen.ought_to_end}"
        where: dict[str, int] = {}
        for conference in self.engine.conferences.values():
            for member in conference.members.values():
                where[member.call_uuid] = where.get(member.call_uuid, 0) + 1
        for call in self.engine.calls.values():
            assert where.pop(call.call_uuid, 0) == int(call.in_conference), "a call is in one conference, or in none"
            busy = call.running is not None or call.fetch_purpose is not None or call.account is None
            busy = busy or call.state in UNANSWERED or call.call_uuid in self.holding or call.dial is not None
            # The sound document that asks for the key is being fetched.
            busy = busy or call.state is CallState.CONFIRMING
            assert busy or call.is_ending, "the document goes on after each element"
        assert not where, "a member without a call"


def _with_conferences(things: Iterable[str | None]) -> set[str]:
    """Return the ids, with each bridge's conference in place of the bridge."""
    return {ids.conference_of(thing) or thing for thing in things if thing}


def _action_of(effect: do.Effect) -> str | None:
    if not isinstance(effect, do.PostCallback | do.FetchDocument):
        return None
    params = dict(effect.params)
    return params.get("ConferenceMemberID") if "ConferenceAction" not in params else None
