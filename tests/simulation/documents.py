"""Documents drawn from a number: the same number gives the same document, and a smaller one ends sooner."""

from __future__ import annotations

from random import Random

from ari_conf.core import elements as el

NAMES = ("standup", "Ω two words")
SOUND = "http://sounds.example/two"
WAITS = (None, None, SOUND, SOUND, "http://sounds.example/empty", "http://sounds.example/fails",
         "http://sounds.example/broken", "http://sounds.example/pause")  # fmt: skip
SOUNDS = (None, None, "beep:1", "beep:2", SOUND, "http://sounds.example/fails", "http://sounds.example/broken")
PATTERNS: tuple[tuple[str, ...], ...] = ((), (), ("1", "12", "123"), ("12", "23", "#"), ("11",))


LIVE = 100_000
"""Documents of this number and above also have elements that the API's commands on calls concern."""
DIALS = 200_000
"""Documents of this number and above call people."""


def document(number: int) -> tuple[el.Element, ...]:
    """Return the document of this number; number 0 is empty, so that every chain of redirects and actions ends."""
    if number <= 0:
        return ()
    dice = Random(number)
    before = [other(dice, number) for _ in range(dice.choice((0, 0, 0, 1, 2)))]
    stays = [e for _ in range(dice.choice((1, 1, 1, 2))) for e in (conference(dice, number), other(dice, number))]
    # Apart from the dice, which all other documents are drawn with.
    recorded = [record(Random(-number), number)] if number % 7 == 3 else []
    if number >= DIALS:
        stays = [dial(Random(-number), number), *stays]
    return tuple(recorded + before + stays[: dice.choice((1, 2, 4))])


def record(dice: Random, number: int) -> el.Record:
    return el.Record(
        action=dice.choice((None, f"http://action.example/{number // 3}")),
        redirect=dice.random() < 0.5,
        timeout=dice.choice((2, 5)),
        max_length=dice.choice((4, 20, 100)),
        play_beep=dice.random() < 0.5,
        record_session=dice.random() < 0.5,
        record_channel_type=dice.choice(("mono", "stereo")),
        callback_url=dice.choice((None, "http://callback.example/1")),
    )


def dial(dice: Random, number: int) -> el.Dial:
    return el.Dial(
        tuple(
            el.Number(f"+49{number}{n}", send_digits=dice.choice(("", "9"))) for n in range(dice.choice((1, 1, 2, 3)))
        ),
        action=dice.choice((None, f"http://action.example/{number // 3}")),
        redirect=dice.random() < 0.6,
        hangup_on_star=dice.random() < 0.3,
        time_limit=dice.choice((4, 20, 3600)),
        timeout=dice.choice((3, 20, 120)),
        confirm_key=dice.choice((None, None, "1")),
        confirm_sound=dice.choice((None, SOUND, "http://sounds.example/fails")),
        dial_music=dice.choice((None, "http://media.example/a.mp3")),
        callback_url="http://dial.example/",
        digits_match=dice.choice(PATTERNS),
        digits_match_b_leg=dice.choice(PATTERNS),
    )


def conference(dice: Random, number: int) -> el.Conference:
    def now_and_then(value: object, otherwise: object, chance: float = 0.25) -> object:
        return value if dice.random() < chance else otherwise

    return el.Conference(
        name=dice.choice(NAMES[:1] * 3 + NAMES[1:]),
        muted=dice.random() < 0.25,
        enter_sound=dice.choice(SOUNDS),
        exit_sound=dice.choice(SOUNDS),
        start_conference_on_enter=dice.random() < 0.6,
        end_conference_on_exit=dice.random() < 0.15,
        stay_alone=dice.random() < 0.75,
        wait_sound=dice.choice(WAITS),
        max_members=dice.choice((1, 2, 3, 4, 20, 20, 20)),
        record=dice.random() < 0.35,
        record_file_format=dice.choice(("mp3", "wav")),
        time_limit=dice.choice((None, None, None, 0, 4, 30)),
        hangup_on_star=dice.random() < 0.5,
        action=now_and_then(f"http://action.example/{number // 3}", None, 0.7),  # type: ignore[arg-type]
        method=dice.choice(("GET", "POST")),
        redirect=dice.random() < 0.6,
        callback_url=dice.choice(("http://callback.example/1", "http://callback.example/2")),
        callback_method=dice.choice(("GET", "POST")),
        digits_match=dice.choice(PATTERNS),
        relay_dtmf=dice.random() < 0.7,
        floor_event=dice.random() < 0.4,
        send_digits=dice.choice(("", "", "", "9", "w9W99")),
    )


def other(dice: Random, number: int) -> el.Element:
    sound = dice.choice(("http://media.example/a.mp3", "http://media.example/broken.mp3"))
    prompt: tuple[el.Prompt, ...] = (el.Play(sound), el.Wait(1))
    if number >= LIVE and dice.random() < 0.4:
        return dice.choice(
            (
                el.GetInput(prompt, action=f"http://action.example/{number // 3}", digit_end_timeout=3),
                el.GetInput(prompt, action="http://action.example/0", redirect=False, execution_timeout=5),
                el.DTMF("7w7"),
                el.DTMF("7W77", async_=False),
                el.PreAnswer((el.GetInput(prompt, num_digits=1), el.DTMF("7"))),
            )
        )
    return dice.choice(
        (
            el.Play(sound, loop=dice.choice((0, 1, 2))),
            el.Speak("hello"),
            el.Wait(2),
            el.Wait(5, silence=True, min_silence=700),
            el.Wait(5, beep=True),
            el.GetDigits(prompt, action=f"http://action.example/{number // 3}", num_digits=2, retries=2),
            el.GetDigits((), redirect=False, action="http://action.example/0", valid_digits="12"),
            el.PreAnswer((el.Play(sound), el.GetDigits(prompt, num_digits=1))),
            el.Redirect(f"http://document.example/{number // 3}"),
            el.Hangup(schedule=6),
            el.Hangup(),
        )
    )


def sounds(url: str) -> tuple[el.Prompt, ...]:
    """Return the content of the sound document at this URL."""
    match url.rpartition("/")[2]:
        case "two":
            return (el.Play("http://media.example/a.mp3"), el.Speak("please hold"))
        case "broken":
            return (el.Play("http://media.example/broken.mp3"),)
        case "pause":
            return (el.Wait(1), el.Play("http://media.example/a.mp3"))
    return ()
