"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "calls",
        sa.Column("call_uuid", sa.String(), nullable=False),
        sa.Column("auth_id", sa.String(), nullable=False),
        sa.Column("request_uuid", sa.String(), nullable=False),
        sa.Column("asterisk", sa.String(), nullable=False),
        sa.Column("direction", sa.String(), nullable=False),
        sa.Column("from_number", sa.Text(), nullable=False),
        sa.Column("to_number", sa.Text(), nullable=False),
        sa.Column("caller_name", sa.Text(), nullable=False),
        sa.Column("initiated_ms", sa.BigInteger(), nullable=False),
        sa.Column("answered_ms", sa.BigInteger()),
        sa.Column("ended_ms", sa.BigInteger(), nullable=False),
        sa.Column("duration_s", sa.Integer(), nullable=False),
        sa.Column("bill_duration_s", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("hangup_cause", sa.String(), nullable=False),
        sa.Column("hangup_cause_name", sa.String(), nullable=False),
        sa.Column("hangup_cause_code", sa.Integer(), nullable=False),
        sa.Column("hangup_source", sa.String(), nullable=False),
        sa.Column("parent_call_uuid", sa.String()),
        sa.Column("trunk", sa.String()),
        sa.Column("answered_by", sa.String()),
        sa.PrimaryKeyConstraint("call_uuid", name="pk_calls"),
    )
    op.create_index("ix_calls_auth_id_ended_ms", "calls", ["auth_id", "ended_ms"])
    op.create_index("ix_calls_auth_id_parent_call_uuid", "calls", ["auth_id", "parent_call_uuid"])
    op.create_table(
        "conferences",
        sa.Column("conference_id", sa.String(), nullable=False),
        sa.Column("auth_id", sa.String(), nullable=False),
        sa.Column("asterisk", sa.String(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.Boolean(), nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_reason", sa.String(), nullable=False),
        sa.Column("members", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("conference_id", name="pk_conferences"),
    )
    op.create_index("ix_conferences_auth_id_ended_ms", "conferences", ["auth_id", "ended_ms"])
    op.create_index("ix_conferences_auth_id_name_ended_ms", "conferences", ["auth_id", "name", "ended_ms"])
    op.create_table(
        "memberships",
        sa.Column("conference_id", sa.String(), nullable=False),
        sa.Column("member_id", sa.BigInteger(), nullable=False),
        sa.Column("auth_id", sa.String(), nullable=False),
        sa.Column("call_uuid", sa.String(), nullable=False),
        sa.Column("from_number", sa.Text(), nullable=False),
        sa.Column("to_number", sa.Text(), nullable=False),
        sa.Column("caller_name", sa.Text(), nullable=False),
        sa.Column("joined_ms", sa.BigInteger(), nullable=False),
        sa.Column("left_ms", sa.BigInteger(), nullable=False),
        sa.Column("exit_reason", sa.String(), nullable=False),
        sa.Column("talk_ms", sa.BigInteger()),
        sa.Column("mos", sa.Float()),
        sa.Column("mos_worst", sa.Float()),
        sa.Column("loss_in", sa.Float()),
        sa.Column("loss_out", sa.Float()),
        sa.Column("jitter_in_ms", sa.Float()),
        sa.Column("jitter_out_ms", sa.Float()),
        sa.Column("round_trip_ms", sa.Float()),
        sa.Column("measured_s", sa.Float()),
        sa.Column("line_was_bad", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("conference_id", "member_id", name="pk_memberships"),
    )
    op.create_index("ix_memberships_call_uuid", "memberships", ["call_uuid"])
    op.create_index("ix_memberships_auth_id_left_ms", "memberships", ["auth_id", "left_ms"])
    op.create_table(
        "talks",
        sa.Column("conference_id", sa.String(), nullable=False),
        sa.Column("member_id", sa.BigInteger(), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=False),
        sa.Column("auth_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("conference_id", "member_id", "start_ms", name="pk_talks"),
    )
    op.create_index("ix_talks_auth_id_end_ms", "talks", ["auth_id", "end_ms"])
    op.create_table(
        "recordings",
        sa.Column("recording_id", sa.String(), nullable=False),
        sa.Column("auth_id", sa.String(), nullable=False),
        sa.Column("conference_id", sa.String(), nullable=False),
        sa.Column("conference_name", sa.Text(), nullable=False),
        sa.Column("call_uuid", sa.String(), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=False),
        sa.Column("end_ms", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("recording_id", name="pk_recordings"),
    )
    op.create_index("ix_recordings_auth_id_start_ms", "recordings", ["auth_id", "start_ms"])
    op.create_index("ix_recordings_auth_id_conference_id", "recordings", ["auth_id", "conference_id"])
    op.create_index(
        "ix_recordings_auth_id_conference_name_start_ms", "recordings", ["auth_id", "conference_name", "start_ms"]
    )
    op.create_index("ix_recordings_auth_id_call_uuid", "recordings", ["auth_id", "call_uuid"])
    op.create_table(
        "recording_numbers",
        sa.Column("recording_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("auth_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("recording_id", "kind", "number", name="pk_recording_numbers"),
    )
    op.create_index("ix_recording_numbers_auth_id_kind_number", "recording_numbers", ["auth_id", "kind", "number"])
    op.create_table(
        "callbacks",
        sa.Column("callback_id", sa.String(), nullable=False),
        sa.Column("auth_id", sa.String(), nullable=False),
        sa.Column("conference_id", sa.String(), nullable=False),
        sa.Column("call_uuid", sa.String(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("settled_ms", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("callback_id", name="pk_callbacks"),
    )
    op.create_index("ix_callbacks_auth_id_settled_ms", "callbacks", ["auth_id", "settled_ms"])
    op.create_index("ix_callbacks_auth_id_conference_id_outcome", "callbacks", ["auth_id", "conference_id", "outcome"])
    op.create_index("ix_callbacks_auth_id_outcome_settled_ms", "callbacks", ["auth_id", "outcome", "settled_ms"])
    op.create_table(
        "problems",
        sa.Column("problem_id", sa.String(), nullable=False),
        sa.Column("auth_id", sa.String(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("call_uuid", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("code", sa.Integer()),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("problem_id", name="pk_problems"),
    )
    op.create_index("ix_problems_auth_id_at_ms", "problems", ["auth_id", "at_ms"])
    op.create_index("ix_problems_auth_id_call_uuid", "problems", ["auth_id", "call_uuid"])


def downgrade() -> None:
    raise NotImplementedError("older releases work with newer tables")
