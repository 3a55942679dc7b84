"""redis-keys.md. This module describes the families of keys; the code and the scripts show that none is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ari_conf.queues import queue_names
from tools.reference.markdown import code, compare, document, table

PROJECT = Path(__file__).parents[2]
SOURCES = ("ari_conf", "tasks")
QUEUES = queue_names.ALL
PREFIXES = {"PREFIX", "CELERYS_PREFIX"}
QUEUE_PREFIXES = {"keys", "self._keys", "self.prefix"}
"""Expressions that hold `prefix(queue)`, in addition to the call itself."""
IN_LUA = re.compile(r"\b(?:queue|destination|callbacks)(?:\.\.|, )'([a-z][a-z-]*:?)")
"""A queue's key in a Lua script: `queue..'name'` or `keys.list(queue, 'name')`."""
WHOLE_IN_LUA = re.compile(r"'ari_conf:((?!callbacks:|history:)[a-z][a-z-]*:?)")


class Family(NamedTuple):
    name: str
    """The name after `ari_conf:`. Words in capitals stand for variable parts."""
    type: str
    holds: str
    writer: str
    lives: str


STATE = (
    Family(
        "state-version",
        "string",
        "[version of all that is stored](../operations/upgrades-backups.md#version-of-the-stored-state)",
        "the first process; the server, if it is missing",
        "no expiry",
    ),
    Family(
        "accounts",
        "hash",
        "auth ID → account record (JSON), with its tokens",
        "`ari-conf account`, web process",
        "until the account is removed",
    ),
    Family(
        "removals",
        "hash",
        "auth ID → removal (JSON): its choices, its progress, and the account record with its tokens",
        "`ari-conf account`, web process, workers",
        "a field until the account is removed, and nothing of it is left",
    ),
    Family(
        "audit",
        "stream",
        "audit log: what administrators have changed (JSON); about 10,000 entries",
        "`ari-conf account`, web process, workers",
        "no expiry",
    ),
    Family(
        "state:ASTERISK",
        "hash",
        "UUID of a call or conference → state record (JSON); the next member ID",
        "server",
        "a field until the call or conference has ended",
    ),
    Family(
        "members:CONFERENCE",
        "hash",
        "member ID → member record (JSON)",
        "server",
        "until the conference has ended",
    ),
    Family(
        "names:ACCOUNT",
        "hash",
        "conference name → UUID and Asterisk name of the owner",
        "server",
        "a field until the conference has ended; then, or `ARI_CONF_NAMES_KEPT_MINUTES` after the last renewal of the "
        "owner's lease, another server may claim it",
    ),
    Family(
        "problems:ACCOUNT",
        "list",
        "problems (JSON), the newest first; the newest `ARI_CONF_PROBLEMS_KEPT`",
        "server, workers, web process",
        "90 days after the latest one; 24 hours if the account does not exist",
    ),
    Family(
        "unknown-accounts",
        "sorted set",
        "names without an account that have problems, by the time (s) of the latest; at most 1000",
        "server, workers",
        "24 hours after the latest one",
    ),
    Family(
        "changes:ACCOUNT",
        "channel",
        "UUID and Asterisk name of each conference whose state was written",
        "server",
        "not stored; the web process listens",
    ),
)
OWNERSHIP = (
    Family("owner:ASTERISK", "string", "fencing token of the owner; empty if it was released", "server", "no expiry"),
    Family(
        "lease:ASTERISK",
        "hash",
        "`number`, `heartbeat`, `renewed_ms`, `identity` (of the owner's process), `realm`",
        "server; renewed twice a second",
        "no expiry",
    ),
    Family(
        "standby:ASTERISK",
        "hash",
        "process identity → time (ms) when it last looked",
        "standbys",
        "10 s after the latest one",
    ),
    Family("last-batch:ASTERISK", "string", "ID of the last batch of steps that was written", "server", "no expiry"),
    Family(
        "clock:ASTERISK",
        "hash",
        "`server_ms`, `boottime_ms`, `boot`, `redis_ms`: the server's clock, for the process that takes over",
        "server; every second",
        "no expiry",
    ),
)
COMMANDS = (
    Family(
        "commands:ASTERISK",
        "stream",
        "API commands for the owner, in order; about 10,000",
        "web process",
        "no expiry",
    ),
    Family("commands-done:ASTERISK", "string", "stream ID up to which commands are done", "server", "no expiry"),
    Family("reply:COMMAND", "string", "reply to a command (JSON)", "server", "15 minutes"),
    Family(
        "replies:PROCESS",
        "channel",
        "command ID and reply, for the web process that sent it",
        "server",
        "not stored",
    ),
)
WEB = (
    Family(
        "session:HASH",
        "string",
        "session of the dashboard (JSON); the hash is that of the cookie",
        "web process",
        "`ARI_CONF_LOGIN_HOURS`, or until log-out",
    ),
    Family(
        "sessions:ACCOUNT",
        "list",
        "keys of the account's sessions, the newest first; at most 100",
        "web process",
        "`ARI_CONF_LOGIN_HOURS` after the latest log-in",
    ),
    Family(
        "admin-session:HASH",
        "string",
        "session of the administrator's page (JSON); the hash is that of the cookie",
        "web process",
        "`ARI_CONF_LOGIN_HOURS`, or until log-out",
    ),
    Family(
        "admin-sessions",
        "list",
        "keys of the administrators' sessions, the newest first; at most 100",
        "web process",
        "`ARI_CONF_LOGIN_HOURS` after the latest log-in",
    ),
    Family(
        "idempotency:ACCOUNT",
        "hash",
        "hash of path and Idempotency-Key → request and response (JSON); `bytes`. At most 10,000 keys, 4 MB",
        "web process",
        "24 hours after the latest key",
    ),
    Family(
        "idempotency:ACCOUNT:order",
        "sorted set",
        "the same hashes by time (ms)",
        "web process",
        "24 hours after the latest key",
    ),
    Family(
        "pending-results",
        "hash",
        "api_id → pending result of an asynchronous call (JSON)",
        "web process",
        "a field until the result is queued; one hour after its deadline at most",
    ),
    Family(
        "auth-failures:ADDRESS:ACCOUNT",
        "string",
        "number of wrong tokens; ACCOUNT is `-` if it does not exist",
        "web process",
        "60 s after the first",
    ),
    Family("api-rate:ACCOUNT", "string", "number of requests", "web process", "1 s after the first"),
    Family(
        "api-rate:WHAT:ACCOUNT",
        "string",
        "counter of a call that is allowed once in a period, such as resending all dead letters",
        "web process",
        "the period",
    ),
)
RECORDINGS = (
    Family(
        "recording:ID",
        "string",
        "stored recording (JSON)",
        "recording and transcription workers",
        "until the recording is deleted",
    ),
    Family(
        "recording-index:ACCOUNT:KIND:VALUE",
        "sorted set",
        "recording IDs by start (ms). KIND is `all`, `name`, `uuid`, `call`, `from` or `to`",
        "recording workers",
        "a member until the recording is deleted",
    ),
    Family(
        "recording-notes:ID",
        "sorted set",
        "attendance and speech intervals (JSON) by time (ms); at most 100,000",
        "server",
        "until the recording is stored; 30 days after the latest",
    ),
    Family(
        "transcript-chunks:ID",
        "list",
        "finished chunks of a transcript (JSON)",
        "transcription workers",
        "until the transcript is stored; 7 days after the latest",
    ),
    Family(
        "recording-progress:ID",
        "string",
        "percentage of the work in progress",
        "recording and transcription workers",
        "1 hour",
    ),
    Family(
        "transcribers",
        "sorted set",
        "worker and engine → time (s) when it last reported",
        "transcription workers",
        "60 s after the latest report",
    ),
    Family(
        "retention-lock",
        "string",
        "token of the worker that deletes expired recordings",
        "recording workers",
        "until the worker has finished; 5 minutes after the latest deletion",
    ),
)
QUEUE = (
    Family(
        "QUEUE:partition:PARTITION",
        "list",
        "entries of one partition, in order. PARTITION is ACCOUNT:ORIGIN:HASH",
        "server, web process, workers",
        "until it is empty",
    ),
    Family(
        "QUEUE:accounts",
        "list",
        "accounts with partitions that are ready, in the order of their turns",
        "all that add or take entries",
        "until it is empty",
    ),
    Family(
        "QUEUE:receivers:ACCOUNT",
        "list",
        "the account's receivers (ACCOUNT:ORIGIN) with partitions that are ready",
        "all that add or take entries",
        "until it is empty",
    ),
    Family(
        "QUEUE:ready:ACCOUNT:ORIGIN",
        "list",
        "partitions that are ready, of one receiver",
        "all that add or take entries",
        "until it is empty",
    ),
    Family(
        "QUEUE:claims:WORKER",
        "hash",
        "partition → claim number, for partitions that the worker holds",
        "workers",
        "until it is empty",
    ),
    Family(
        "QUEUE:delayed",
        "sorted set",
        "partitions whose first entry is retried later, by time (ms)",
        "workers",
        "until it is empty",
    ),
    Family(
        "QUEUE:workers",
        "sorted set",
        "worker → end (ms) of its lease",
        "workers; renewed every second, for 6 s",
        "until the worker has gone",
    ),
    Family(
        "QUEUE:health",
        "hash",
        "worker → its last heartbeat (JSON): when, and what keeps the worker from working",
        "workers; every second",
        "until the worker has gone",
    ),
    Family("QUEUE:threads", "hash", "worker → number of its threads", "workers", "until the worker has gone"),
    Family(
        "QUEUE:unanswered-wakeups",
        "sorted set",
        "ids of wake-ups that were issued and not answered, by time (ms)",
        "server, workers",
        "2 s, or until a worker answers",
    ),
    Family(
        "QUEUE:wakeups",
        "list",
        "ids of wake-ups: each starts a thread of a worker",
        "server, workers",
        "until a worker takes it",
    ),
    Family("QUEUE:counts", "hash", "outcome → number since Redis was set up", "workers, server", "no expiry"),
    Family(
        "QUEUE:dead-letters:ACCOUNT",
        "stream",
        "dead letters: partition, entry. The newest `ARI_CONF_DEAD_LETTERS_KEPT`, at most 64 MB; of recordings 100,000",
        "workers",
        "`ARI_CONF_DEAD_LETTERS_DAYS`; of recordings 10 years",
    ),
    Family(
        "QUEUE:delivered:ACCOUNT",
        "list",
        "callbacks that a worker of the release before the history has delivered (JSON). Of `callbacks` only",
        "workers of that release",
        "7 days after the latest",
    ),
    Family(
        "QUEUE:failing:ACCOUNT:ORIGIN",
        "string",
        "recent failures of a receiver, and of an account (`failing:ACCOUNT`)",
        "workers",
        "until the failures are forgotten: 35 s at most; 31 s of an account",
    ),
    Family(
        "QUEUE:entries",
        "hash",
        "account → number of undelivered callbacks. Of `callbacks` only",
        "all that add or take entries",
        "a field until none is left",
    ),
    Family(
        "QUEUE:bytes",
        "hash",
        "account → bytes of undelivered callbacks. Of `callbacks` only",
        "all that add or take entries",
        "a field until none is left",
    ),
    Family(
        "QUEUE:recounted:ACCOUNT",
        "string",
        "the account's callbacks were counted again",
        "all that add entries",
        "60 s",
    ),
    Family(
        "QUEUE:damaged",
        "string",
        "a key of the queue had a wrong type; the next heartbeat of a worker rebuilds them",
        "all that add or take entries",
        "until the rebuild",
    ),
)
HISTORY = (
    Family(
        "history-inbox:ACCOUNT",
        "list",
        "entries (JSON) that wait for the history's database, the oldest first; at most 200,000, and 128 MB",
        "server, workers",
        "until a worker has written them",
    ),
    Family(
        "history-unreadable:ACCOUNT",
        "list",
        "entries that could not be written, the newest first; at most 1000",
        "workers",
        "until `ari-conf history retry`, or until the account is purged",
    ),
    Family(
        "history-entries",
        "hash",
        "account → number of entries that were written into the database",
        "workers",
        "a field until the account is purged",
    ),
    Family(
        "recordings-in-history",
        "hash",
        "account → number of recordings that are in the history's database alone",
        "workers, web process",
        "a field until there are none",
    ),
    Family(
        "history-files",
        "hash",
        "machine → file of SQLite that its workers write (inode), for `ari-conf doctor`",
        "workers",
        "no expiry",
    ),
    Family(
        "history-retention-lock",
        "string",
        "lock of the worker that deletes what accounts no longer keep",
        "workers",
        "5 minutes after the worker's last sign of life",
    ),
)
CELERY = (
    Family(
        "celery:QUEUE",
        "list",
        "messages for Celery's tasks, one list for each queue; ari_conf sends none",
        "operators' programs",
        "until a worker rejects it",
    ),
    Family(
        "celery:…",
        "set, channels",
        "kombu's bindings of queues, and channels for `celery inspect`, `celery events` and Flower",
        "Celery",
        "no expiry",
    ),
)
OTHER = (
    Family(
        "doctor-ID",
        "string",
        "trial of what Redis allows; also as `ari_conf:celery:doctor-ID`, and as a channel",
        "`ari-conf doctor`",
        "deleted immediately",
    ),
)
GROUPS = {
    "Accounts, calls and conferences": STATE,
    "Ownership": OWNERSHIP,
    "API commands": COMMANDS,
    "Web process": WEB,
    "Recordings": RECORDINGS,
    "Queues": QUEUE,
    "History": HISTORY,
    "Celery": CELERY,
    "Other": OTHER,
}

INTRODUCTION = f"""
This page lists the families of Redis keys, so that you can examine an installation and write an access-control list.
The keys are not an interface: their names and contents may change with a new version. Do not change them by hand.

- Every key and channel begins with `ari_conf:`, Celery's with `ari_conf:celery:`. [Redis](../operations/redis.md) has
  an ACL for a user of its own.
- ASTERISK is the name of the Asterisk: its entity ID, or `ARI_CONF_ASTERISK_NAME`. ACCOUNT is an auth ID. CONFERENCE
  is a conference UUID.
- QUEUE is {", ".join(map(code, QUEUES[:-1]))} or {code(QUEUES[-1])}. ORIGIN is a hash of the receiver's scheme,
  host and port, or of the Asterisk that has a recording.
- Times are epoch milliseconds or seconds by Redis' clock.
"""


def page() -> str:
    families = [family for group in GROUPS.values() for family in group]
    compare("redis-keys.md", {_constant_part(family.name) for family in families}, find_keys())
    columns = ("Key", "Type", "Holds", "Written by", "Lives")
    return document(
        "Redis keys",
        INTRODUCTION,
        *(
            f"## {heading}\n\n" + table(columns, ((code(f"ari_conf:{one.name}"), *one[1:]) for one in group))
            for heading, group in GROUPS.items()
        ),
    )


def _constant_part(name: str) -> str:
    """Return the constant part of a name: up to the first word in capitals, after QUEUE."""
    return re.split(r"(?<!^)[A-Z…]|(?<=^celery:)", name.replace("QUEUE:", "*:"))[0]


def find_keys() -> set[str]:
    """Return the constant beginnings of all keys that the code forms; `*:` stands for the prefix of a queue."""
    texts = (path.read_text() for folder in SOURCES for path in (PROJECT / folder).glob("**/*.py"))
    # A module's own PREFIX is not a prefix of keys.
    trees = (ast.parse(text) for text in texts if "PREFIX =" not in text or "CELERYS_PREFIX =" in text)
    in_python = {key.rstrip("*") for tree in trees for node in ast.walk(tree) for key in _keys_of_node(node)}
    scripts = (path.read_text() for folder in SOURCES for path in (PROJECT / folder).glob("**/*.lua"))
    return in_python | {key.rstrip("*") for script in scripts for key in _of_script(script)}


def _of_script(text: str) -> Iterator[str]:
    yield from (f"*:{key}" for key in IN_LUA.findall(text))
    yield from WHOLE_IN_LUA.findall(text)


def _keys_of_node(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.JoinedStr([ast.FormattedValue(prefix), ast.Constant(str(key)), *_]):
            yield from _keys_with_prefix(prefix, key)
        case ast.BinOp(left=prefix, op=ast.Add(), right=ast.Constant(str(key))):
            yield from _keys_with_prefix(prefix, key)


def _keys_with_prefix(prefix: ast.expr, key: str) -> Iterator[str]:
    match prefix:
        case ast.Name(id=name) if name in PREFIXES:
            yield key
        case ast.Call(func=ast.Name(id="prefix") | ast.Attribute(attr="prefix")):
            yield f"*:{key}"
        case _ if ast.unparse(prefix) in QUEUE_PREFIXES:
            yield f"*:{key}"
        case ast.Name(id="prefix") if key.startswith("doctor-"):
            yield key
