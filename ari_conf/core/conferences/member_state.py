"""States of a member, and the transitions between them."""

from __future__ import annotations

from enum import StrEnum

from ari_conf.core.transitions import Transitions


class MemberState(StrEnum):
    AWAITING_NAME = "awaiting_name"
    """The conference's name is being claimed. The member is not admitted yet."""
    WAITING = "waiting"
    """Waits for the conference to start, and hears the wait sound."""
    AWAITING_BRIDGE = "awaiting_bridge"
    """Waits for the bridge to exist."""
    ENTERING_BRIDGE = "entering_bridge"
    """AddChannel is in progress."""
    IN_BRIDGE = "in_bridge"
    """Hears the others and is heard."""
    LEAVING_FOR_HOLD = "leaving_for_hold"
    """Leaves the bridge to go on hold."""
    ON_HOLD = "on_hold"
    """Outside the bridge at the API's request: hears music, and is still a member."""
    LEAVING = "leaving"
    """Leaves the conference; the channel may still be in the bridge."""
    LEFT = "left"
    """No member any more."""


TRANSITIONS: Transitions[MemberState] = {
    MemberState.AWAITING_NAME: {
        MemberState.WAITING: "name granted, enter callback",
        MemberState.LEFT: "name refused, or hung up",
    },
    MemberState.WAITING: {
        MemberState.AWAITING_BRIDGE: "conference started",
        MemberState.LEAVING: "exit reason",
    },
    MemberState.AWAITING_BRIDGE: {
        MemberState.ENTERING_BRIDGE: "bridge ready, AddChannel",
        MemberState.ON_HOLD: "hold requested",
        MemberState.LEAVING: "exit reason",
    },
    MemberState.ENTERING_BRIDGE: {
        MemberState.IN_BRIDGE: "ChannelEnteredBridge",
        MemberState.LEAVING: "exit reason, or AddChannel failed",
    },
    MemberState.IN_BRIDGE: {
        MemberState.LEAVING_FOR_HOLD: "hold requested, RemoveChannel",
        MemberState.AWAITING_BRIDGE: "outside after a failed re-entry",
        MemberState.LEAVING: "exit reason, or removed by another",
    },
    MemberState.LEAVING_FOR_HOLD: {
        MemberState.AWAITING_BRIDGE: "ChannelLeftBridge",
        MemberState.IN_BRIDGE: "RemoveChannel failed",
        MemberState.LEAVING: "exit reason",
    },
    MemberState.ON_HOLD: {
        MemberState.AWAITING_BRIDGE: "hold ended",
        MemberState.LEAVING: "exit reason",
    },
    MemberState.LEAVING: {
        MemberState.LEFT: "outside the bridge, or hung up",
    },
    MemberState.LEFT: {},
}
