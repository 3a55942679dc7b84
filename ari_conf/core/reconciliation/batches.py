"""Batched reconciliation: `plan.make_plan` for some conferences and all their calls at a time.

Between two batches, other work gets its turn, however many calls and conferences exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from ari_conf.core import effects as do
from ari_conf.core.engine import Engine
from ari_conf.core.expectations import AsteriskState, Expectation
from ari_conf.core.messages import Outputs
from ari_conf.core.reconciliation.plan import (
    Batch,
    ReconciliationPlan,
    Why,
    make_plan,
    orphaned_bridges,
)

T = TypeVar("T")
BATCH_CONFERENCES, BATCH_CALLS = 25, 500
"""Maximum number per batch: of conferences, with their members' calls, or of other calls."""
ON_THE_WAY_S = 2.0
"""Seconds after a snapshot within which events from before it have arrived, unless they are lost."""
DeferrableEffect = do.MuteChannel | do.DeafenChannel | do.DetectTalking
DEFERRABLE_EFFECTS = (do.MuteChannel, do.DeafenChannel, do.DetectTalking)
"""Types of effects that may be deferred, the most important ones first."""


def expectations_by_owner(engine: Engine) -> Iterator[tuple[str, list[Expectation]]]:
    """Yield `plan.expectations` by call UUID or conference id. The engine may change in between."""
    for key in (*engine.calls, *engine.conferences):
        owner = engine.calls.get(key) or engine.conferences.get(key)
        if owner is not None:
            yield key, list(owner.expectations())


def plan_in_batches(
    engine: Engine,
    before: Mapping[str, list[Expectation]],
    there: AsteriskState,
    *,
    why: Why,
    ours: Callable[[str], bool],
    busy: Callable[[str], bool] = lambda _: False,
    conferences: int = BATCH_CONFERENCES,
) -> Iterator[ReconciliationPlan]:
    """Yield the plan of each batch. Carry out a plan before the next one is requested.

    Events may be handled in between, but no deadlines: they would take effect before it is known what happened earlier.
    `before` is the result of `expectations_by_owner`. Channels and bridges that are `busy` imply no missed events,
    because effects are changing them; nor do those that were busy then, which are `unsure` in `before`. With
    `why="timer"`, ON_THE_WAY_S must pass after the snapshot.
    """
    for part in parts(engine, conferences):
        yield compared_part(part, before, there, why=why, busy=busy)
    if why == "takeover":
        yield ReconciliationPlan(
            [do.DestroyBridge(bridge_id) for bridge_id in orphaned_bridges(engine, there, ours)], []
        )


def compared_part(
    part: Batch, before: Mapping[str, list[Expectation]], there: AsteriskState, *, why: Why, busy: Callable[[str], bool]
) -> ReconciliationPlan:
    found = [e for key in (*part.calls, *part.conferences) for e in before.get(key, ())]
    of_part = [e.unsure() if busy(e.busy_key) else e for e in found]
    return make_plan(part, of_part, there, why=why, ours=lambda _: False)


def parts(engine: Engine, most: int = BATCH_CONFERENCES) -> Iterator[Batch]:
    done: set[str] = set()
    for keys in _chunks(tuple(engine.conferences), most):
        conferences = {key: c for key in keys if (c := engine.conferences.get(key)) is not None}
        theirs = [member.call_uuid for conference in conferences.values() for member in conference.members.values()]
        calls = {key: call for key in theirs if key not in done and (call := engine.calls.get(key)) is not None}
        done.update(calls)
        yield Batch(calls, conferences)
    for keys in _chunks([key for key in engine.calls if key not in done], BATCH_CALLS):
        yield Batch({key: call for key in keys if (call := engine.calls.get(key)) is not None}, {})


def apart(part: Batch) -> Iterator[Batch]:
    """Yield each conference with its calls, and each other call, as a batch of its own."""
    done: set[str] = set()
    for key, conference in part.conferences.items():
        theirs = {member.call_uuid for member in conference.members.values()}
        done |= theirs
        yield Batch({call_uuid: part.calls[call_uuid] for call_uuid in theirs & part.calls.keys()}, {key: conference})
    for key, call in part.calls.items():
        if key not in done:
            yield Batch({key: call}, {})


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while chunk := list(islice(left, size)):
        yield chunk


def split_deferrable(engine: Engine, again: Outputs) -> tuple[Outputs, list[DeferrableEffect]]:
    """Return (effects to run immediately, effects to defer).

    Settings of members that Asterisk does not report are nearly always in place already, and there are many of them.
    They are not deferred if the same channel has other effects, because then the order counts.
    """
    likely = [effect for effect in again if isinstance(effect, DEFERRABLE_EFFECTS) and _sets(effect)]
    likely = [effect for effect in likely if "conference_id" in engine.log_context(effect.channel_id)]
    if not likely:
        return again, []
    kept = set(map(id, likely))
    busy = {_channel(effect) for effect in again if id(effect) not in kept}
    wait = [effect for effect in likely if effect.channel_id not in busy]
    waits = set(map(id, wait))
    return [effect for effect in again if id(effect) not in waits], sorted(
        wait, key=lambda e: DEFERRABLE_EFFECTS.index(type(e))
    )


def _sets(effect: DeferrableEffect) -> bool:
    match effect:
        case do.MuteChannel(_, on) | do.DeafenChannel(_, on):
            return on
    return effect.silence_ms is not None


def _channel(effect: object) -> str:
    target = getattr(effect, "target", None)
    return target.id if isinstance(target, do.Target) else getattr(effect, "channel_id", "")


def is_still_needed(engine: Engine, effect: DeferrableEffect) -> bool:
    """Return True if the state still wants a deferred effect."""
    return engine.wanted(effect) == effect
