"""Conference as its callbacks describe it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ari_conf.core import elements as el


@dataclass
class Stay:
    member_id: int
    call_uuid: str
    channel_id: str
    element: el.Conference


@dataclass
class Seen:
    conference_id: str
    auth_id: str
    name: str
    max_members: int
    inside: dict[int, Stay] = field(default_factory=dict)
    entered: list[Stay] = field(default_factory=list)
    left: list[Stay] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    ends_at: int | None = None
    sequence: int = 0
    recording_id: str | None = None
    handed_on: bool = False
    floor: int | None = None
    talking: set[int] = field(default_factory=set)

    @property
    def ought_to_end(self) -> str | None:
        if any(stay.element.end_conference_on_exit for stay in self.left):
            return "host_left"
        if not self.inside and self.entered:
            return "conference_ended"
        if self.left and len(self.inside) == 1 and not all(stay.element.stay_alone for stay in self.entered):
            return "left_alone"
        return None
