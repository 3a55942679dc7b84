"""Tests of the callback judge, with callbacks that are missing, wrong or repeated."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.chaos.callback_judge import hangups, judge


@dataclass(frozen=True)
class Request:
    params: dict[str, str]
    at_ms: float = 0.0
    signed: bool = True

    def signed_with(self, token: str) -> bool:
        return self.signed and token == "the token"


def one(number: int, action: str, member: int = 0, **more: str) -> Request:
    params = {"ConferenceUUID": "c0ffee", "ConferenceName": "standup", "ConferenceSequence": str(number)}
    params["ConferenceAction"] = action
    if member:
        params |= {"ConferenceMemberID": str(member), "CallUUID": f"call {member}"}
    if action == "exit":
        params["ConferenceLastMember"] = "false"
    return Request(params | more)


WHOLE = [
    one(1, "enter", 1),
    one(2, "enter", 2),
    one(3, "digits", 2),
    one(4, "exit", 1),
    one(5, "exit", 2, ConferenceLastMember="true"),
    one(6, "record"),
]


def wrong(requests: list[Request]) -> list[str]:
    return [finding.text for finding in judge(requests, "the token").findings]


def test_complete_callbacks_have_no_fault() -> None:
    told = judge(WHOLE, "the token")
    assert told.findings == []
    assert (told.arrived, told.duplicates, told.conferences) == (6, 0, 1)
    assert told.by_action == {"enter": 2, "exit": 2, "digits": 1, "record": 1}


def test_a_repeated_callback_is_allowed_and_counted() -> None:
    told = judge([*WHOLE[:3], WHOLE[1], *WHOLE[3:], WHOLE[5]], "the token")
    assert told.findings == []
    assert (told.arrived, told.duplicates) == (8, 2)


def test_a_missing_callback_is_a_fault() -> None:
    for lost in range(len(WHOLE) - 1):
        texts = wrong(WHOLE[:lost] + WHOLE[lost + 1 :])
        assert any(f"these numbers never came: [{lost + 1}]" in text for text in texts), lost


def test_missing_last_callbacks_are_a_fault() -> None:
    assert wrong(WHOLE[:4]) == ["conference c0ffee: member 2 entered and never left"]


def test_callbacks_out_of_order_are_a_fault() -> None:
    assert wrong([WHOLE[1], WHOLE[0], *WHOLE[2:]]) == ["enter, number 1 of standup (c0ffee) came after number 2"]


def test_one_sequence_number_for_two_events_is_a_fault() -> None:
    (text,) = wrong([*WHOLE, one(3, "digits", 1)])
    assert text == "digits, number 3 of standup (c0ffee) came before as digits, number 3 of standup (c0ffee)"


def test_an_unsigned_callback_is_a_fault() -> None:
    assert wrong([*WHOLE[:2], replace(WHOLE[2], signed=False), *WHOLE[3:]]) == [
        "not signed: digits, number 3 of standup (c0ffee)"
    ]


def test_a_second_enter_and_an_exit_without_an_enter_are_faults() -> None:
    assert any("member 1 enters twice" in text for text in wrong([*WHOLE[:2], one(3, "enter", 1), *WHOLE[3:]]))
    assert any(
        "member 7 leaves without being in" in text for text in wrong([*WHOLE[:2], one(3, "exit", 7), *WHOLE[3:]])
    )


def test_a_last_member_not_reported_as_the_last_is_a_fault() -> None:
    assert any("ConferenceLastMember is wrong" in text for text in wrong([*WHOLE[:4], one(5, "exit", 2), WHOLE[5]]))


def test_each_call_has_a_hangup_request() -> None:
    came = [Request({"CallUUID": "call 1"}), Request({"CallUUID": "call 1"})]
    assert [finding.text for finding in hangups(came, {"call 1", "call 2"})] == ["the end of call call 2 was not told"]
