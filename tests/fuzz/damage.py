"""State that is damaged: written by another version, or cut, or with anything in place of anything.

What can't be read is left out. What can be read is typed as ours is; should it make no sense all the same, its call or
conference is given up (`Directory.give_up`), and no other notices.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgspec

from ari_conf.core import events as ev
from ari_conf.core import reconcile
from ari_conf.core.call import Call
from ari_conf.core.conference import Conference
from ari_conf.core.directory import Directory
from ari_conf.core.snapshot import snapshot
from tests.fuzz.course import START, Course

Restored = Callable[[Mapping[str, bytes]], tuple[list[Call], list[Conference], int]]
INSTEAD: tuple[Any, ...] = (
    None, True, 0, -1, 2**63, 1e300, "", "x", "Call", "mixed", [], ["x"], {}, {"_": "Call"}, {"_": "Player"},
    [[[[]]]], {"1": None}, "9" * 300,
)  # fmt: skip
HEALTHY = "healthy"


@cache
def written() -> dict[str, bytes]:
    """Calls and conferences in many of their states."""
    found: dict[str, bytes] = {"next_member_id": b"7"}
    dice = [(n * 37 + 11) % 256 for n in range(900)]
    course = Course()
    for at in range(0, len(dice) - 2, 3):
        course.step(dice[at], dice[at + 1], dice[at + 2])
        for key, thing in {**course.directory.calls, **course.directory.conferences}.items():
            found[f"{key}.{type(thing).__name__}"] = msgspec.json.encode(snapshot(thing))
    return found


def play(given: bytes, restored: Restored) -> None:
    """`given`: three bytes choose what is damaged, where and how; with 255 first, the rest is what is written there."""
    whole = written()
    # A few of them, else each input takes long.
    keys = sorted(whole)[sum(given[:1]) % 7 :: len(whole) // 12]
    state = {key: whole[key] for key in keys}
    if given[:1] == b"\xff":
        state[keys[len(given) % len(keys)]] = given[1:]
    else:
        for at in range(0, min(len(given), 60) - 2, 3):
            key = keys[given[at] % len(keys)]
            state[key] = _damaged(state[key], given[at + 1], given[at + 2])
    calls, conferences, next_member_id = restored(state)
    assert next_member_id >= 1
    _live(calls, conferences, next_member_id)


def _damaged(text: bytes, where: int, how: int) -> bytes:
    try:
        shot = json.loads(text)
    except ValueError:
        return text[: where % (len(text) + 1)]
    places = list(_places(shot))
    if not places:
        return json.dumps(INSTEAD[how % len(INSTEAD)]).encode()
    holder, key = places[(where * 31 + how) % len(places)]
    if how % 5 == 0:
        del holder[key]
    else:
        holder[key] = INSTEAD[how % len(INSTEAD)]
    return json.dumps(shot).encode()


def _places(shot: Any) -> Any:
    keys = list(shot) if isinstance(shot, dict) else range(len(shot)) if isinstance(shot, list) else ()
    for key in keys:
        yield shot, key
        yield from _places(shot[key])


def _live(calls: list[Call], conferences: list[Conference], next_member_id: int) -> None:
    """They live on beside one that is as it should be; all are told what may be told."""
    directory = Directory(lambda: "new")
    directory.receive(ev.CallArrived(HEALTHY, HEALTHY, "r", "A", "1", "2"), START)
    directory.restore(calls, conferences, next_member_id)
    channels = {call.channel_id: True for call in calls if isinstance(call.channel_id, str)}
    there = reconcile.There({HEALTHY: True, **channels}, {})
    expected = reconcile.expected(directory)
    directory.resume(reconcile.again(directory, there), START)
    events: list[ev.Event] = [*reconcile.missed(expected, there), ev.TimePassed()]
    events += [event(c) for c in channels for event in (ev.TalkingStarted, lambda c: ev.DigitReceived(c, "1"))]
    events += [ev.ChannelHungUp(c) for c in channels]
    for event in events:
        directory.touched()
        try:
            directory.receive(event, START + 10_000)
        except Exception:
            directory.give_up()
    assert HEALTHY in directory.calls, "no other notices"
