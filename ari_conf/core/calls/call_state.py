"""States of a call, and which may follow which."""

from __future__ import annotations

from enum import StrEnum

from ari_conf.core.transitions import Transitions


class CallState(StrEnum):
    QUEUED = "queued"
    """The call is to be placed, and waits for its turn."""
    DIALING = "dialing"
    """A channel has been requested, or is dialed."""
    RINGING = "ringing"
    """The phone that is dialed rings."""
    EARLY = "early"
    """The far end sends early media."""
    DETECTING = "detecting"
    """A placed call has been answered, and it is not known yet whether by a person or a machine."""
    CONFIRMING = "confirming"
    """The call is answered, and the key is asked for that confirms it."""
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


# Constants, because Python 3.11 looks up `CallState.ENDED` in Python code, which costs as much as a call of a function.
(
    QUEUED,
    DIALING,
    RINGING,
    EARLY,
    DETECTING,
    CONFIRMING,
    IDENTIFYING,
    FETCHING,
    RUNNING,
    IN_CONFERENCE,
    HANGING_UP,
    ENDED,
) = CallState
UNANSWERED = frozenset((QUEUED, DIALING, RINGING, EARLY))
"""States of a call that is placed and not answered yet."""

TRANSITIONS: Transitions[CallState] = {
    QUEUED: {
        DIALING: "its turn",
        HANGING_UP: "API",
    },
    DIALING: {
        DIALING: "congestion, next way",
        RINGING: "ChannelRinging",
        EARLY: "ChannelProgress",
        FETCHING: "ChannelAnswered",
        DETECTING: "ChannelAnswered, machine detection",
        CONFIRMING: "ChannelAnswered, confirm key",
        IN_CONFERENCE: "ChannelAnswered, Conference",
        HANGING_UP: "API, ring_timeout",
        ENDED: "ChannelHungUp",
    },
    RINGING: {
        EARLY: "ChannelProgress",
        FETCHING: "ChannelAnswered",
        DETECTING: "ChannelAnswered, machine detection",
        CONFIRMING: "ChannelAnswered, confirm key",
        IN_CONFERENCE: "ChannelAnswered, Conference",
        HANGING_UP: "API, ring_timeout, hangup_on_ring",
        ENDED: "ChannelHungUp",
    },
    EARLY: {
        FETCHING: "ChannelAnswered",
        DETECTING: "ChannelAnswered, machine detection",
        CONFIRMING: "ChannelAnswered, confirm key",
        IN_CONFERENCE: "ChannelAnswered, Conference",
        HANGING_UP: "API, ring_timeout, hangup_on_ring",
        ENDED: "ChannelHungUp",
    },
    DETECTING: {
        CONFIRMING: "verdict, confirm key",
        FETCHING: "verdict",
        IN_CONFERENCE: "verdict, Conference",
        HANGING_UP: "machine, API, time_limit",
        ENDED: "ChannelHungUp",
    },
    CONFIRMING: {
        FETCHING: "key",
        IN_CONFERENCE: "key, Conference",
        HANGING_UP: "no key, another call won, API",
        ENDED: "ChannelHungUp",
    },
    IDENTIFYING: {
        FETCHING: "CallIdentified",
        HANGING_UP: "no account, no document",
        ENDED: "ChannelHungUp",
    },
    FETCHING: {
        FETCHING: "DocumentFailed, fallback URL; transfer",
        RUNNING: "DocumentFetched",
        IN_CONFERENCE: "DocumentFetched, Conference",
        HANGING_UP: "DocumentFailed, no fallback",
        ENDED: "ChannelHungUp",
    },
    RUNNING: {
        RUNNING: "next element",
        FETCHING: "Redirect, action of GetDigits, transfer",
        IN_CONFERENCE: "Conference",
        HANGING_UP: "no element left, Hangup",
        ENDED: "ChannelHungUp",
    },
    IN_CONFERENCE: {
        IN_CONFERENCE: "next Conference",
        RUNNING: "MemberReleased, JoinSkipped",
        FETCHING: "MemberReleased, action or transfer",
        HANGING_UP: "API, Hangup schedule",
        ENDED: "ChannelHungUp",
    },
    HANGING_UP: {ENDED: "ChannelHungUp"},
    ENDED: {},
}
