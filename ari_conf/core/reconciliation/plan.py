"""Reconciliation after a gap in the event stream: turns the difference between the server's state and Asterisk's into
events and effects.

There are three uses. When a new process takes over the state of a dead one, effects may not have been carried out
(`effects_to_repeat`), and nobody reports what happened in the meantime (`missed_events`). After a lost connection only
the second applies, because this process is still carrying out its effects. Once a minute, the states are also compared
on a connection that never broke, so that no call or conference waits indefinitely for an event that was lost; where the
states agree, nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.engine import Engine
from ari_conf.core.expectations import AsteriskState, Expectation
from ari_conf.core.messages import Outputs
from ari_conf.core.request_retries import wanted

Why = Literal["takeover", "connection", "timer"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some of the calls and conferences. A conference and its members' calls are in the same batch."""

    calls: dict[str, Call]
    conferences: dict[str, Conference]


def expectations(engine: Engine | Batch) -> list[Expectation]:
    """Return what the state expects of Asterisk. Must run before the snapshot: events report any later change."""
    found = [e for call in engine.calls.values() for e in call.expectations()]
    return found + [e for conference in engine.conferences.values() for e in conference.expectations()]


def missed_events(expectations: Iterable[Expectation], there: AsteriskState) -> list[ev.Event]:
    """Return what must have happened: first what was already decided, then hangups, which explain the rest."""
    seen = [(e.already_decided, event) for e in expectations if (event := e.implied_event(there)) is not None]
    in_order = sorted(seen, key=lambda each: (not each[0], not isinstance(each[1], ev.ChannelHungUp)))
    return [event for _, event in in_order]


@dataclass(frozen=True, slots=True)
class ReconciliationPlan:
    repeat: Outputs
    """Effects to carry out first."""
    missed_events: list[ev.Event]
    """Events to deliver after that, in this order."""


def make_plan(
    engine: Engine | Batch, before: list[Expectation], there: AsteriskState, *, why: Why, ours: Callable[[str], bool]
) -> ReconciliationPlan:
    """Return the plan that follows from the snapshot `there`.

    `before` is the result of `expectations` before the snapshot, less what effects were changing. Only what is still
    expected counts, because events have reported the rest in the meantime. With `why="timer"`, events may still be on
    their way: leave them time between the snapshot and this call.

    `ours` recognizes the bridges that the server has created; other bridges are not touched.
    """
    took_over, listened = why == "takeover", why == "timer"
    otherwise = [e for e in before if e.implied_event(there) is not None]
    still = set(expectations(engine)) if otherwise else set()
    changed = [e for e in otherwise if e in still]
    if took_over:
        changed = [_after_takeover(e) for e in changed]
    if listened:
        changed = [_on_timer(e) for e in changed]
    out = effects_to_repeat(engine, there) if took_over else []
    out += [] if listened else _restart_talk_detection(engine)
    for conference in engine.conferences.values():
        out += conference.evict_strangers(there, before)
    if took_over:
        out += [do.DestroyBridge(bridge_id) for bridge_id in orphaned_bridges(engine, there, ours)]
    return ReconciliationPlan(out, [*missed_events(changed, there), *([] if listened else _assume_silence(engine))])


def _after_takeover(expectation: Expectation) -> Expectation:
    """Return what counts if effects may have been lost: what was not confirmed to have started is started again, so
    that it has not ended, and a member in the bridge has yet to enter it."""
    if expectation.confirmed_started:
        return expectation
    is_member = expectation.kind == "member"
    return expectation._replace(if_gone=None, if_there=None if is_member else expectation.if_there)


def _on_timer(expectation: Expectation) -> Expectation:
    """Return what counts while events are received: a playback that waits for another one to end exists in Asterisk,
    but has not started."""
    return expectation._replace(if_there=None) if expectation.kind == "playback" else expectation


def _restart_talk_detection(engine: Engine | Batch) -> Outputs:
    # Asterisk can't be asked who has stopped talking. Restart talk detection, so that it reports again who is talking.
    out: Outputs = []
    for conference in engine.conferences.values():
        for member in conference.talking_members():
            out += member.restart_talk_detection()
    return out


def _assume_silence(engine: Engine | Batch) -> list[ev.Event]:
    """Return the end of talking for every talker. Otherwise a member who fell silent during the gap would count as
    talking forever, and no other member could take the floor."""
    talking = [m for conference in engine.conferences.values() for m in conference.talking_members()]
    # A Wait counts the silence from here on.
    waiting = [call for call in engine.calls.values() if call.hears_talking]
    silent: list[ev.Event] = [ev.TalkingFinished(member.channel_id) for member in talking]
    return silent + [ev.AudioStopped(call.channel_id, 0) for call in waiting]


def effects_to_repeat(engine: Engine | Batch, there: AsteriskState) -> Outputs:
    """Return the effects that are in progress according to the state, and may have been lost with the previous process.
    Carrying one out twice does no harm."""
    calls = [call for call in engine.calls.values() if call.channel_id in there.channels or call.awaits_channel]
    out: Outputs = []
    for call in calls:
        if not call.is_ending:
            out += _switched_off(engine, call)
            out += call.resume(there)
    for conference in engine.conferences.values():
        out += conference.resume(there)
    # A member who leaves and is hung up leaves first, in the order of the decisions.
    for call in calls:
        out += call.resume(there) if call.is_ending else []
    return out


def _switched_off(engine: Engine | Batch, call: Call) -> Outputs:
    """Return what was switched off on the call's channel, and is not on again by the state of call and member.

    The time of switching off does not matter: it would compare this process's clock with that of the process that wrote
    it."""
    conference = engine.conferences.get(call.conference_id or "")
    member = conference.member_of(call.channel_id) if conference is not None else None
    return [effect for _, effect in call.recent_switch_offs if wanted(effect, call, member) == effect]


def orphaned_bridges(engine: Engine | Batch, there: AsteriskState, is_ours: Callable[[str], bool]) -> list[str]:
    """Return the server's bridges that no conference has: a dead process created them and could not persist that."""
    has_owner = {conference.bridge_id for conference in engine.conferences.values()}
    return [bridge_id for bridge_id in there.bridges if is_ours(bridge_id) and bridge_id not in has_owner]
