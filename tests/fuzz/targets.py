"""What is fuzzed: each takes any bytes and raises only if a promise is broken.

"Every input gives a document, a warning or an error of ours; never a traceback, never a stuck call." What an input may
raise is caught here; everything else is a defect. Hypothesis (test_targets) and atheris (`make fuzz`) share them.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar
from xml.etree.ElementTree import Element as Node
from xml.etree.ElementTree import ParseError

import msgspec
from defusedxml.ElementTree import fromstring
from fastapi import Request
from starlette.datastructures import Headers

from ari_conf import document, takeover
from ari_conf.ari.translate import to_event
from ari_conf.ari.wire import Answer, Socket, content
from ari_conf.command_queue import Queued
from ari_conf.core import elements as el
from ari_conf.core.commands import Command
from ari_conf.core.digits import Matcher
from ari_conf.core.snapshot import restore, snapshot
from ari_conf.errors import AriError, InvalidDocument, SoundFailed
from ari_conf.http import retry
from ari_conf.media import ssml
from ari_conf.media.alphabets import can_be_said
from ari_conf.web import body, models
from ari_conf.web.errors import Refused
from tests.fuzz import course, damage

MOST_WARNING = 2000
"""Characters of one warning: it goes into a log line and a list of problems, whatever the document is."""

SOON_S = 0.25
"""For what the loop does with one input: all calls wait meanwhile. (Where coverage is measured it takes five times as
long as it does.)"""
LONGEST_S, SLOWEST_A_SECOND = 660, 10
"""What one Speak may be, and how many characters of it are said in a second, at least."""

T = TypeVar("T")
Target = Callable[[bytes], None]


def parse_document(given: bytes) -> None:
    # Also as what comes with an encoding of its own, and with mistakes that are repaired.
    for parse in (document.parse, document.parse_sounds, partial(document.parse, charset="shift_jis")):
        try:
            found = parse(given)
        except InvalidDocument as error:
            assert 0 < len(str(error)) <= MOST_WARNING, "a sentence, and not the document once more"
            continue
        elements, warnings = (found.elements, found.warnings) if isinstance(found, document.Document) else found
        assert len(warnings) <= document.MAX_WARNINGS + 1
        assert all(0 < len(warning) <= MOST_WARNING for warning in warnings)
        for element in elements:
            _is_element(element)


def _is_element(element: el.Element) -> None:
    """It can be written down and read again, and all that is said in it can be spoken."""
    written = json.loads(json.dumps(snapshot(element)))
    assert restore(written, type(element)) == element
    match element:
        case el.Speak(markup):
            _spoken(markup)
        case el.GetDigits(prompt) | el.PreAnswer(prompt):
            for inner in prompt:
                _is_element(inner)
        case el.Play(url) | el.Redirect(url):
            retry.parse(url)


def match_digits(given: bytes) -> None:
    """`given`: patterns by comma, a line end, what is pressed; a space is a pause."""
    first, _, pressed = given.decode("latin-1").partition("\n")
    try:
        patterns = el.patterns(first)
    except el.NotAllowed:
        return
    matcher, now, taken = Matcher(patterns), 0, ""
    for digit in pressed[:200]:
        now += 100
        if digit == " ":
            found, deadline = matcher.flush(), matcher.deadline
            assert deadline is None and not matcher.pressed
        else:
            taken += digit
            found = matcher.press(digit, now)
            assert (matcher.deadline is None) == (not matcher.pressed)
            assert len(matcher.pressed) < max(map(len, patterns), default=1), "what no pattern wants is not kept"
        assert all(part.text in patterns for part in found if part.matched)
        assert not any(a.matched == b.matched is False for a, b in pairwise(found))
        told = "".join(part.text for part in found)
        assert taken.startswith(told), "each digit once, in order"
        taken = taken[len(told) :]
        assert taken == matcher.pressed


def translate(given: bytes) -> None:
    """One message of Asterisk's."""
    try:
        message = msgspec.json.decode(given)
    except (ValueError, RecursionError):
        return
    event = to_event(message, lambda: "id")
    assert event is None or all(isinstance(getattr(event, name), str | int | None) for name in event.__slots__)


def wire(given: bytes) -> None:
    """What comes over the WebSocket, and as the body of an answer."""

    async def hears() -> None:
        seen: list[dict[str, Any]] = []
        socket = Socket(seen.append, _ignore, _ignore)
        socket._transport = _Silent()  # type: ignore[assignment]
        asking = asyncio.create_task(socket.request("GET", "/channels", {}, None))
        await asyncio.sleep(0)
        socket._receive(given)
        assert all(isinstance(message, dict) for message in seen)
        await asyncio.sleep(0)
        if asking.done():
            _answer(asking.result())
        asking.cancel()

    asyncio.run(hears())
    for status in (200, 404, 500):
        _answer(Answer(status, "", given))


def _ignore(_: object) -> None:
    pass


class _Silent:
    is_close_frame_sent = False

    def send(self, _kind: object, text: bytes) -> None:
        pass


def _answer(answer: Answer) -> None:
    try:
        content("GET", "/channels", answer)
    except AriError as error:
        assert len(str(error)) <= MOST_WARNING


def fragment(given: bytes) -> None:
    """A URL's fragment, and a Retry-After."""
    text = given.decode("utf-8", "replace")
    bare, policy, warnings = retry.parse(f"http://example.com/{text}")
    assert "#" not in bare
    numbers = (policy.connect_ms, policy.read_ms, policy.total_ms, policy.retries)
    for number, (low, high) in zip(numbers, retry.RANGES.values(), strict=True):
        assert low <= number <= high
    assert policy.retry_on and policy.retry_on <= set(retry.KINDS)
    assert all(len(warning) <= MOST_WARNING for warning in warnings) and len(warnings) <= retry.MAX_WARNINGS + 1
    waited = retry.retry_after_ms(text, 1_700_000_000_000)
    assert waited is None or waited >= 0
    tries = [retry.Outcome(0, 10, status=503, retry_after_ms=waited)]
    delay = retry.next_try(policy, tries, 10, 0.5)
    assert delay is None or 0 <= delay <= policy.total_ms


def speech(given: bytes) -> None:
    """As it stands in Speak, and as it is read back when it is spoken."""
    text = given.decode("utf-8", "replace")
    _spoken(ssml.plain(text))
    try:
        _bounded(ssml.segments(text))
    except SoundFailed as error:
        assert len(str(error)) <= MOST_WARNING
    # A document can't hold what XML can't.
    if all(c in "\t\n\r" or (c >= " " and c not in "\ufffe\uffff") for c in text):
        node = Node("Speak")
        node.text = text
        _in_speak(node)
    with suppress(ParseError, ValueError):
        _in_speak(fromstring(f"<Speak>{text}</Speak>", forbid_dtd=True))


def _in_speak(node: Node) -> None:
    warnings: list[str] = []
    try:
        markup = _soon(lambda: ssml.canonical(node, warnings))
    except RecursionError:
        return  # a document is refused before it is nested that deep
    assert all(len(warning) <= MOST_WARNING for warning in warnings)
    _spoken(markup)


def _spoken(markup: str) -> None:
    try:
        pieces = _soon(lambda: ssml.segments(markup))
    except SoundFailed:
        assert any((c < " " and c not in "\t\n\r") or c in "\ufffe\uffff" for c in markup), "ours is well-formed"
        return
    _bounded(pieces)


def _bounded(pieces: tuple[ssml.Text | ssml.Pause, ...]) -> None:
    """All of it together, and what an engine is given of it."""
    texts = [piece for piece in pieces if isinstance(piece, ssml.Text)]
    pauses = [piece for piece in pieces if isinstance(piece, ssml.Pause)]
    assert all(0 < pause.ms <= ssml.MAX_PAUSE_MS for pause in pauses)
    assert all(0.5 <= text.rate <= 2.0 and can_be_said(text.text) for text in texts)
    assert sum(pause.ms for pause in pauses) <= ssml.MAX_PAUSES_MS
    assert sum(len(text.text) for text in texts) <= ssml.MAX_SPOKEN
    assert len(pieces) <= ssml.MAX_PIECES
    assert not any(isinstance(a, ssml.Pause) and isinstance(b, ssml.Pause) for a, b in pairwise(pieces)), "one silence"
    seconds = sum(pause.ms for pause in pauses) / 1000 + sum(len(t.text) / SLOWEST_A_SECOND / t.rate for t in texts)
    assert seconds <= LONGEST_S, "by what a voice needs for a character"
    for text in texts:
        parts = ssml.parts(text.text)
        assert " ".join(parts) == ssml.tamed(text.text), "nothing is lost"
        assert all(len(part) <= ssml.MAX_PART for part in parts)
        assert all(len(word) <= ssml.LONGEST_WORD for part in parts for word in part.split(" "))


def _soon(work: Callable[[], T]) -> T:
    found, took = cost_s(work, SOON_S)
    assert took < SOON_S, f"it took {took * 1000:.0f} ms of the time of all calls"
    return found


def cost_s(work: Callable[[], T], enough_s: float) -> tuple[T, float]:
    """What it returns, and its cost: of this thread alone, and the least of several, until one costs less than
    `enough_s`. A busy machine makes each dearer, and so does a collection of garbage that falls into it."""
    least = math.inf
    for _ in range(40):
        began = time.thread_time()
        found = work()
        least = min(least, time.thread_time() - began)
        if least < enough_s:
            break
    return found, least


def bodies(given: bytes) -> None:
    """Of each call of the API."""
    asyncio.run(_read_all(given))


async def _read_all(given: bytes) -> None:
    for kind in ("application/json", body.FORM, ""):
        for model in (models.Playing, models.SpeakingToMember, models.Announcing, models.Recording, models.Holding):
            await _read(model, kind, given)


async def _read(model: type[Any], kind: str, given: bytes) -> None:
    chunks = [{"type": "http.request", "body": given}]

    async def receive() -> Any:
        return chunks.pop()

    headers = Headers({"content-type": kind}).raw
    request = Request({"type": "http", "method": "POST", "headers": headers, "query_string": b""}, receive)
    try:
        found = await body.read(model)(request)
    except Refused as refused:
        assert refused.status in (400, 413)
    else:
        assert isinstance(found, model)


def queued_command(given: bytes) -> None:
    """A command as `serve` reads it from Redis."""
    try:
        queued = msgspec.json.decode(given, type=Queued)
        restore(queued.command, Command)  # type: ignore[arg-type]
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, RecursionError):
        pass


def state(given: bytes) -> None:
    """Damaged state costs its own call or conference: all others go on as they were, and nothing breaks later."""
    damage.play(given, takeover.restored)


def directory(given: bytes) -> None:
    """ARI's events in any order, about anything."""
    course.play(given)


TARGETS: dict[str, Target] = {
    "document": parse_document,
    "digits": match_digits,
    "translate": translate,
    "wire": wire,
    "fragment": fragment,
    "speech": speech,
    "bodies": bodies,
    "commands": queued_command,
    "state": state,
    "directory": directory,
}
