"""Initial inputs of the fuzzers: the documents in the repository, and the inputs of the tests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import msgspec

from ari_conf.ari.translate import EVENTS
from ari_conf.core import commands
from ari_conf.core import elements as el
from ari_conf.core.elements import Conference as Room
from ari_conf.core.elements import Play, attribute_fields
from ari_conf.media import ssml
from ari_conf.queues.command_queue import encode

ROOT = Path(__file__).parents[2]


def of(target: str) -> list[bytes]:
    """Return the target's seeds, at least one."""
    return _SEEDS[target]()


def words(target: str) -> list[str]:
    """Return the words of the target's inputs, which libFuzzer combines."""
    if target in ("document", "speech"):
        elements = [name for kind in get_args(el.Element) for name in (kind.__name__, *attribute_fields(kind))]
        markup = [*ssml.ELEMENTS, *(name for names in ssml.ELEMENTS.values() for name in names)]
        return [
            *elements,
            *markup,
            "<Response>",
            "</",
            "/>",
            "<![CDATA[",
            "]]>",
            "&lt;",
            "&#x0;",
            "<!DOCTYPE",
            "http://a",
        ]
    if target in ("translate", "wire", "bodies", "commands"):
        keys = re.findall(r'"(\w+)"', b" ".join(of(target)).decode())
        return [*dict.fromkeys(keys), *EVENTS, '{"', '": ', "null", "[[[[[[[[", "\\u0000"]
    return ["ct=", "rt=", "rp=4xx", "rc=", "tt=", "&", "#", "%00", "*", ","]


def documents() -> list[bytes]:
    """Return the documents of the repository, and the markup in the parser's tests."""
    found = [path.read_bytes() for path in sorted((ROOT / "documents").glob("*.xml"))]
    text = (ROOT / "tests/documents/test_parser.py").read_text() + (ROOT / "tests/media/test_ssml.py").read_text()
    markup = sorted(set(re.findall(r"<[A-Z]\w+[^'\"]*>[^'\"\n]*", text)))
    found += [f"<Response>{each}</Response>".encode() for each in markup]
    attributes = " ".join(f'{name}="1"' for name in attribute_fields(Room))
    return [*found, f"<Response><Conference {attributes}>x</Conference></Response>".encode()]


def _speech() -> list[bytes]:
    text = (ROOT / "tests/media/test_ssml.py").read_text()
    return [each.encode() for each in sorted(set(re.findall(r"['\"]([^'\"\n]*<[^'\"\n]+)['\"]", text)))] or [
        b"<p>a</p>"
    ]


def _messages() -> list[bytes]:
    channel = {"id": "c1", "name": "PJSIP/a-1", "state": "Up", "caller": {"name": "A", "number": "1"},
               "dialplan": {"exten": "100"}}  # fmt: skip
    rest = {"bridge": {"id": "b1"}, "playback": {"id": "p1", "state": "done"}, "digit": "1", "cause": 16,
            "recording": {"name": "A/b.id1.recording.r1"}}  # fmt: skip
    kinds = ("StasisStart", "StasisEnd", "ChannelDtmfReceived", "ChannelEnteredBridge", "BridgeDestroyed",
             "PlaybackFinished", "RecordingFailed", "ChannelTalkingStarted")  # fmt: skip
    whole = [{"type": kind, "args": ["MA1", "lunch", "GET"], "channel": channel, **rest} for kind in kinds]
    return [json.dumps(message).encode() for message in whole]


def _wire() -> list[bytes]:
    answer = {"type": "RESTResponse", "request_id": "1", "status_code": 200, "reason_phrase": "OK",
              "message_body": '{"id": "b1"}'}  # fmt: skip
    return [json.dumps(answer).encode(), *_messages()]


def _fragments() -> list[bytes]:
    return [b"x#ct=2000&rt=3000&rc=3&rp=all", b"#rp=ct,4xx&tt=99999&er=eu", b"#ct=-1&rc=%39", b"120",
            b"Wed, 21 Oct 2026 07:28:00 GMT"]  # fmt: skip


def _bodies() -> list[bytes]:
    whole = {"text": "hello", "url": "http://127.0.0.1/a.mp3", "voice": "Polly.Amy", "language": "en-GB",
             "file_format": "wav", "time_limit": 60, "transcription_type": "auto", "length": "MAN",
             "transcription_language": "de", "callback_method": "GET", "callback_url": "http://127.0.0.1/"}  # fmt: skip
    return [json.dumps(whole).encode(), b"text=hello&voice=MAN&time_limit=5&url=http%3A%2F%2F127.0.0.1%2Fa"]


def _commands() -> list[bytes]:
    some = (commands.Mute((1, 2), True), commands.PlayToMembers(None, Play("http://127.0.0.1/a.mp3")),
            commands.Record("r1"), commands.HangUpAll(), commands.StopPlaying((1,), "Play"))  # fmt: skip
    return [encode(commands.ForConference("A", "standup", command), "c1", 1, "web") for command in some]


def _courses() -> list[bytes]:
    return [bytes((n * step + 7) % 256 for n in range(600)) for step in (5, 37, 91, 101, 113)]


def _damages() -> list[bytes]:
    cut = [bytes([house, at, 7, 255]) for house in range(4) for at in range(0, 20, 3)]
    twice = [bytes([house, at, 7, 255, at + 1, 9, 255]) for house in range(4) for at in range(0, 20, 6)]
    changed = [b"\x00\x00\x00\x00", b"\x05\x40\x07\x01\x03\x05\x08"]
    return [*cut, *twice, *changed, b"\xff" + msgspec.json.encode({"type": "Call"}), b"\xff[[[["]


_SEEDS = {
    "document": documents,
    "digits": lambda: [b"1,12,123\n1 12 123 9*#", b"*,#\n**##", b"\n12"],
    "translate": _messages,
    "wire": _wire,
    "fragment": _fragments,
    "speech": _speech,
    "bodies": _bodies,
    "commands": _commands,
    "state": _damages,
    "events": _courses,
}
