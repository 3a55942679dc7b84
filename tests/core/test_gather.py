"""GetDigits, attribute by attribute."""

from __future__ import annotations

from typing import Any

import pytest

from ari_conf.core import effects as do
from ari_conf.core.elements import GetDigits, GetInput, Play, Speak, Wait
from tests.core.stage import ACTION, Stage

PROMPT = (Speak("your PIN"),)


def asked(stage: Stage, **attributes: Any) -> None:
    stage.documents[ACTION] = (Speak("thanks"), Wait(99))
    stage.call("ann", GetDigits(**{"prompt": PROMPT, "action": ACTION, **attributes}), Speak("nothing"))


def digits(stage: Stage) -> list[str]:
    """Return the Digits with which the action was requested."""
    requests = [dict(e.params) for e in stage.effects if isinstance(e, do.FetchDocument | do.PostCallback)]
    return [params["Digits"] for params in requests if "Digits" in params]


def test_the_prompt_is_cut_short_by_the_first_digit(stage: Stage) -> None:
    """ "the prompt, cut short by the first digit" """
    asked(stage, prompt=(Speak("your"), Speak("PIN")))
    stage.press("ann", "1")
    assert stage.hears("ann") == set() and stage.media("ann") == ["your"]


def test_the_prompt_is_played_in_order(stage: Stage) -> None:
    """ "children Speak, Play, Wait: the prompt" """
    asked(stage, prompt=(Speak("your"), Wait(1), Play("PIN")))
    stage.finish("ann")
    stage.pass_time(1)
    assert stage.media("ann") == ["your", "PIN"]


def test_the_action_request_has_digits(stage: Stage) -> None:
    """ "The action request has Digits"; redirect=true: its document replaces the rest"""
    asked(stage, num_digits=4, method="GET")
    stage.press("ann", "12*4")
    assert digits(stage) == ["12*4"]
    assert stage.all(do.FetchDocument)[-1].method == "GET"
    assert stage.media("ann")[-1] == "thanks"


def test_redirect_false_goes_on_with_the_next_element(stage: Stage) -> None:
    asked(stage, num_digits=1, redirect=False)
    stage.press("ann", "1")
    assert digits(stage) == ["1"] and stage.media("ann")[-1] == "nothing"
    assert stage.all(do.PostCallback)[0].method == "POST"


def test_nothing_entered(stage: Stage) -> None:
    """ "timeout=5 (to the first digit)"; "Nothing entered: the next element, action not called" """
    asked(stage)
    stage.pass_time(60)
    stage.finish("ann")
    stage.pass_time(4.999)
    assert stage.media("ann") == ["your PIN"]
    stage.pass_time(0.001)
    assert stage.media("ann") == ["your PIN", "nothing"] and digits(stage) == []


def test_digit_timeout(stage: Stage) -> None:
    """ "digitTimeout=2" """
    asked(stage)
    stage.press("ann", "1")
    stage.pass_time(1.9)
    stage.press("ann", "2")
    stage.pass_time(1.999)
    assert digits(stage) == []
    stage.pass_time(0.001)
    assert digits(stage) == ["12"]


@pytest.mark.parametrize(("key", "pressed"), [("#", "12#"), ("*", "12*"), ("*#", "12*"), ("*#", "12#")])
def test_finish_on_key(stage: Stage, key: str, pressed: str) -> None:
    """ "finishOnKey=# (a key, several, none)" """
    asked(stage, finish_on_key=key)
    stage.press("ann", pressed)
    assert digits(stage) == ["12"]


def test_finish_on_no_key(stage: Stage) -> None:
    asked(stage, finish_on_key="", num_digits=3)
    stage.press("ann", "1#2")
    assert digits(stage) == ["1#2"]


def test_the_finish_key_alone_is_nothing_entered(stage: Stage) -> None:
    asked(stage)
    stage.press("ann", "#")
    assert digits(stage) == [] and stage.media("ann")[-1] == "nothing"


def test_num_digits(stage: Stage) -> None:
    """ "numDigits=99" """
    asked(stage)
    stage.press("ann", "1" * 98)
    assert digits(stage) == []
    stage.press("ann", "1")
    assert digits(stage) == ["1" * 99]


def test_retries(stage: Stage) -> None:
    """ "retries=1": how often the prompt is played, all in all"""
    asked(stage, retries=2, timeout=1)
    stage.finish("ann")
    stage.pass_time(1)
    assert stage.media("ann") == ["your PIN", "your PIN"]
    stage.finish("ann")
    stage.pass_time(1)
    assert stage.media("ann") == ["your PIN", "your PIN", "nothing"]


def test_play_beep(stage: Stage) -> None:
    """ "playBeep=false" """
    asked(stage, play_beep=True)
    stage.finish("ann")
    assert stage.media("ann") == ["your PIN", "beep:digits"]


def test_valid_digits_and_the_sound_for_others(stage: Stage) -> None:
    """ "validDigits=1234567890*#, invalidDigitsSound (URL)" """
    asked(stage, valid_digits="12", invalid_digits_sound="wrong", retries=2, num_digits=2)
    stage.press("ann", "1")
    stage.press("ann", "3")
    assert stage.media("ann") == ["your PIN", "wrong"]
    stage.press("ann", "1")
    stage.finish("ann")
    assert stage.media("ann") == ["your PIN", "wrong", "your PIN"]
    stage.press("ann", "21")
    assert digits(stage) == ["21"], "earlier digits no longer count"


def test_an_invalid_digit_in_the_last_try_is_nothing_entered(stage: Stage) -> None:
    asked(stage, valid_digits="12")
    stage.press("ann", "9")
    assert digits(stage) == [] and stage.media("ann")[-1] == "nothing"


def test_without_an_action_the_next_element_runs(stage: Stage) -> None:
    asked(stage, action=None, num_digits=1)
    stage.press("ann", "1")
    assert digits(stage) == [] and stage.media("ann")[-1] == "nothing"


def test_without_a_prompt(stage: Stage) -> None:
    asked(stage, prompt=(), timeout=3)
    stage.pass_time(3)
    assert stage.media("ann") == ["nothing"]


def test_a_prompt_that_cannot_be_had(stage: Stage) -> None:
    asked(stage, prompt=(Play("broken"),), timeout=3)
    assert stage.problems() == [(None, "broken")]
    stage.press("ann", "1#")
    assert digits(stage) == ["1"]


def test_the_caller_hangs_up(stage: Stage) -> None:
    asked(stage)
    stage.press("ann", "1")
    stage.hang_up("ann")
    stage.pass_time(10)
    assert digits(stage) == []
    stage.assert_nothing_is_left()


def test_the_digits_of_one_input_are_bounded(stage: Stage) -> None:
    asked(stage, num_digits=999_999_999, digit_timeout=99)
    stage.press("ann", "1" * 1000)
    assert digits(stage) == ["1" * 1000]


# GetInput.


def input_asked(stage: Stage, **attributes: Any) -> None:
    stage.documents[ACTION] = (Speak("thanks"), Wait(99))
    stage.call("ann", GetInput(**{"prompt": PROMPT, "action": ACTION, **attributes}), Speak("nothing"))


def test_get_input_sends_digits_and_says_what_they_are(stage: Stage) -> None:
    input_asked(stage, method="GET")
    stage.press("ann", "12#")
    request = stage.all(do.FetchDocument)[-1]
    params = dict(request.params)
    assert (request.method, params["Event"]) == ("GET", "Redirect")
    assert (params["InputType"], params["Digits"], params["Speech"]) == ("dtmf", "12", "")
    assert stage.media("ann") == ["your PIN", "thanks"], "the first digit cuts the prompt short"


def test_get_input_ends_when_no_further_digit_comes(stage: Stage) -> None:
    input_asked(stage, digit_end_timeout=5)
    stage.press("ann", "1")
    stage.pass_time(4)
    assert digits(stage) == []
    stage.pass_time(1)
    assert digits(stage) == ["1"]


def test_auto_is_two_seconds(stage: Stage) -> None:
    input_asked(stage)
    stage.press("ann", "1")
    stage.pass_time(2)
    assert digits(stage) == ["1"]


def test_get_input_ends_after_its_execution_timeout_however_slowly_digits_come(stage: Stage) -> None:
    input_asked(stage, execution_timeout=5, digit_end_timeout=3)
    stage.finish("ann")
    for _ in range(2):
        stage.pass_time(2)
        stage.press("ann", "1")
    assert digits(stage) == []
    stage.pass_time(1)
    assert digits(stage) == ["11"]


def test_nothing_entered_in_get_input(stage: Stage) -> None:
    input_asked(stage, execution_timeout=5)
    stage.pass_time(60)
    assert stage.media("ann") == ["your PIN"], "the time counts from the end of the prompt"
    stage.finish("ann")
    stage.pass_time(5)
    assert stage.media("ann") == ["your PIN", "nothing"] and digits(stage) == []


def test_get_input_ends_with_its_last_digit_and_redirect_false_goes_on(stage: Stage) -> None:
    input_asked(stage, num_digits=2, redirect=False, finish_on_key="")
    stage.press("ann", "#*")
    assert digits(stage) == ["#*"] and stage.media("ann")[-1] == "nothing"
