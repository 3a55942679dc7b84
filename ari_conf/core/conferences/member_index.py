"""Indexes over a conference's members, so that no event needs a search."""

from __future__ import annotations

from collections.abc import Collection

from ari_conf.core.conferences.member import Member


class MemberIndex:
    """Derived from the members and never persisted; the simulation compares it with the members after each event."""

    __slots__ = ("by_channel", "changed", "deadlines")

    def __init__(self, members: Collection[Member]) -> None:
        """Index members that are as they were persisted: none of them has changed."""
        self.by_channel: dict[str, Member] = {m.channel_id: m for m in members}
        self.deadlines: dict[int, int] = {}
        """Deadlines in epoch milliseconds, by member id; members without a deadline are left out."""
        self.changed: dict[int, Member | None] = {}
        """Members that may have changed since the last `Conference.take_changed_members`, by member id; None: those
        that have left."""
        self.update(members)
        self.changed = {}

    def update(self, members: Collection[Member]) -> None:
        """Note that these members may have changed."""
        for member in members:
            self.changed[member.member_id] = member
            deadline = member.deadline
            if deadline is not None:
                self.deadlines[member.member_id] = deadline
            elif self.deadlines:
                self.deadlines.pop(member.member_id, None)

    def mark_changed(self, member: Member) -> None:
        """Note that this member has changed, but not its deadline."""
        self.changed[member.member_id] = member

    def remove(self, member: Member) -> None:
        self.changed[member.member_id] = None
        self.by_channel.pop(member.channel_id, None)
        self.deadlines.pop(member.member_id, None)

    def clear(self, members: Collection[int]) -> None:
        """Remove all members; those of these ids, and all that have changed, have left."""
        self.changed = dict.fromkeys([*self.changed, *members])
        self.by_channel, self.deadlines = {}, {}
