"""Answering-machine detection of placed calls: phones that answer with recordings of people and machines."""

# ruff: noqa: F811 -- fixtures of another module

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from demo import sip
from demo.codec import G722, PCMU, Codec
from demo.phone import now_ms
from demo.received_audio import Samples
from demo.rtp import RtpSession, Sound
from tests import lateness
from tests.integration.called_phone import CalledPhone
from tests.integration.receiver import Request
from tests.integration.test_beep import without_the_module
from tests.integration.test_calling_out import Caller, api, calling, system  # noqa: F401
from tests.lateness import lasted, late_ms
from tests.machine_detection.recordings import TEST, Recording

pytestmark = pytest.mark.asyncio(loop_scope="session")

RECORDINGS = {recording.name: recording for recording in TEST}
AT_ONCE = (
    *("hello, cold", "ward", "out of breath", "real moment", "party", "real man"),
    *("real on the phone", "real not available", "away", "short", "beep at once", "old tape"),
)
"""Recordings that are played to the server in as many calls at once: each kind of answer, and each kind of line."""
PERSON, MACHINE = RECORDINGS["hello, cold"], RECORDINGS["short"]
VERDICT_DELAY_MS = 700
"""ms until a request to the application has arrived, after its time."""


class Answering(CalledPhone):
    """A phone that answers with a recording."""

    answered_ms = 0.0

    def __init__(self, codec: Codec = PCMU) -> None:
        super().__init__()
        self._codec = codec

    async def __aenter__(self) -> Answering:
        await super().__aenter__()
        assert self._session is not None
        self._wire.remove(self._session)
        self._session = RtpSession(self._host, lambda _at, _digit: None, self._codec)
        self._wire.add(self._session)
        return self

    def _description(self) -> str:
        assert self._session is not None
        return sip.offer(self._host, self._session.port, codec=self._codec)

    def answer_with(self, samples: Samples) -> None:
        assert self._session is not None
        self.answer()
        self._session.sound = Sound(self._codec.encode(samples), quiet=self._codec.silence)
        self.answered_ms = now_ms()


@pytest.fixture(autouse=True)
def document(api: Caller) -> None:
    api.stage.document("/answer", "<Wait length='60'/>")


@asynccontextmanager
async def answered(
    api: Caller, sound: Recording | Samples, codec: Codec = PCMU, **more: Any
) -> AsyncGenerator[Answering]:
    """Place a call that is answered with that sound."""
    samples = sound.samples() if isinstance(sound, Recording) else sound
    async with Answering(codec) as phone:
        await api.place(phone, **more)
        await phone.invited()
        phone.answer_with(samples)
        yield phone
        if not phone.requests("BYE"):
            phone.hang_up()


async def told(api: Caller, event: str, phone: Answering) -> Request:
    return await api.stage.event(event, To=phone.uri)


def silence(seconds: float = 12.0) -> Samples:
    return np.zeros(round(seconds * 8000), np.int16)


def phrases(*lengths_ms: int, pause_ms: int = 400) -> Samples:
    """Return real speech in phrases of these lengths, and then silence."""
    speech = RECORDINGS["real queue"].samples()[4000:40000]
    parts = [silence(0.6)]
    for number, length_ms in enumerate(lengths_ms):
        parts += [speech[number * 2000 :][: length_ms * 8], silence(pause_ms / 1000)]
    return np.concatenate([*parts, silence()])


@pytest.mark.row(
    "Call: machine_detection", "true: no document runs while it listens; then Machine=true if it is a machine"
)
async def test_each_kind_of_answer_in_calls_at_once(api: Caller) -> None:
    samples = {name: RECORDINGS[name].samples() for name in AT_ONCE}

    async def verdict(name: str, phone: Answering) -> tuple[str, bool, float, float]:
        await phone.invited()
        phone.answer_with(samples[name])
        asked = await told(api, "StartApp", phone)
        phone.hang_up()
        return name, asked.params.get("Machine") == "true", phone.answered_ms, asked.at_ms

    async def verdicts(*names: str) -> list[tuple[str, bool, float, float]]:
        async with AsyncExitStack() as stack:
            phones = [await stack.enter_async_context(Answering()) for _ in names]
            await api.place(*phones, machine_detection="true")
            return await asyncio.gather(*map(verdict, names, phones))

    found = await verdicts(*AT_ONCE)
    wrong = [name for name, machine, *_ in found if machine != (RECORDINGS[name].answered_by == "machine")]
    if wrong and max(late_ms(start, end) for *_, start, end in found) > 20:
        # A recording with holes, because this machine was late: once more, without the others.
        again = [one for name in wrong for one in await verdicts(name)]
        wrong = [name for name, machine, *_ in again if machine != (RECORDINGS[name].answered_by == "machine")]
    assert wrong == []
    for _, _, start, end in found:
        lasted(start, end, 300, 5000 + VERDICT_DELAY_MS)
    seconds = [round((end - start) / 1000, 1) for *_, start, end in found]
    api.stage.saw(f"{len(AT_ONCE)} recordings at once, all right, after {min(seconds)} to {max(seconds)} s")


@pytest.mark.row("Call: machine_detection", "with G.722, too")
async def test_wideband_phones(api: Caller) -> None:
    for name, verdict in (("speaking", None), ("real on the phone", "true")):
        sound = np.clip(RECORDINGS[name].sound(), -32768, 32767).astype(np.int16)
        async with answered(api, sound, G722, machine_detection="true") as phone:
            assert (await told(api, "StartApp", phone)).params.get("Machine") == verdict
    api.stage.saw("a person and a machine")


@pytest.mark.row("Call: machine_detection_url", "the document runs at once; the verdict is told later, of people too")
@pytest.mark.parametrize("recording", [PERSON, MACHINE], ids=["person", "machine"])
async def test_a_verdict_that_is_told_later(api: Caller, recording: Recording) -> None:
    url = api.stage.receiver.url("/machine")
    async with answered(api, recording, machine_detection="true", machine_detection_url=url) as phone:
        asked = await told(api, "StartApp", phone)
        lasted(phone.answered_ms, asked.at_ms, 0, 1000)
        verdict = await told(api, "MachineDetection", phone)
        assert phone.requests("BYE") == []
    assert verdict.at_ms > asked.at_ms and "Machine" not in asked.params
    expected = {
        "Machine": "true" if recording is MACHINE else "false",
        "IfMachine": "continue",
        "CallStatus": "in-progress",
        "Direction": "outbound",
        "From": "4930123",
        **dict.fromkeys(("RequestUUID", "ALegUUID", "ALegRequestUUID"), asked.params["CallUUID"]),
    }
    assert {name: verdict.params.get(name) for name in expected} == expected
    api.stage.saw(f"{recording.answered_by}: Machine={verdict.params['Machine']}")


@pytest.mark.row("Call: machine_detection_method", "GET")
async def test_the_method_of_the_verdict(api: Caller) -> None:
    more = {"machine_detection_url": api.stage.receiver.url("/machine"), "machine_detection_method": "GET"}
    async with answered(api, MACHINE, machine_detection="true", **more) as phone:
        assert (await told(api, "MachineDetection", phone)).method == "GET"
    api.stage.saw("GET")


@pytest.mark.row("Call: machine_detection", "hangup: a machine is hung up on, code 9100, with Machine=true")
@pytest.mark.parametrize("with_url", [False, True], ids=["synchronous", "asynchronous"])
async def test_a_machine_is_hung_up_on(api: Caller, with_url: bool) -> None:
    more = {"machine_detection_url": api.stage.receiver.url("/machine")} if with_url else {}
    async with answered(api, MACHINE, machine_detection="hangup", **more) as phone:
        await phone.hung_up()
        ended = (await told(api, "Hangup", phone)).params
        names = "Machine", "HangupCauseCode", "HangupCauseName", "HangupSource", "CallStatus"
        assert [ended[name] for name in names] == ["true", "9100", "Machine Detected", "Plivo", "completed"]
        if with_url:
            verdict = (await told(api, "MachineDetection", phone)).params
            assert (verdict["Machine"], verdict["IfMachine"]) == ("true", "hangup")
    asked = [request for request in api.stage.events("StartApp") if request.params["To"] == phone.uri]
    assert len(asked) == with_url
    api.stage.saw("9100, Machine=true")


@pytest.mark.row("Call: machine_detection", "hangup: a person is not hung up on")
async def test_a_person_is_not_hung_up_on(api: Caller) -> None:
    async with answered(api, PERSON, machine_detection="hangup") as phone:
        asked = await told(api, "StartApp", phone)
        assert "Machine" not in asked.params and phone.requests("BYE") == []
    api.stage.saw("the document runs")


@pytest.mark.parametrize(
    ("parameter", "value", "sound", "machine", "after_ms"),
    [
        pytest.param(
            "machine_detection_initial_silence", 2000, silence(), True, 2000,
            marks=pytest.mark.row("Call: machine_detection_initial_silence", "so long a silence is a machine's"),
        ),
        pytest.param(
            "machine_detection_time", 2000, silence(), False, 2000,
            marks=pytest.mark.row("Call: machine_detection_time", "then it is over, and a person is assumed"),
        ),
        pytest.param(
            "machine_detection_initial_greeting", 1000, phrases(1300), True, None,
            marks=pytest.mark.row("Call: machine_detection_initial_greeting", "longer unbroken speech is a machine's"),
        ),
        pytest.param(
            "machine_detection_maximum_words", 2, phrases(500, 500, 500, 500), True, None,
            marks=pytest.mark.row("Call: machine_detection_maximum_words", "more sentences are a machine's"),
        ),
        pytest.param(
            "machine_detection_maximum_speech_length", 1000, phrases(700, 700), True, None,
            marks=pytest.mark.row("Call: machine_detection_maximum_speech_length", "more speech in all is a machine's"),
        ),
    ],
)  # fmt: skip
async def test_the_numbers_decide(
    api: Caller,
    parameter: str,
    value: int,
    sound: Samples,
    machine: bool,
    after_ms: int | None,
) -> None:
    async with answered(api, sound, machine_detection="true", **{parameter: value}) as phone:
        asked = await told(api, "StartApp", phone)
    assert asked.params.get("Machine", "false") == str(machine).lower()
    if after_ms is not None:
        lasted(phone.answered_ms, asked.at_ms, after_ms - 100, after_ms + VERDICT_DELAY_MS)
    seen = "a machine" if machine else "a person"
    api.stage.saw(f"{seen} with {value}, after {(asked.at_ms - phone.answered_ms) / 1000:.1f} s")


async def test_with_the_defaults_these_are_a_person_s(api: Caller) -> None:
    """So it is the numbers that decide in the test above."""
    for sound in (phrases(1300), phrases(700, 700)):
        async with answered(api, sound, machine_detection="true") as phone:
            assert "Machine" not in (await told(api, "StartApp", phone)).params


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("machine_detection", "perhaps"),
        ("machine_detection_time", 1999),
        ("machine_detection_time", 10001),
        ("machine_detection_maximum_speech_length", 999),
        ("machine_detection_initial_silence", 1999),
        ("machine_detection_maximum_words", 1),
        ("machine_detection_maximum_words", 11),
        ("machine_detection_initial_greeting", 5001),
        ("machine_detection_url", "no url"),
    ],
)
async def test_values_that_are_not_allowed(api: Caller, parameter: str, value: Any) -> None:
    body = {"from": "4930123", "to": "sip:1@127.0.0.1", "answer_url": api.stage.url, "machine_detection": "true"}
    status, reply = await api.ask("POST", "Call/", **body | {parameter: value})
    assert status == 400 and parameter in reply["error"], reply


async def test_the_numbers_alone_do_not_begin_it(api: Caller) -> None:
    """Plivo's Python SDK always sends machine_detection_time."""
    async with answered(api, silence(), machine_detection_time=2000) as phone:
        asked = await told(api, "StartApp", phone)
        lasted(phone.answered_ms, asked.at_ms, 0, 1000)


async def test_an_asterisk_that_cannot_listen(api: Caller) -> None:
    async with without_the_module(api.stage), answered(api, MACHINE, machine_detection="hangup") as phone:
        asked = await told(api, "StartApp", phone)
        lasted(phone.answered_ms, asked.at_ms, 0, 1500)
    (problem,) = api.stage.problems()
    assert "could not be heard" in problem and "a person is assumed" in problem


@pytest.mark.row(
    "Call: machine_detection", "a crash of the server while it listens loses neither the call nor the verdict"
)
async def test_the_server_dies_while_it_listens(api: Caller) -> None:
    stage = api.stage
    sound = np.concatenate([silence(0.5), RECORDINGS["hello, cold"].samples()[4000:7000], silence(60)])
    more = {"machine_detection_time": 10000, "machine_detection_url": stage.receiver.url("/machine")}
    async with answered(api, sound, machine_detection="true", **more) as phone:
        await told(api, "StartApp", phone)
        async with lateness.timeout():
            while not _hears_speech(stage.system.log("serve").read_text(), "PhraseStarted"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await stage.system.kill("serve")
        await stage.system.start("serve")
        verdict = await told(api, "MachineDetection", phone)
        assert verdict.params["Machine"] == "false" and phone.requests("BYE") == []
    assert len([one for one in stage.events("MachineDetection") if one.params["To"] == phone.uri]) == 1
    stage.saw(f"Machine=false, {(verdict.at_ms - phone.answered_ms) / 1000:.1f} s after the answer")


def _hears_speech(log: str, event: str) -> bool:
    """Return True if the latest call of the log has had this event."""
    return any(event in json.dumps(json.loads(line)) for line in log.splitlines()[-200:] if line.startswith("{"))
