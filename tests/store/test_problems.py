"""Tests of problems: they quote the text of others, so they are bounded and safe to show."""

import msgspec

from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.store.problems import MAX_TEXT_LENGTH, Problem, problems_key, read_problems

KIND = ProblemKind.DOCUMENT_WARNING
OLD = '{"at_ms": 1, "call_uuid": "c", "kind": "document_warning", "text": "\\u001b]0;PWNED\\u0007"}'
"""A problem as it was written before texts were escaped."""


def test_control_characters_are_always_shown_as_escapes(redis_server):
    new = msgspec.json.encode(Problem(2, "c", KIND, "muted=\x1b[2J\u202e can't be", 8011))
    redis_server.client.rpush(problems_key("A"), new, OLD)
    texts = [problem.text for problem in read_problems(redis_server.client, "A")]
    assert texts == [r"muted=\x1b[2J\u202e can't be", r"\x1b]0;PWNED\x07"]
    assert b"\\u001b" not in new


def test_one_that_can_not_be_read_hides_no_other(redis_server):
    good = msgspec.json.encode(Problem(2, "c", KIND, "good"))
    strange = b'{"at_ms":1,"call_uuid":"c","kind":"of another version","text":"x"}'
    without_kind = b'{"at_ms":1,"call_uuid":"c","text":"x"}'
    wrong = b'{"at_ms":"soon","call_uuid":1,"kind":"document_warning","text":[]}'
    redis_server.client.rpush(problems_key("A"), b"{", good, b"\xff", strange, without_kind, wrong)
    assert [problem.text for problem in read_problems(redis_server.client, "A")] == ["good"]


def test_it_quotes_no_whole_document():
    assert len(Problem(1, "c", KIND, "x" * 100_000).text) == MAX_TEXT_LENGTH
    assert len(Problem(1, "c", KIND, "\x00" * 100_000).text) == MAX_TEXT_LENGTH
