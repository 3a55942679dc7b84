"""Each target with Hypothesis' inputs and with earlier findings. `make fuzz` runs for longer."""

from __future__ import annotations

import contextlib
import json
import os
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ari_conf.ari.translate import EVENTS
from ari_conf.core import elements as el
from ari_conf.documents import parser
from ari_conf.errors import InvalidDocument
from ari_conf.media import ssml
from tests.fuzz import costly, seeds
from tests.fuzz.targets import TARGETS, cost_s

LONG = os.environ.get("ARI_CONF_SIMULATION") == "long"
PROFILE = settings(
    max_examples=20_000 if LONG else 40,
    deadline=None,
    derandomize=not LONG,
    suppress_health_check=list(HealthCheck),
)
SLOWEST_S = 0.05
"""The limit for one input in CPU time: its handler is the event loop of all calls, or a thread that shares a processor
with it."""
WAYS = {"document": 3, "speech": 4}
"""The number of ways in which a target reads its input; each has SLOWEST_S."""

ODD = st.sampled_from(["", "\x00", "\ud7ff", "\u202e", "٣", "💥", "&amp;", "]]>", "%00", "{" * 40, "9" * 400, " " * 99])
TEXTS = st.one_of(st.text(max_size=60), ODD)
NUMBERS = st.integers().map(str)


def document_attributes(kind: Any) -> st.SearchStrategy[dict[str, str]]:
    names = [*el.attribute_fields(kind), "nonsense"]
    known = ["true", "False", "none", "http://a/#rc=9&x=1", "http://a:b@c/ d", "12,1", "beep:1", "1wW*"]
    values = st.one_of(TEXTS, NUMBERS, st.sampled_from(known))
    return st.dictionaries(st.sampled_from(names), values, max_size=6)


def written(tag: str, attributes: dict[str, str], inside: str) -> str:
    given = "".join(f" {name}={json.dumps(value, ensure_ascii=False)}" for name, value in attributes.items())
    return f"<{tag}{given}>{inside}</{tag}>"


KINDS = (el.Play, el.Speak, el.Wait, el.Hangup, el.Redirect, el.GetDigits, el.PreAnswer, el.Conference)
URLS = st.sampled_from(["http://a.example/x.mp3", "standup", "hello <break time='1s'/> there", ""])
LEAVES = st.one_of(
    TEXTS, URLS, st.sampled_from([f"<{tag} time='9s' rate='x' ph='&quot;'>1/2/3</{tag}>" for tag in ssml.ELEMENTS])
)


def element(inside: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(KINDS).flatmap(
        lambda kind: st.builds(written, st.just(kind.__name__), document_attributes(kind), inside)
    )


DOCUMENTS = st.lists(st.recursive(LEAVES, element, max_leaves=12), max_size=6).map(
    lambda parts: f"<Response>{''.join(parts)}</Response>".encode("utf-8", "surrogatepass")
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
PARTS = st.one_of(JSON, st.fixed_dictionaries({"id": TEXTS}, optional={"name": JSON, "state": JSON, "caller": JSON}))
MESSAGES = st.fixed_dictionaries(
    {"type": st.one_of(st.sampled_from(EVENTS), JSON)},
    optional=dict.fromkeys(("channel", "bridge", "playback", "recording", "args", "digit", "cause", "soft"), PARTS),
).map(lambda message: json.dumps(message).encode())
BODIES = st.dictionaries(
    st.sampled_from(["text", "url", "voice", "language", "time_limit", "callback_url", "length", "file_format"]), JSON
).map(lambda body: json.dumps(body).encode())

INPUTS: dict[str, st.SearchStrategy[bytes]] = {
    "document": DOCUMENTS,
    "digits": st.tuples(st.lists(st.text("01*#", max_size=5)), st.text("01*# x", max_size=80)).map(
        lambda given: f"{','.join(given[0])}\n{given[1]}".encode()
    ),
    "translate": MESSAGES,
    "wire": st.one_of(MESSAGES, BODIES),
    "fragment": st.lists(st.tuples(st.sampled_from(["ct", "rt", "tt", "rc", "rp", "x", ""]), TEXTS)).map(
        lambda pairs: f"#{'&'.join(f'{key}={value}' for key, value in pairs)}".encode()
    ),
    "speech": LEAVES.map(lambda text: text.encode("utf-8", "surrogatepass")),
    "bodies": st.one_of(BODIES, MESSAGES),
}


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    @PROFILE
    @given(st.binary(max_size=600))
    def holds(given: bytes) -> None:
        TARGETS[name](given)

    holds()


@pytest.mark.parametrize("name", INPUTS)
def test_input_that_resembles_valid_input(name: str) -> None:
    @PROFILE
    @given(INPUTS[name])
    def holds(given: bytes) -> None:
        TARGETS[name](given)

    holds()


@pytest.mark.parametrize("name", TARGETS)
def test_fuzzing_seeds_and_their_beginnings(name: str) -> None:
    dice = Random(name)
    for seed in seeds.of(name):
        TARGETS[name](seed)
        for _ in range(5):
            at = dice.randrange(len(seed) + 1)
            TARGETS[name](seed[:at])
            TARGETS[name](seed[:at] + bytes([dice.randrange(256)]) + seed[at + 1 :])


LONG_ONES = {
    "document": [
        b"<Response>" + b"<Play>" * 14_000,
        b"<Response>" + b"<x/>" * 20_000 + b"</Response>",
        b"<Response><Play " + b" ".join(b"a%d='x'" % n for n in range(9000)) + b">http://a/</Play></Response>",
        b"<Response><Conference digitsMatch='" + b"1," * 45_000 + b"1'>x</Conference></Response>",
        b"<Response><Play>http://a/#" + b"x=1&amp;" * 11_000 + b"</Play></Response>",
        b"<Response><Conference action='http://a/#" + b"y" * 90_000 + b"=1'>x</Conference></Response>",
        b"<Response><Speak>" + b"<s>" * 30 + b"a " * 45_000 + b"</s>" * 30 + b"</Speak></Response>",
        b"<Response><Wait length='" + b"9" * 90_000 + b"'/></Response>",
        b"<Response xmlns='u:" + b"x" * 90_000 + b"'><Play/></Response>",
    ],
    "translate": [b'{"a":' * 30_000, b"[" * 100_000, b'{"type":"StasisStart","args":[' + b'"",' * 30_000 + b'""]}'],
    "wire": [b"[" * 100_000, b'{"type": "RESTResponse", "request_id": "1", "message_body": {"a": 1}}'],
    "fragment": [b"#" + b"ct=1&" * 20_000, b"#rp=" + b"x," * 50_000, b"#ct=" + b"9" * 100_000, b"9" * 100_000],
    "speech": [
        b"<p>" * 3000 + b"x" + b"</p>" * 3000,
        b"<say-as interpret-as='digits'>" + b"1" * 60_000 + b"</say-as>",
        b"hello " + b".".join([b"<break time='10s'/>"] * 1990),
        b"a".join([b"<break time='10s'/>"] * 1990),
        b"<sub alias='" + b"word " * 18_000 + b"'>x</sub>",
        b"<s>a<break time='1ms'/></s>" * 1000,
        b"<prosody rate='fast'>a</prosody>b" * 1900,
        b"a" + b"." * 90_000,
        b"<w/>a " * 1990,
    ],
    "bodies": [b"[" * 60_000, b"&".join(b"a%d=1" % n for n in range(9000)), b'{"text":"' + b"\\u0000" * 9000 + b'"}'],
    "commands": [b"[" * 100_000, b'{"command":' * 20_000],
    "digits": [b",".join(b"1" * n for n in range(1, 100)) + b"\n" + b"1" * 150],
    "state": [b"\xff" + b"[" * 100_000, b"\xff" + b'{"type":"Call","elements":' * 9000],
}


@pytest.mark.parametrize("name", LONG_ONES)
def test_long_and_deep_inputs_cost_little_time(name: str) -> None:
    for long in LONG_ONES[name]:
        _, took = cost_s(partial(TARGETS[name], long), SLOWEST_S / 2)
        assert took < SLOWEST_S * WAYS.get(name, 1), long[:40]


COSTLY = costly.documents()


@pytest.mark.parametrize("name", COSTLY)
def test_no_document_costs_much_time(name: str) -> None:
    text = COSTLY[name]
    assert len(text) <= parser.MAX_BYTES

    def read(text: bytes) -> None:
        with contextlib.suppress(InvalidDocument):
            parser._read(text)  # as `parse` does, but without its cache of short documents

    def read_sounds(text: bytes) -> None:
        with contextlib.suppress(InvalidDocument):
            parser._read_sounds(text)

    for work in (read, read_sounds):
        assert cost_s(partial(work, text), SLOWEST_S / 2)[1] < SLOWEST_S
    TARGETS["document"](text)


def test_the_warnings_of_a_document_are_bounded() -> None:
    for name, text in COSTLY.items():
        try:
            found = parser.parse(text)
        except InvalidDocument as refused:
            assert len(str(refused)) <= parser.MAX_WARNING, name
            continue
        assert len(found.warnings) <= parser.MAX_WARNINGS + 1, name
        assert all(len(warning) <= parser.MAX_WARNING for warning in found.warnings), name
