"""Tests of the callback judge, with callbacks that are missing, wrong or repeated."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.chaos.told import hangups, judge


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


def test_all_is_well() -> None:
    told = judge(WHOLE, "the token")
    assert told.findings == []
    assert (told.arrived, told.duplicates, told.conferences) == (6, 0, 1)
    assert told.by_action == {"enter": 2, "exit": 2, "digits": 1, "record": 1}


def test_the_same_again_is_allowed_and_counted() -> None:
    told = judge([*WHOLE[:3], WHOLE[1], *WHOLE[3:], WHOLE[5]], "the token")
    assert told.findings == []
    assert (told.arrived, told.duplicates) == (8, 2)


def test_one_is_missing() -> None:
    for lost in range(len(WHOLE) - 1):
        texts = wrong(WHOLE[:lost] + WHOLE[lost + 1 :])
        assert any(f"these numbers never came: [{lost + 1}]" in text for text in texts), lost


def test_the_last_are_missing() -> None:
    assert wrong(WHOLE[:4]) == ["conference c0ffee: member 2 entered and never left"]


def test_out_of_order() -> None:
    assert wrong([WHOLE[1], WHOLE[0], *WHOLE[2:]]) == ["enter, number 1 of standup (c0ffee) came after number 2"]


def test_one_number_for_two() -> None:
    (text,) = wrong([*WHOLE, one(3, "digits", 1)])
    assert text == "digits, number 3 of standup (c0ffee) came before as digits, number 3 of standup (c0ffee)"


def test_not_signed() -> None:
    assert wrong([*WHOLE[:2], replace(WHOLE[2], signed=False), *WHOLE[3:]]) == [
        "not signed: digits, number 3 of standup (c0ffee)"
    ]


def test_who_enters_twice_and_who_leaves_unseen() -> None:
    assert any("member 1 enters twice" in text for text in wrong([*WHOLE[:2], one(3, "enter", 1), *WHOLE[3:]]))
    assert any(
        "member 7 leaves without being in" in text for text in wrong([*WHOLE[:2], one(3, "exit", 7), *WHOLE[3:]])
    )


def test_the_last_who_is_not_told_as_the_last() -> None:
    assert any("ConferenceLastMember is wrong" in text for text in wrong([*WHOLE[:4], one(5, "exit", 2), WHOLE[5]]))


def test_each_call_s_end_is_told() -> None:
    came = [Request({"CallUUID": "call 1"}), Request({"CallUUID": "call 1"})]
    assert [finding.text for finding in hangups(came, {"call 1", "call 2"})] == ["the end of call call 2 was not told"]
