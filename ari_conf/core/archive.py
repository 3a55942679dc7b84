"""Archive: what the history keeps of calls, conferences and members that have ended."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ari_conf.core.calls.call import Call
from ari_conf.core.calls.machine_detection import MachineDetection, Verdict
from ari_conf.core.conferences.conference import Conference
from ari_conf.core.effects import ArchiveCall, ArchiveConference, ArchiveMember, Effect
from ari_conf.core.hangup_codes import source_of


def of_ended(ended: Iterable[Call | Conference], now: int) -> list[Effect]:
    """Return the effects that archive what has ended, ordered by id, so that equal steps have equal effects."""
    calls = sorted((one for one in ended if isinstance(one, Call)), key=lambda call: call.call_uuid)
    conferences = [one for one in ended if isinstance(one, Conference)]
    effects: list[Effect] = [of_call(call, now) for call in calls]
    for conference in sorted(conferences, key=lambda conference: conference.conference_id):
        # One whose name was in use elsewhere never had a member.
        if conference.entered and not conference.is_private:
            effects.append(of_conference(conference, now))
    return effects


def of_call(call: Call, now: int) -> ArchiveCall:
    ended_at = now if call.ended_at is None else call.ended_at
    # A caller who hung up before they were identified may have wanted to withhold the number.
    from_, caller_name = (call.from_, call.caller_name) if call.account is not None else ("", "")
    outgoing = call.outgoing
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
        call.call_status,
        call.hangup_cause,
        int(call.hangup_code),
        call.hangup_source or source_of(call.hangup_code),
        parent_call_uuid=outgoing.options.parent_call_uuid if outgoing is not None else None,
        trunk=outgoing.present.trunk if outgoing is not None else None,
        answered_by=_answered_by(outgoing.machine) if outgoing is not None else None,
    )


def _answered_by(machine: MachineDetection | None) -> str | None:
    """Return human or machine, or None if that was not decided."""
    verdict = machine.verdict if machine is not None else None
    return None if verdict is None or verdict is Verdict.UNDECIDED else verdict.value


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
