"""Tables of the history. Times are epoch milliseconds, ids are those of the API.

A row is identified by the id of what it describes, so that writing it twice changes nothing. Every table has `auth_id`,
the account, with which all queries begin.

A change of this module needs a migration (`migrations`), and only adds: tables, indexes, and columns that may be null
or have a default in the database. While a system is upgraded, older processes write and read the same tables.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    false,
)

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMES)

calls = Table(
    "calls",
    metadata,
    Column("call_uuid", String, primary_key=True),
    Column("auth_id", String, nullable=False),
    Column("request_uuid", String, nullable=False),
    Column("asterisk", String, nullable=False),
    Column("direction", String, nullable=False),  # inbound or outbound
    Column("from_number", Text, nullable=False),  # without a leading +, as in callbacks
    Column("to_number", Text, nullable=False),
    Column("caller_name", Text, nullable=False),
    Column("initiated_ms", BigInteger, nullable=False),
    Column("answered_ms", BigInteger),  # null: not answered
    Column("ended_ms", BigInteger, nullable=False),
    Column("duration_s", Integer, nullable=False),  # from the beginning, rounded down
    Column("bill_duration_s", Integer, nullable=False),  # from the answer, rounded up
    Column("status", String, nullable=False),  # CallStatus of the hangup callback
    Column("hangup_cause", String, nullable=False),  # HangupCause: the name of the Q.850 cause
    Column("hangup_cause_name", String, nullable=False),  # HangupCauseName
    Column("hangup_cause_code", Integer, nullable=False),
    Column("hangup_source", String, nullable=False),
    Column("parent_call_uuid", String),
    Column("trunk", String),  # of a call that was placed
    Column("answered_by", String),  # human or machine, if that was detected
    Index(None, "auth_id", "ended_ms"),
    Index(None, "auth_id", "parent_call_uuid"),
)

conferences = Table(
    "conferences",
    metadata,
    Column("conference_id", String, primary_key=True),
    Column("auth_id", String, nullable=False),
    Column("asterisk", String, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("started", Boolean, nullable=False),  # false: its members waited until the end
    Column("ended_ms", BigInteger, nullable=False),
    Column("end_reason", String, nullable=False),  # the reason of the exit callbacks of those who were in it
    Column("members", Integer, nullable=False),  # all that were ever admitted; one who came twice counts twice
    Index(None, "auth_id", "ended_ms"),
    Index(None, "auth_id", "name", "ended_ms"),
)

memberships = Table(
    "memberships",
    metadata,
    Column("conference_id", String, nullable=False),
    Column("member_id", BigInteger, nullable=False),
    Column("auth_id", String, nullable=False),
    Column("call_uuid", String, nullable=False),
    Column("from_number", Text, nullable=False),
    Column("to_number", Text, nullable=False),
    Column("caller_name", Text, nullable=False),
    Column("joined_ms", BigInteger, nullable=False),
    Column("left_ms", BigInteger, nullable=False),
    Column("exit_reason", String, nullable=False),
    Column("talk_ms", BigInteger),  # null: nothing listened for talking
    Column("mos", Float),  # averages of the line over the membership; null: not measured
    Column("mos_worst", Float),
    Column("loss_in", Float),  # percent
    Column("loss_out", Float),
    Column("jitter_in_ms", Float),
    Column("jitter_out_ms", Float),
    Column("round_trip_ms", Float),
    Column("measured_s", Float),
    Column("line_was_bad", Boolean, nullable=False, server_default=false()),
    PrimaryKeyConstraint("conference_id", "member_id"),
    Index(None, "call_uuid"),
    Index(None, "auth_id", "left_ms"),
)

talks = Table(
    "talks",
    metadata,
    Column("conference_id", String, nullable=False),
    Column("member_id", BigInteger, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("auth_id", String, nullable=False),
    PrimaryKeyConstraint("conference_id", "member_id", "start_ms"),
    Index(None, "auth_id", "end_ms"),
)

recordings = Table(
    "recordings",
    metadata,
    Column("recording_id", String, primary_key=True),
    Column("auth_id", String, nullable=False),
    Column("conference_id", String, nullable=False),
    Column("conference_name", Text, nullable=False),
    Column("call_uuid", String, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("end_ms", BigInteger, nullable=False),
    Column("document", Text, nullable=False),  # JSON: recordings.index.StoredRecording
    Index(None, "auth_id", "start_ms"),
    Index(None, "auth_id", "conference_id"),
    Index(None, "auth_id", "conference_name", "start_ms"),
    Index(None, "auth_id", "call_uuid"),
)

recording_numbers = Table(
    "recording_numbers",
    metadata,
    Column("recording_id", String, nullable=False),
    Column("kind", String, nullable=False),  # from or to
    Column("number", Text, nullable=False),
    Column("auth_id", String, nullable=False),
    PrimaryKeyConstraint("recording_id", "kind", "number"),
    Index(None, "auth_id", "kind", "number"),
)

callbacks = Table(
    "callbacks",
    metadata,
    Column("callback_id", String, primary_key=True),
    Column("auth_id", String, nullable=False),
    Column("conference_id", String, nullable=False),  # empty: not about a conference
    Column("call_uuid", String, nullable=False),
    Column("event", String, nullable=False),
    Column("outcome", String, nullable=False),  # delivered or dead; a dead letter that is resent may become delivered
    Column("created_ms", BigInteger, nullable=False),
    Column("settled_ms", BigInteger, nullable=False),  # time of the outcome
    Column("attempts", Integer, nullable=False),
    Column("document", Text, nullable=False),  # JSON: queues.outbox.CallbackEntry
    Index(None, "auth_id", "settled_ms"),
    Index(None, "auth_id", "conference_id", "outcome"),
    Index(None, "auth_id", "outcome", "settled_ms"),
)

problems = Table(
    "problems",
    metadata,
    Column("problem_id", String, primary_key=True),
    Column("auth_id", String, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("call_uuid", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("code", Integer),
    Column("text", Text, nullable=False),
    Index(None, "auth_id", "at_ms"),
    Index(None, "auth_id", "call_uuid"),
)

ENDS = {
    calls: calls.c.ended_ms,
    conferences: conferences.c.ended_ms,
    memberships: memberships.c.left_ms,
    talks: talks.c.end_ms,
    callbacks: callbacks.c.settled_ms,
    problems: problems.c.at_ms,
}
"""Table -> the time from which its rows are kept for the days of their account. Recordings have days of their own."""
