"""Names, joining, waiting for the start, being alone. Each play quotes the sentence that it checks."""

from __future__ import annotations

import pytest

from ari_conf.core import effects as do
from ari_conf.core.elements import Hangup, Play, Speak, Wait
from tests.core.stage import ACTION, MUSIC, Stage, players, stay, waiting

# Names.


def test_a_name_belongs_to_one_account(stage: Stage) -> None:
    """ "the same name in two accounts is two conferences" """
    stage.call("ann", stay(), auth="A")
    stage.call("bob", stay(), auth="B")
    assert stage.conference_id(auth="A") != stage.conference_id(auth="B")
    assert stage.hears("ann") == set()


def test_names_are_case_sensitive(stage: Stage) -> None:
    stage.call("ann", stay("standup"))
    stage.call("bob", stay("Standup"))
    assert len(stage.engine.conferences) == 2


def test_two_meet_under_one_name(stage: Stage) -> None:
    players(stage, "ann", "bob")
    assert stage.hears("ann") == {"bob"}
    assert stage.hears("bob") == {"ann"}


# Joining.


def test_two_callers_at_once_meet_in_one_conference(stage: Stage) -> None:
    """ "Creating is atomic: two callers at once meet in one conference." """
    stage.held = {do.ClaimName}
    players(stage, "ann", "bob")
    assert len(stage.waiting) == 1
    stage.let_go()
    assert stage.hears("ann") == {"bob"}
    assert len(stage.all(do.CreateBridge)) == 1


def test_one_that_is_ending_is_not_live(stage: Stage) -> None:
    """ "a caller who arrives then gets a new one, with a new UUID" """
    stage.held = {do.DestroyBridge}
    players(stage, "ann")
    first = stage.conference_id()
    stage.hang_up("ann")
    assert first in stage.engine.conferences
    players(stage, "bob")
    assert stage.conference_id() != first
    stage.let_go()
    assert list(stage.engine.conferences) == [stage.conference_id()]


def test_during_the_end_with_members_still_inside_a_newcomer_meets_none_of_them(stage: Stage) -> None:
    stage.call("host", stay(end_conference_on_exit=True), Wait(100))
    stage.call("ann", stay(), Wait(100))
    stage.held = {do.RemoveChannel}
    stage.hang_up("host")
    stage.call("bob", stay())
    assert stage.hears("bob") == set()
    stage.let_go()
    assert stage.callback_texts()[-1] == "exit ann host_left"
    assert stage.conference() is not None


def test_an_id_is_never_reused(stage: Stage) -> None:
    """ "create one with a fresh UUID (never reuse an id)" """
    ids = set()
    for name in ("ann", "bob", "cid"):
        players(stage, name)
        ids.add(stage.conference_id())
        stage.hang_up(name)
    assert len(ids) == 3


@pytest.mark.parametrize("most", [1, 2, 20])
def test_full_skips_the_element_and_its_action(stage: Stage, most: int) -> None:
    """ "Full (maxMembers)? The element and its action are skipped; the next element runs. No callback." """
    inside = [f"m{n}" for n in range(most)]
    players(stage, *inside, max_members=most)
    stage.call("late", stay(action=ACTION, max_members=20), Speak("sorry"))
    assert len(stage.callbacks()) == most
    assert stage.actions() == []
    assert stage.media("late") == ["sorry"]


@pytest.mark.parametrize(
    ("operators", "wanted", "most"),
    [(20, None, 20), (20, 21, 20), (3, None, 3), (3, 4, 3), (25, None, 25), (25, 24, 24)],
)
def test_an_operator_says_how_many_an_account_may_have(
    stage: Stage, operators: int, wanted: int | None, most: int
) -> None:
    """ "An operator may raise the 20 for an account; then the range and the default reach to that number" """
    stage.account["max_members"] = operators
    players(stage, *(f"m{n}" for n in range(most)), max_members=wanted)
    stage.call("late", stay(max_members=wanted), Speak("sorry"))
    assert stage.media("late") == ["sorry"]
    reported = [problem.text for problem in stage.all(do.ReportProblem)]
    refused = (
        f'Conference: maxMembers="{wanted}" is not allowed (a whole number from 1 to {operators}); {operators} is used'
    )
    assert reported == ([refused] * (most + 1) if wanted is not None and wanted > operators else [])


def test_max_members_is_fixed_by_the_first_member(stage: Stage) -> None:
    """ "set by the first member, fixed afterwards" """
    stage.call("ann", stay(max_members=2))
    stage.call("bob", stay(max_members=20))
    stage.call("cid", stay(max_members=20))
    stage.hang_up("ann")
    stage.call("dan", stay(max_members=1))
    stage.call("eve", stay(max_members=20))
    assert stage.callback_texts() == ["enter ann", "enter bob", "exit ann hangup", "enter dan"]


def test_a_leaving_member_is_a_member_until_they_have_left(stage: Stage) -> None:
    stage.call("ann", stay(max_members=1, hangup_on_star=True), Wait(100))
    stage.held = {do.RemoveChannel}
    stage.press("ann", "*")
    stage.call("bob", stay(), Wait(100))
    assert stage.callback_texts() == ["enter ann"]


def test_a_full_conference_does_not_answer_the_call(stage: Stage) -> None:
    players(stage, "ann", max_members=1)
    stage.call("bob", stay(), Hangup(reason="busy"))
    assert do.Answer("bob") not in stage.effects
    assert do.HangUp("bob", "busy") in stage.effects


def test_joining_answers_the_call(stage: Stage) -> None:
    """ "Answer the call if it is not answered." """
    players(stage, "ann")
    assert next(e for e in stage.effects if isinstance(e, do.Answer | do.AddChannel)) == do.Answer("ann")
    stage.call("bob", stay(), answered=True)
    assert do.Answer("bob") not in stage.effects


def test_member_ids_come_from_one_counter(stage: Stage) -> None:
    """ "a small integer, from a counter that all conferences share" """
    stage.call("ann", stay("one"))
    stage.call("bob", stay("two"))
    stage.call("cid", stay("one"))
    assert [c["ConferenceMemberID"] for c in stage.callbacks()] == ["1", "2", "3"]


def test_another_process_holds_the_name(stage: Stage) -> None:
    stage.names_elsewhere = {"standup"}
    stage.call("ann", stay(action=ACTION), Speak("sorry"))
    assert stage.media("ann") == ["sorry"]
    assert stage.callbacks() == stage.actions() == []
    assert "standup" in stage.problems()[0][1]
    assert not stage.engine.conferences


# Waiting for the start.


def test_until_the_start_nobody_hears_anybody(stage: Stage) -> None:
    """Spec: each member hears their own waitSound, or the default music-on-hold class if they have none."""
    stage.sounds[MUSIC] = (Play("http://media.example/jazz.mp3"),)
    stage.call("ann", waiting())
    stage.call("bob", waiting(wait_sound=MUSIC))
    assert stage.hears("ann") == {"music"}
    assert stage.media("bob") == ["http://media.example/jazz.mp3"]
    assert stage.all(do.AddChannel) == []
    assert stage.callback_texts() == ["enter ann", "enter bob"]


def test_anothers_coming_and_going_does_not_restart_the_music(stage: Stage) -> None:
    """ "one member's music never reaches another, and another's coming or going does not restart it" """
    stage.sounds[MUSIC] = (Play("http://media.example/jazz.mp3"),)
    stage.call("ann", waiting())
    stage.call("bob", waiting(wait_sound=MUSIC))
    so_far = [e for e in stage.effects if isinstance(e, do.StartMusic | do.PlayMedia | do.StopMusic | do.StopPlayback)]
    stage.call("cid", waiting(enter_sound="beep:1", exit_sound="beep:1"))
    stage.hang_up("cid")
    again = [e for e in stage.effects if isinstance(e, do.StartMusic | do.PlayMedia | do.StopMusic | do.StopPlayback)]
    assert [e for e in again if "cid" not in repr(e)] == so_far


def test_the_first_who_may_starts_it_for_good(stage: Stage) -> None:
    """ "it stays started until it ends, also if that member leaves" """
    stage.call("ann", waiting())
    stage.call("bob", waiting())
    stage.call("host", stay())
    assert stage.hears("ann") == {"bob", "host"}
    stage.hang_up("host")
    assert stage.hears("ann") == {"bob"}
    stage.call("cid", waiting())
    assert stage.hears("cid") == {"ann", "bob"}


def test_muted_by_waiting_is_not_muted(stage: Stage) -> None:
    """Spec: at the start a member can speak unless their `muted` is true."""
    stage.call("ann", waiting())
    stage.call("bob", waiting(muted=True))
    stage.call("host", stay())
    assert stage.hears("host") == {"ann"}
    assert stage.hears("bob") == {"ann", "host"}


# muted.


def test_a_muted_member_still_hears(stage: Stage) -> None:
    """ "the member joins muted; still hears" """
    stage.call("ann", stay(muted=True))
    stage.call("bob", stay())
    assert stage.hears("bob") == set()
    assert stage.hears("ann") == {"bob"}


def test_a_member_is_muted_before_entering_and_unmuted_after_leaving(stage: Stage) -> None:
    stage.call("ann", stay(muted=True, hangup_on_star=True), Wait(9))
    about = [e for e in stage.effects if isinstance(e, do.MuteChannel | do.AddChannel)]
    assert about == [do.MuteChannel("ann", True), do.AddChannel("ann", stage.bridge_id(), member_id=1)]
    stage.press("ann", "*")
    assert not stage.asterisk.channels["ann"].muted


# Alone after the start.


def test_a_lone_member_hears_the_wait_sound_or_silence(stage: Stage) -> None:
    """Spec: a lone member hears their waitSound (none: silence)."""
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.call("ann", stay())
    assert stage.hears("ann") == set()
    stage.call("bob", stay("other", wait_sound=MUSIC))
    assert stage.media("bob") == ["jazz"] and len(stage.hears("bob")) == 1


def test_it_stops_the_instant_that_a_second_enters_and_starts_again(stage: Stage) -> None:
    """Spec: it stops the instant that a second member enters, and starts again if the member is alone again."""
    stage.sounds[MUSIC] = (Play("jazz"),)
    stage.call("ann", stay(wait_sound=MUSIC))
    stage.held = {do.AddChannel}
    stage.call("bob", stay())
    assert stage.hears("ann") == set(), "before bob is in the bridge"
    stage.let_go()
    assert stage.hears("ann") == {"bob"}
    stage.hang_up("bob")
    assert stage.media("ann") == ["jazz", "jazz"] and len(stage.hears("ann")) == 1
    assert len(stage.all(do.FetchSoundDocument)) == 1


def test_the_default_music_is_for_before_the_start_alone(stage: Stage) -> None:
    stage.call("ann", waiting())
    stage.call("host", stay())
    stage.hang_up("host")
    assert stage.hears("ann") == set()
