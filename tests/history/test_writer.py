"""Writing into the database: everything arrives, each once, and what is wrong costs only itself."""

from __future__ import annotations

import msgspec
import pytest

from ari_conf.history import queries, writer
from ari_conf.history.database import HistoryDatabase
from ari_conf.history.entries import RecordingDeleted
from ari_conf.history.queries import CallFilter, ConferenceFilter
from tests.history.samples import (
    T0,
    call,
    callback,
    conference,
    everything,
    member,
    problem,
    recording,
    talks,
    texts,
)


def counts(database: HistoryDatabase, auth_id: str = "A") -> dict[str, int]:
    with database.read() as connection:
        return dict(queries.count_all(connection, auth_id))


ONE_OF_EACH = {"calls": 1, "conferences": 1, "recordings": 1, "callbacks": 1, "problems": 1}


def test_what_is_written_can_be_read(database: HistoryDatabase):
    assert writer.write(database, texts(*everything())) == (7, [])
    assert counts(database) == ONE_OF_EACH
    with database.read() as connection:
        found = queries.get_call(connection, "A", "call1")
        assert found is not None
        assert (found.asterisk, found.duration_s, found.bill_duration_s) == ("pbx", 61, 60)
        assert (found.hangup_cause, found.hangup_cause_name) == ("NORMAL_CLEARING", "End Of XML Instructions")
        timeline = queries.get_conference(connection, "A", "conf1")
        assert timeline is not None
        (one,) = timeline.members
        assert (one.mos, one.mos_worst, one.loss_in, one.measured_s, one.line_was_bad) == (3.9, 2.9, 1.5, 48.0, False)
        assert [(talk.start_ms - T0, talk.end_ms - T0) for talk in timeline.talks] == [
            (1_000, 1_500), (2_000, 3_000), (5_000, 7_000),
        ]  # fmt: skip
        assert [found.recording_id for found in timeline.recordings] == ["rec1"]
        assert queries.conferences_of_calls(connection, "A", ["call1", "call2"]) == {"call1": ["conf1"]}
        assert list(queries.members_of(connection, "A", ["conf1"])) == ["conf1"]


def test_what_is_written_again_changes_nothing(database: HistoryDatabase):
    everything_once = texts(*everything())
    for _ in range(3):
        writer.write(database, everything_once)
    writer.write(database, everything_once * 2)
    assert counts(database) == ONE_OF_EACH
    with database.read() as connection:
        timeline = queries.get_conference(connection, "A", "conf1")
        assert timeline is not None and len(timeline.members) == 1 and len(timeline.talks) == 3


def test_a_dead_letter_that_is_resent_and_delivered_is_delivered(database: HistoryDatabase):
    writer.write(database, texts(callback(outcome="dead")))
    with database.read() as connection:
        assert queries.list_dead_letters(connection, "A").total == 1
    writer.write(database, texts(callback(settled_ms=T0 + 5, attempts=2)))
    with database.read() as connection:
        assert queries.list_dead_letters(connection, "A").total == 0
        (found,) = queries.list_callbacks(connection, "A", outcome="delivered").rows
        assert (found.attempts, found.settled_ms) == (2, T0 + 5)


def test_a_transcript_changes_the_recording(database: HistoryDatabase):
    writer.write(database, texts(recording()))
    writer.write(database, texts(recording(document=msgspec.Raw(b'{"transcript":"done"}'))))
    with database.read() as connection:
        (found,) = queries.list_recordings(connection, "A").rows
    assert found.document == '{"transcript":"done"}'


def test_entries_that_can_not_be_read_cost_only_themselves(database: HistoryDatabase):
    wrong = [b"{", b'{"at_ms":1,"item":{"type":"Unknown"}}', b"\xff", b"[" * 5000]
    written = writer.write(database, [*texts(call(1)), *wrong, *texts(call(2))])
    assert written == (2, wrong)
    assert counts(database)["calls"] == 2


def test_entries_that_the_database_refuses_cost_only_themselves(database: HistoryDatabase):
    refused = texts(call(1, initiated_ms=1 << 62, ended_ms=(1 << 62) + (1 << 61)), problem(text="x", at_ms="y"))
    written = writer.write(database, [*refused, *texts(call(2), conference())])
    assert written.unreadable[-1] == refused[1]
    assert counts(database)["conferences"] == 1
    with database.read() as connection:
        assert queries.get_call(connection, "A", "call2")


def test_characters_that_postgresql_does_not_store_are_left_out(database: HistoryDatabase):
    assert writer.write(database, texts(call(caller_name="A\0nn"))) == (1, [])
    with database.read() as connection:
        found = queries.get_call(connection, "A", "call1")
    assert found is not None and found.caller_name == "Ann"


def test_the_same_problem_within_an_hour_counts_once(database: HistoryDatabase):
    again = [problem(n, text="the receiver is down") for n in range(20)]
    writer.write(database, texts(*again, problem(21, text="another")))
    assert counts(database)["problems"] == 2


def test_accounts_see_only_their_own(database: HistoryDatabase):
    writer.write(database, texts(*everything()))
    # The same ids again, for another account: nothing of the first one may change.
    writer.write(database, texts(*everything("B"), recording(2, "B"), call(2, "B")))
    assert counts(database) == ONE_OF_EACH
    with database.read() as connection:
        assert queries.get_call(connection, "B", "call1") is None
        assert queries.get_conference(connection, "B", "conf1") is None
        assert queries.list_callbacks(connection, "B").total == 0
        assert [found.recording_id for found in queries.list_recordings(connection, "B").rows] == ["rec2"]
        assert queries.list_recordings(connection, "A", {"from": "491512"}).total == 1
        assert queries.list_calls(connection, "B", CallFilter(conference_id="conf1")).total == 0


def test_more_than_fits_into_one_statement(database: HistoryDatabase):
    many = [member(n, talks=tuple((T0 + 10 * k, T0 + 10 * k + 5) for k in range(20))) for n in range(100)]
    assert writer.write(database, texts(conference(), *many)).rows == 101
    with database.read() as connection:
        timeline = queries.get_conference(connection, "A", "conf1")
    assert timeline is not None and (len(timeline.members), len(timeline.talks)) == (100, 2_000)


@pytest.fixture
def filled(database: HistoryDatabase) -> HistoryDatabase:
    writer.write(
        database,
        texts(
            call(1),
            call(2, from_="4930", to="200", hangup_code=4000, hangup_source="Caller", ended_ms=T0 + 90_000),
            call(3, answered_ms=None, parent_call_uuid="call1", direction="outbound", ended_ms=T0 + 30_000),
            conference(1),
            conference(2, name="Größe 100%", ended_ms=T0 + 70_000),
            member(1),
            member(2, from_="4930", caller_name="Bob", talks=()),
            member(2, "conf2", from_="4930", caller_name="Bob_X"),
            recording(1),
            recording(2, conference_name="other", numbers=(("4930", "200"),)),
            talks(2),
        ),
    )
    return database


@pytest.mark.parametrize(
    "wanted, found",
    [
        (CallFilter(), ["call2", "call1", "call3"]),
        (CallFilter(from_number="930"), ["call2"]),
        (CallFilter(to_number="100"), ["call1", "call3"]),
        (CallFilter(direction="outbound"), ["call3"]),
        (CallFilter(hangup_cause_code=4000), ["call2"]),
        (CallFilter(hangup_source="Caller"), ["call2"]),
        (CallFilter(parent_call_uuid="call1"), ["call3"]),
        (CallFilter(ended_from_ms=T0 + 61_000), ["call2", "call1"]),
        (CallFilter(ended_until_ms=T0 + 61_000), ["call1", "call3"]),
        (CallFilter(bill_from_s=61), ["call2"]),
        (CallFilter(bill_until_s=0), ["call3"]),
        (CallFilter(conference_id="conf1"), ["call2", "call1"]),
        (CallFilter(status="busy"), []),
        (CallFilter(from_number="\u200b"), []),
        (CallFilter(from_number=""), []),
        (CallFilter(from_number="%"), []),
        (CallFilter(parent_call_uuid=" "), []),
    ],
)
def test_filters_of_calls(filled: HistoryDatabase, wanted: CallFilter, found: list[str]):
    with filled.read() as connection:
        page = queries.list_calls(connection, "A", wanted)
    assert (page.total, [row.call_uuid for row in page.rows]) == (len(found), found)


@pytest.mark.parametrize(
    "wanted, found",
    [
        (ConferenceFilter(), ["conf2", "conf1"]),
        (ConferenceFilter(name="standup"), ["conf1"]),
        (ConferenceFilter(name="Gro\u0308ße 100%"), ["conf2"]),
        (ConferenceFilter(text="STAND"), ["conf1"]),
        (ConferenceFilter(text="100%"), ["conf2"]),
        (ConferenceFilter(text="bob_"), ["conf2"]),
        (ConferenceFilter(text="4930"), ["conf2", "conf1"]),
        (ConferenceFilter(call_uuid="call1"), ["conf1"]),
        (ConferenceFilter(ended_from_ms=T0 + 61_000), ["conf2"]),
        (ConferenceFilter(text="\u2060\u200b"), []),
        (ConferenceFilter(name="\u200b"), []),
    ],
)
def test_filters_of_conferences(filled: HistoryDatabase, wanted: ConferenceFilter, found: list[str]):
    with filled.read() as connection:
        page = queries.list_conferences(connection, "A", wanted)
    assert (page.total, [row.conference_id for row in page.rows]) == (len(found), found)


def test_pages(filled: HistoryDatabase):
    with filled.read() as connection:
        page = queries.list_calls(connection, "A", limit=1, offset=1)
        assert (page.total, [row.call_uuid for row in page.rows]) == (3, ["call1"])
        assert queries.list_calls(connection, "A", limit=20, offset=3).rows == []
        found = queries.list_recordings(connection, "A", {"from": "4930", "name": "other"}, since_ms=T0 + 2)
        assert [row.recording_id for row in found.rows] == ["rec2"]
        assert queries.list_recordings(connection, "A", without=["rec2"]).total == 1


def test_a_recording_that_was_deleted_is_gone(database: HistoryDatabase):
    gone, other = RecordingDeleted("rec1", "A"), RecordingDeleted("rec2", "B")
    writer.write(database, texts(recording(1), recording(2)))
    writer.write(database, texts(gone, other))
    writer.write(database, texts(recording(3), RecordingDeleted("rec3", "A"), recording(4)))
    with database.read() as connection:
        assert [row.recording_id for row in queries.list_recordings(connection, "A").rows] == ["rec4", "rec2"]
        assert queries.list_recordings(connection, "A", {"from": "491512"}).total == 2
