"""`reconcile.compared`, some conferences with all their calls at a time: of many, others have their turn in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from ari_conf.core import effects as do
from ari_conf.core.directory import Directory
from ari_conf.core.internal import Out
from ari_conf.core.reconcile import Compared, Expected, Part, There, Why, compared, of_call, of_conference, strangers

T = TypeVar("T")
CONFERENCES, CALLS = 25, 500
"""In a part."""
ON_THE_WAY_S = 2.0
"""By then events that had happened when somebody looked have been told, unless they are lost."""
Likely = do.MuteChannel | do.DeafenChannel | do.DetectTalking
LIKELY_SO = (do.MuteChannel, do.DeafenChannel, do.DetectTalking)
"""In the order in which they count most."""


def expected_of_each(directory: Directory) -> Iterator[tuple[str, list[Expected]]]:
    """As `reconcile.expected`, by whose it is; the directory may change in between."""
    for key in (*directory.calls, *directory.conferences):
        if (call := directory.calls.get(key)) is not None:
            yield key, list(of_call(call))
        elif (conference := directory.conferences.get(key)) is not None:
            yield key, list(of_conference(conference))


def compared_in_parts(
    directory: Directory,
    before: Mapping[str, list[Expected]],
    there: There,
    *,
    why: Why,
    ours: Callable[[str], bool],
    busy: Callable[[str], bool] = lambda _: False,
    conferences: int = CONFERENCES,
) -> Iterator[Compared]:
    """Each to be worked off before the next one is asked for; events may be taken in between, but time must not pass:
    what is due would be done before it is known what happened earlier. `before` is what was `expected_of_each`; of
    channels and bridges that are `busy` nothing is taken for missed, since effects are just changing them: nor of those
    that were it then, which are `unsure` in `before`. On the timer ON_THE_WAY_S are to pass after looking."""
    for part in parts(directory, conferences):
        yield compared_part(part, before, there, why=why, busy=busy)
    if why == "takeover":
        yield Compared([do.DestroyBridge(bridge_id) for bridge_id in strangers(directory, there, ours)], [])


def compared_part(
    part: Part, before: Mapping[str, list[Expected]], there: There, *, why: Why, busy: Callable[[str], bool]
) -> Compared:
    found = [e for key in (*part.calls, *part.conferences) for e in before.get(key, ())]
    of_part = [e.unsure() if busy(e.lane) else e for e in found]
    return compared(part, of_part, there, why=why, ours=lambda _: False)


def parts(directory: Directory, most: int = CONFERENCES) -> Iterator[Part]:
    done: set[str] = set()
    for keys in _chunks(tuple(directory.conferences), most):
        conferences = {key: c for key in keys if (c := directory.conferences.get(key)) is not None}
        theirs = [member.call_uuid for conference in conferences.values() for member in conference.members.values()]
        calls = {key: call for key in theirs if key not in done and (call := directory.calls.get(key)) is not None}
        done.update(calls)
        yield Part(calls, conferences)
    for keys in _chunks([key for key in directory.calls if key not in done], CALLS):
        yield Part({key: call for key in keys if (call := directory.calls.get(key)) is not None}, {})


def apart(part: Part) -> Iterator[Part]:
    """Each conference with its calls, and each other call, alone."""
    done: set[str] = set()
    for key, conference in part.conferences.items():
        theirs = {member.call_uuid for member in conference.members.values()}
        done |= theirs
        yield Part({call_uuid: part.calls[call_uuid] for call_uuid in theirs & part.calls.keys()}, {key: conference})
    for key, call in part.calls.items():
        if key not in done:
            yield Part({key: call}, {})


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    left = iter(items)
    while chunk := list(islice(left, size)):
        yield chunk


def put_off(directory: Directory, again: Out) -> tuple[Out, list[Likely]]:
    """(what is to be done at once, what may wait): what Asterisk doesn't tell of members is nearly always so already,
    and there is much of it. Not where something else is done with the same channel: there the order counts."""
    likely = [effect for effect in again if isinstance(effect, LIKELY_SO) and _sets(effect)]
    likely = [effect for effect in likely if "conference_id" in directory.whose(effect.channel_id)]
    if not likely:
        return again, []
    kept = set(map(id, likely))
    busy = {_channel(effect) for effect in again if id(effect) not in kept}
    wait = [effect for effect in likely if effect.channel_id not in busy]
    waits = set(map(id, wait))
    return [effect for effect in again if id(effect) not in waits], sorted(wait, key=lambda e: LIKELY_SO.index(type(e)))


def _sets(effect: Likely) -> bool:
    match effect:
        case do.MuteChannel(_, on) | do.DeafenChannel(_, on):
            return on
    return effect.silence_ms is not None


def _channel(effect: object) -> str:
    target = getattr(effect, "target", None)
    return target.id if isinstance(target, do.Target) else getattr(effect, "channel_id", "")


def still_wanted(directory: Directory, effect: Likely) -> bool:
    """Of one that was put off: its member is there, and so he is to be."""
    conference = directory.conferences.get(directory.whose(effect.channel_id).get("conference_id", ""))
    members = conference.members.values() if conference is not None else ()
    member = next((m for m in members if m.channel_id == effect.channel_id), None)
    if member is None:
        return False
    match effect:
        case do.MuteChannel():
            return member.silenced
        case do.DeafenChannel():
            return member.deaf and member.state != "held"
    return member.detected
