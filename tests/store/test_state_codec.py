"""Tests of the encoding of a call: the cost of a long document at each step."""

from __future__ import annotations

import pytest

from ari_conf.core.calls.call import Call
from ari_conf.core.elements import Wait
from ari_conf.core.events import CallArrived
from ari_conf.documents import parser
from ari_conf.store import state_codec
from ari_conf.store.state_codec import decode, encode

MOST_OF_A_DOCUMENT = 4
"""The maximum size of a call's record, as a multiple of its document: text that is short in XML and long in JSON is
abbreviated."""


def call(*parts: str) -> Call:
    made, _ = Call.from_arrival(CallArrived("ann", "u1", "request", "A", "+4930", "100"), 1)
    made.elements = parser.parse(f"<Response>{''.join(parts)}</Response>".encode()).elements
    return made


LONG = {
    "conferences": "<Conference>a</Conference>" * 1990,
    "digits": "<GetDigits/>" * 1990,
    "digits before the answer": f"<PreAnswer>{'<GetDigits/>' * 1900}</PreAnswer>",
    "sounds": "<Play>http://a.example/</Play>" * 1990,
    "words": "<Speak>a</Speak>" * 1990,
    "of all kinds": '<Conference record="true" timeLimit="0" maxMembers="3">a</Conference><GetDigits numDigits="1">'
    '<Play loop="0">http://a.example/</Play><Wait length="3"/></GetDigits><Hangup reason="busy" schedule="9"/>'
    "<Redirect>http://a.example/</Redirect>" * 50,
}


@pytest.mark.parametrize("what", LONG)
def test_a_long_document_is_written_in_brief_and_read_back_whole(what: str) -> None:
    made = call(LONG[what])
    text = encode(made)
    assert len(text) < MOST_OF_A_DOCUMENT * len(LONG[what])
    assert decode(text, {}) == made


def test_it_is_written_down_once_for_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    made = call(LONG["conferences"])
    first = encode(made)
    monkeypatch.setattr(state_codec, "_brief", None)
    made.position = 7
    assert encode(made) != first and decode(encode(made), {}) == made


def test_another_document_is_encoded_again() -> None:
    made = call(LONG["conferences"])
    encode(made)
    made.elements = (Wait(1),) * 100
    assert decode(encode(made), {}) == made


def test_a_short_one_is_written_as_it_is() -> None:
    made = call("<Conference>a</Conference>")
    assert decode(encode(made), {}) == made and b'"_"' not in encode(made) and made.encoded_elements is None
