"""Archive: what the history keeps of calls, conferences and members that have ended."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ari_conf.core.calls.call import Call
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.effects import ArchiveCall, ArchiveConference, ArchiveMember, Effect
from ari_conf.core.elements import Hangup
from ari_conf.core.hangup_codes import HangupCode


def of_ended(ended: Iterable[Call | Conference], now: int) -> list[Effect]:
    """Return the effects that archive what has ended, ordered by id, so that equal steps have equal effects."""
    calls = sorted((one for one in ended if isinstance(one, Call)), key=lambda call: call.call_uuid)
    conferences = [one for one in ended if isinstance(one, Conference)]
    effects: list[Effect] = [of_call(call, now) for call in calls]
    for conference in sorted(conferences, key=lambda conference: conference.conference_id):
        # One whose name was in use elsewhere never had a member.
        if conference.entered:
            effects.append(of_conference(conference, now))
    return effects


def of_call(call: Call, now: int) -> ArchiveCall:
    ended_at = now if call.ended_at is None else call.ended_at
    # A caller who hung up before they were identified may have wanted to withhold the number.
    from_, caller_name = (call.from_, call.caller_name) if call.account is not None else ("", "")
    return ArchiveCall(
        call.call_uuid,
        call.auth_id,
        call.request_uuid,
        call.direction,
        from_.removeprefix("+"),
        call.to.removeprefix("+"),
        caller_name,
        call.started_at,
        call.answered_at,
        max(ended_at, call.started_at),
        "completed",
        call.hangup_cause,
        int(call.hangup_code),
        hangup_source(call),
    )


def hangup_source(call: Call) -> str:
    """Return HangupSource, by who decided that the call ends."""
    code = call.hangup_code
    if code >= HangupCode.ANSWER_UNREACHABLE:
        return "Error"
    if code in (HangupCode.SCHEDULED, HangupCode.NO_MEDIA):
        return "Plivo"
    if code in (HangupCode.BUSY, HangupCode.REJECTED, HangupCode.END_OF_DOCUMENT):
        return "Answer XML"
    if code == HangupCode.NORMAL and call.hangup_attempts:
        last = call.elements[call.position - 1] if 0 < call.position <= len(call.elements) else None
        return "Answer XML" if isinstance(last, Hangup) and not last.schedule else "API Request"
    return "Caller"


def of_conference(conference: Conference, now: int) -> ArchiveConference:
    return ArchiveConference(
        conference.conference_id,
        conference.auth_id,
        conference.name,
        conference.created_at,
        conference.started,
        now if conference.ended_at is None else max(conference.ended_at, conference.created_at),
        conference.end_reason or "conference_ended",
        conference.entered,
    )


def with_numbers(member: ArchiveMember, call: Call | None) -> ArchiveMember:
    """Return the member with the numbers of their call."""
    if call is None:
        return member
    from_, to = call.from_.removeprefix("+"), call.to.removeprefix("+")
    return msgspec.structs.replace(member, from_=from_, to=to, caller_name=call.caller_name)
