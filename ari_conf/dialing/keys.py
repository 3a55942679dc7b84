"""Keys of the dialing limits in Redis. All times are epoch milliseconds.

| key | content |
|---|---|
| ari_conf:trunks | hash: name of a trunk -> its record |
| ari_conf:dialing-calls:ACCOUNT | sorted set: admitted and live calls, by the time until which they count |
| ari_conf:dialing-minute:ACCOUNT | sorted set: calls admitted in the last minute, by time |
| ari_conf:dialing-answered:ACCOUNT | hash: live call -> time of its answer |
| ari_conf:dialing-ended:ACCOUNT | hash: ended call -> "ANSWERED ENDED", until a script adds it to the day |
| ari_conf:dialing-day:ACCOUNT:DAY | milliseconds used by ended calls; the day is counted from 1970 |
| ari_conf:dialing-trunk:TRUNK | sorted set: calls of a trunk, as in calls:ACCOUNT |
| ari_conf:dialing-trunk-next:TRUNK | time from which the trunk may place its next call |
"""

from __future__ import annotations

from ari_conf.common.redis_keys import PREFIX

TRUNKS_KEY = PREFIX + "trunks"


def calls_key(auth_id: str) -> str:
    return f"{PREFIX}dialing-calls:{auth_id}"


def minute_key(auth_id: str) -> str:
    return f"{PREFIX}dialing-minute:{auth_id}"


def answered_key(auth_id: str) -> str:
    return f"{PREFIX}dialing-answered:{auth_id}"


def ended_key(auth_id: str) -> str:
    return f"{PREFIX}dialing-ended:{auth_id}"


def day_prefix(auth_id: str) -> str:
    return f"{PREFIX}dialing-day:{auth_id}:"


def trunk_key(trunk: str) -> str:
    return f"{PREFIX}dialing-trunk:{trunk}"


def trunk_next_key(trunk: str) -> str:
    return f"{PREFIX}dialing-trunk-next:{trunk}"


def account_keys(auth_id: str) -> tuple[str, str, str, str, str]:
    """Return the keys that the scripts take: calls, minute, answered, ended, and the prefix of the days."""
    return (
        calls_key(auth_id), minute_key(auth_id), answered_key(auth_id), ended_key(auth_id), day_prefix(auth_id)
    )  # fmt: skip
