"""Two sets of recordings of what answers a call: `TEST` is what the accuracy is measured with, `TUNING` is what the
detector's constants were chosen with. No text and no piece of a recording is in both; the programs' voices mostly are.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tests.machine_detection import sounds as s
from tests.machine_detection.sounds import Line, Samples

SECONDS = 11.0
"""Length of each recording: as long as the longest detection, and one second."""
Part = Samples | tuple[str, str]
"""Sound at its own level; or (voice, text), spoken at the line's level. A voice "clip" has a piece of a recording as
its text: NAME@START+SECONDS, and "music" a piece of music on hold: START+SECONDS."""


@dataclass(frozen=True)
class Recording:
    name: str
    answered_by: Literal["human", "machine"]
    parts: Sequence[Part]
    line: Line = Line()  # noqa: RUF009  frozen

    @functools.cached_property
    def seed(self) -> int:
        return zlib.crc32(self.name.encode())

    def samples(self) -> NDArray[np.int16]:
        """Return the sound as the server hears it: 8 kHz, from the answer on."""
        return self.line.carry(self.sound(), SECONDS, self.seed)

    def sound(self) -> Samples:
        """Return the sound as it is said: 16 kHz, without the line."""
        return np.concatenate([self._spoken(part) for part in self.parts])

    def _spoken(self, part: Part) -> Samples:
        if not isinstance(part, tuple):
            return part
        voice, text = part
        name, _, where = text.rpartition("@") if voice == "music" or "@" in text else (text, "", "0+1000")
        start, _, seconds = where.partition("+")
        if voice == "music":
            return s.music(float(start), float(seconds), self.line.level)
        if voice != "clip":
            return s.at_level(s.say(voice, text), self.line.level)
        return s.at_level(s.clip(name, float(start), float(seconds)), self.line.level)


def human(name: str, *parts: Part, line: Line = Line()) -> Recording:  # noqa: B008  frozen
    return Recording(name, "human", parts, line)


def machine(name: str, *parts: Part, line: Line = Line()) -> Recording:  # noqa: B008  frozen
    return Recording(name, "machine", parts, line)


WIDE = Line(codec="G722")
QUIET = Line(level=-31.0)
LOUD = Line(level=-11.0, noise_level=-55.0)
CAR = Line(level=-18.0, noise="car", noise_level=-34.0)
OFFICE = Line(level=-18.0, noise="babble", noise_level=-38.0)
STREET = Line(level=-17.0, noise="pink", noise_level=-35.0)
HISS = Line(level=-22.0, noise="white", noise_level=-42.0)
HUM = Line(level=-20.0, noise="hum", noise_level=-38.0)
RADIO = Line(level=-17.0, noise="music", noise_level=-42.0)
LOSSY = Line(level=-20.0, loss=0.03)
MOBILE = Line(level=-24.0, noise="pink", noise_level=-46.0, loss=0.02)
WIDE_OFFICE = Line(level=-20.0, noise="babble", noise_level=-42.0, codec="G722")

JOE, FESTIVAL = "piper", "festival"
SLT, AWB, RMS, KAL = "flite slt", "flite awb", "flite rms", "flite kal16"
MAN, WOMAN = "espeak en-gb:45:160", "espeak en-us+f3:60:165"
SCOT, GRAN, BOSS = "espeak en-gb-scotland+f2:55:150", "espeak en-us+f5:40:140", "espeak en-us+m7:35:175"

# fmt: off
TEST = (
    human("hello", s.pause(700), (GRAN, "Hello?")),
    human("hello, cold", s.pause(450), (FESTIVAL, "Hello, who's there?"), line=HISS),
    human("yes please", s.pause(900), (SCOT, "Yes?"), line=MOBILE),
    human("speaking", s.pause(600), (JOE, "Peter Wilson."), line=WIDE),
    human("number", s.pause(800), (AWB, "Five five five, one two."), line=STREET),
    human("ward", s.pause(500), (SLT, "Ward seven, sister Ruth."), line=WIDE_OFFICE),
    human("garage", s.pause(700), (BOSS, "Dave's garage, good morning."), line=CAR),
    human("practice", s.pause(600), (JOE, "Good morning. Baker Street practice."), line=OFFICE),
    human("again", s.pause(500), (RMS, "Hello?"), s.pause(1800), (RMS, "Hello, are you there?"), line=LOSSY),
    human("waits", s.pause(2900), (FESTIVAL, "Who is calling?"), line=QUIET),
    human("breathes", s.breath(600, -36), s.pause(150), (KAL, "Hello, Frank here."), line=WIDE),
    human("picks up", s.click(-6), s.pause(120), s.click(-12), s.pause(900), (SLT, "Hi there!"), line=HUM),
    human("out of breath", s.breath(300), (JOE, "Hey!"), s.breath(350), s.pause(200), s.breath(350), line=MOBILE),
    human("in the kitchen", s.pause(800), (WOMAN, "Hello? Smith."), line=RADIO),
    human("party", s.pause(700), (BOSS, "Yeah, hello?"), line=Line(level=-14, noise="babble", noise_level=-33)),
    human("real name", s.pause(700), ("clip", "phonetic/o_p.wav"), line=STREET),
    human("real moment", s.pause(500), ("clip", "one-moment-please.wav"), line=WIDE),
    human("real words", s.pause(900), ("clip", "vm-goodbye.wav"), s.pause(250), ("clip", "vm-Friends.wav"), line=LOUD),
    human("real reader", s.pause(600), ("clip", "austen.wav@6.0+0.8"), line=HISS),
    human("real man", s.pause(750), ("clip", "cards.wav@5.2+1.1"), line=MOBILE),
    machine("real mailbox full", s.pause(600), ("clip", "vm-mailboxfull.wav"), s.pause(400), s.beep(1000, 300)),
    machine("real on the phone", *(s.pause(500), ("clip", "vm-theperson.wav"), s.pause(80), ("clip", "digits/7.wav")),
            *(s.pause(80), ("clip", "vm-isonphone.wav"), s.pause(250), ("clip", "vm-leavemsg.wav"), s.beep()),
            line=WIDE),
    machine("real not available", s.sit(), s.pause(300), ("clip", "feature-not-avail-line.wav"), line=STREET),
    machine("real queue", s.pause(300), ("clip", "queue-periodic-announce.wav"), line=LOUD),
    machine("real no answer", s.pause(1500), ("clip", "pbx-invalid.wav"), line=QUIET),
    machine("away", s.pause(600), (GRAN, "This is Martha's phone. I am in the garden. Leave me a message, dear."),
            s.pause(800), s.beep(1100, 350), line=MOBILE),
    machine("standard", s.pause(800), (FESTIVAL, "You have reached five five five, one two three four. Please record "
            "your "
            "message."), s.pause(300), s.beep(440, 500), line=HISS),
    machine("short", s.pause(600), (SCOT, "Leave your name."), s.pause(400), s.beep(1250, 250)),
    machine("name only", s.pause(500), (RMS, "Robert Brown."), s.pause(500), s.beep(750, 600), line=WIDE),
    machine("beep at once", s.pause(300), s.beep(1000, 180), line=LOSSY),
    machine("late", s.pause(2400), (JOE, "The customer you are trying to reach does not answer."), line=HUM),
    machine("closed", s.pause(400), (WOMAN, "Hello and thank you for calling. We are closed on Sundays."), line=WIDE),
    machine("press one", s.pause(500), (BOSS, "For English, press one. For Spanish, press two."), line=CAR),
    machine("lively", s.pause(350), (JOE, "Hey, it's Pete! I'm probably out running, so text me!"), s.pause(700),
            s.beep()),
    machine("answering service", s.noise("white", 6000, -40, 3), (SLT, "Doctor Grey's answering service. All lines are "
            "busy, please hold on."), line=OFFICE),
    machine("busy tone", s.tone(425, 480, -16), s.pause(480), s.tone(425, 480, -16), s.pause(480), s.tone(425, 480,
            -16),
            s.pause(480), s.tone(425, 480, -16), s.pause(480), s.tone(425, 480, -16), line=WIDE),
    machine("dead line", s.pause(9000), line=HUM),
    machine("fax answers", s.pause(1800), s.tone(2100, 3300, -12)),
    machine("jingle", ("music", "12+3"), (AWB, "Welcome to the travel line. Did you know that you can book online?")),
    machine("old tape", s.noise("pink", 12000, -35, 2), (KAL, "Hello, nobody can take your call just now, but please "
            "do "
            "leave a message."), s.pause(500), s.beep(900, 1500), line=Line(noise="pink", noise_level=-40)),
)
"""40 recordings, 20 of each."""

TUNING = (
    human("hello", s.pause(600), (JOE, "Hello?")),
    human("hello at once", (FESTIVAL, "Hello?")),
    human("yes", s.pause(900), (SLT, "Yes?"), line=WIDE),
    human("hello, real", s.pause(700), ("clip", "hello.wav"), line=HISS),
    human("name", s.pause(500), (JOE, "Anna Miller speaking."), line=STREET),
    human("company", s.pause(800), (FESTIVAL, "Good morning, Miller and sons.")),
    human("company, wide", s.pause(700), (JOE, "Good afternoon. City Dental. This is Joe."), line=WIDE_OFFICE),
    human("hello twice", s.pause(400), (AWB, "Hello?"), s.pause(1500), (AWB, "Hello? Who is it?")),
    human("late", s.pause(3000), (SLT, "Hello?"), line=MOBILE),
    human("breath first", s.breath(450), s.pause(250), (JOE, "Yes, hello?")),
    human("handset", s.click(), s.pause(600), s.click(-16), s.pause(300), (FESTIVAL, "Miller."), line=HUM),
    human("in a car", s.pause(600), (AWB, "Hi, Tom here."), line=CAR),
    human("in an office", s.pause(500), (SLT, "Sales, Jane Brown."), line=OFFICE),
    human("radio beside", s.pause(700), (JOE, "Hello?"), line=RADIO),
    human("quiet", s.pause(900), (FESTIVAL, "Hello, this is Susan."), line=QUIET),
    human("loud", s.pause(300), (AWB, "Hello!"), line=LOUD),
    human("packets lost", s.pause(500), (JOE, "Hello, Peter speaking."), line=LOSSY),
    human("sorry, real", s.pause(800), ("clip", "im-sorry.wav"), line=WIDE),
    human("answer, real", s.pause(600), ("clip", "austen.wav@0.2+0.9"), line=STREET),
    human("two phrases, real", s.pause(400), ("clip", "hello.wav"), s.pause(350), ("clip", "calling.wav"), line=MOBILE),
    machine(
        "voicemail, real",
        *(s.pause(500), ("clip", "vm-theperson.wav"), s.pause(150), ("clip", "digits/4.wav"), s.pause(60)),
        *(("clip", "digits/2.wav"), s.pause(100), ("clip", "vm-isunavail.wav"), s.pause(300), ("clip", "vm-intro.wav")),
        *(s.pause(200), s.beep()),
    ),
    machine("nobody there, real", s.pause(900), ("clip", "vm-nobodyavail.wav"), s.pause(300), s.beep(), line=WIDE),
    machine("no service, real", s.sit(), s.pause(250), ("clip", "ss-noservice.wav")),
    machine("circuits busy, real", s.pause(400), ("clip", "all-circuits-busy-now.wav"), s.pause(500),
            ("clip", "please-try-call-later.wav"), line=HISS),
    machine("you have reached", s.pause(700), (JOE, "Hi, you've reached the voicemail of Anna Miller. I can't come to "
            "the phone right now. Please leave a message after the tone."), s.pause(600), s.beep(850)),
    machine("family", s.pause(600), (SLT, "Hello, this is the Brown family. We are not at home. Please leave us your "
            "name and number."), s.pause(500), s.beep(1400, 300), line=MOBILE),
    machine("office hours", s.pause(300), (FESTIVAL, "Thank you for calling City Dental. Our office is closed. Our "
            "hours are Monday to Friday, nine to five."), line=WIDE),
    machine("leave a message", s.pause(800), (AWB, "Leave a message."), s.pause(350), s.beep(1000, 500)),
    machine("only a beep", s.pause(1200), s.beep(950, 800)),
    machine("short, beep", s.pause(500), (JOE, "This is Joe. Speak after the beep."), s.pause(500), s.beep(), line=HUM),
    machine("silence first", s.pause(3300), (FESTIVAL, "The person you are calling is not available at the moment. "
            "Please try again later."), line=QUIET),
    machine("mailbox", s.pause(500), (JOE, "Your call has been forwarded to an automatic voice message system."),
            line=STREET),
    machine("menu", s.pause(400), (SLT, "Welcome to Globex. For sales, press one. For service, press two. For anything "
            "else, please hold the line."), line=LOUD),
    machine("fax", s.pause(800), s.tone(1100, 500, -15), s.pause(3000), s.tone(1100, 500, -15)),
    machine("nothing", s.pause(10000), line=HISS),
    machine("old cassette", s.noise("white", 8000, -36, 5), (AWB, "Hello. I am out at the moment, but if you leave "
            "your "
            "number I will call you back as soon as I can."), s.pause(600), s.beep(700, 900),
            line=Line(noise="white", noise_level=-40)),
    machine("wrong number", s.sit(), s.pause(300), (FESTIVAL, "The number you have dialed has been changed.")),
    machine("in a hurry", s.pause(200), (JOE, "It's Joe's phone, you know what to do."), s.pause(400), s.beep(620,
            350)),
    machine("music first", ("music", "2+2.5"), s.pause(200), (SLT, "Thank you for calling. All our agents are busy."),
            line=WIDE),
    machine("packets lost", s.pause(600), (AWB, "Hello, you have reached the Smith residence, please leave your "
            "message "
            "after the tone, and we will get back to you."), s.pause(400), s.beep(), line=LOSSY),
    human("hello", s.pause(500), (RMS, "Hello?")),
    human("yes hello", s.pause(800), (WOMAN, "Yes, hello?"), line=WIDE),
    human("bob", s.pause(300), (KAL, "Bob Jones.")),
    human("long hello", s.pause(600), (MAN, "Helloooo?"), line=HISS),
    human("shop", s.pause(700), (RMS, "Good evening, Luigi's pizza."), line=OFFICE),
    human("company", s.pause(600), (WOMAN, "Acme Tools, how can I help?"), line=WIDE),
    human("hotel", s.pause(500), (MAN, "Grand Hotel, good morning. Reception."), line=STREET),
    human("impatient", s.pause(300), (KAL, "Hello?"), s.pause(1300), (KAL, "Hello? Anybody there?"), line=MOBILE),
    human("late", s.pause(2600), (RMS, "Yeah?")),
    human("cough", s.breath(180, -24), s.pause(400), (MAN, "Hello."), line=HUM),
    human("clicks", s.click(), s.pause(200), s.click(), s.pause(700), (RMS, "Hi.")),
    human("car", s.pause(700), (KAL, "This is Mike."), line=CAR),
    human("office", s.pause(500), (RMS, "Accounting, Smith."), line=OFFICE),
    human("radio", s.pause(500), (MAN, "Hello, hello?"), line=RADIO),
    human("quiet", s.pause(800), (WOMAN, "Hello, Mary here."), line=QUIET),
    human("loud", s.pause(400), (RMS, "Yes!"), line=LOUD),
    human("lossy", s.pause(600), (WOMAN, "Hello, who is calling?"), line=LOSSY),
    human("real 1", s.pause(600), ("clip", "cards.wav@0.0+1.4"), line=STREET),
    human("real 2", s.pause(500), ("clip", "sorry.wav"), line=MOBILE),
    human("real 3", s.pause(900), ("clip", "goodbye.wav"), line=WIDE_OFFICE),
    machine("real voicemail", s.pause(600), ("clip", "vm-rec-unv.wav"), s.pause(300), s.beep(1000, 500)),
    machine("real closed", s.pause(400), ("clip", "cannot-complete-as-dialed.wav"), s.pause(300),
            ("clip", "check-number-dial-again.wav"), line=WIDE),
    machine("real sit", s.sit(), s.pause(200), ("clip", "number-not-answering.wav"), s.pause(400),
            ("clip", "tt-somethingwrong.wav"), line=HISS),
    machine("real busy", s.pause(300), ("clip", "tt-allbusy.wav")),
    machine("reached", s.pause(700), (RMS, "Hello, you have reached Bob Jones. I am away from my desk. Please leave a "
            "message."), s.pause(700), s.beep(900, 300), line=STREET),
    machine("hi", s.pause(500), (WOMAN, "Hi, it's Mary, I can't talk now, send me a text."), s.pause(400),
            s.beep(1200)),
    machine("surgery", s.pause(400), (MAN, "You are through to the surgery. We are closed for lunch until two o'clock. "
            "In an emergency, hang up and dial nine nine nine."), line=OFFICE),
    machine("after the tone", s.pause(900), (KAL, "Please speak after the tone."), s.pause(300), s.beep(800, 600)),
    machine("beep", s.pause(2000), s.beep(1500, 300), line=MOBILE),
    machine("name, beep", s.pause(600), (RMS, "Bob Jones."), s.pause(450), s.beep(440, 450)),
    machine("late", s.pause(2800), (WOMAN, "The subscriber you have called cannot be reached at this time."),
            line=QUIET),
    machine("carrier", s.pause(300), (MAN, "This call is being forwarded to a mailbox, please wait."), line=CAR),
    machine("menu", s.pause(600), (KAL, "Welcome to First Bank. This call may be recorded. Please enter your account "
            "number."), line=LOUD),
    machine("fax", s.pause(500), s.tone(2100, 3000, -14)),
    machine("nothing", s.pause(9000), line=STREET),
    machine("cassette", s.noise("pink", 10000, -38, 9), (KAL, "Hi there. We are not in. You know what to do. Bye."),
            s.pause(500), s.beep(650, 1200), line=Line(noise="pink", noise_level=-42)),
    machine("ringing on", s.ring_back(1200), s.pause(3000), s.ring_back(1200)),
    machine("quick", s.pause(200), (RMS, "Voicemail. Talk to me."), s.pause(500), s.beep(1000, 250), line=HUM),
    machine("jingle", ("music", "30+2"), s.pause(300), (MAN, "Welcome to our hotline, please hold.")),
    machine("lossy", s.pause(500), (WOMAN, "We are sorry we missed your call. Please leave your details after the "
            "beep."), s.pause(500), s.beep(), line=LOSSY),
)
# fmt: on
"""80 recordings for the choice of constants."""
