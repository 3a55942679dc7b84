"""States of a call, and which may follow which."""

from __future__ import annotations

from enum import StrEnum

from ari_conf.core.transitions import Transitions


class CallState(StrEnum):
    IDENTIFYING = "identifying"
    """The account and the headers of the call are being looked up."""
    FETCHING = "fetching"
    """A document is being requested."""
    RUNNING = "running"
    """An element of the document runs, other than Conference."""
    IN_CONFERENCE = "in_conference"
    """A Conference element runs: the call has asked to join, or is a member."""
    HANGING_UP = "hanging_up"
    """Asterisk has been asked to hang up, until it confirms that the channel no longer exists."""
    ENDED = "ended"
    """The channel no longer exists."""


TRANSITIONS: Transitions[CallState] = {
    CallState.IDENTIFYING: {
        CallState.FETCHING: "CallIdentified",
        CallState.HANGING_UP: "no account, no document",
        CallState.ENDED: "ChannelHungUp",
    },
    CallState.FETCHING: {
        CallState.FETCHING: "DocumentFailed, fallback URL",
        CallState.RUNNING: "DocumentFetched",
        CallState.IN_CONFERENCE: "DocumentFetched, Conference",
        CallState.HANGING_UP: "DocumentFailed, no fallback",
        CallState.ENDED: "ChannelHungUp",
    },
    CallState.RUNNING: {
        CallState.RUNNING: "next element",
        CallState.FETCHING: "Redirect, action of GetDigits",
        CallState.IN_CONFERENCE: "Conference",
        CallState.HANGING_UP: "no element left, Hangup",
        CallState.ENDED: "ChannelHungUp",
    },
    CallState.IN_CONFERENCE: {
        CallState.IN_CONFERENCE: "next Conference",
        CallState.RUNNING: "MemberReleased, JoinSkipped",
        CallState.FETCHING: "MemberReleased, action",
        CallState.HANGING_UP: "API, Hangup schedule",
        CallState.ENDED: "ChannelHungUp",
    },
    CallState.HANGING_UP: {CallState.ENDED: "ChannelHungUp"},
    CallState.ENDED: {},
}
