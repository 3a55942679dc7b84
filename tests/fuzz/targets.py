"""Fuzz targets: each takes any bytes and raises an exception only if a promise is broken.

"Every input gives a document, a warning or an error of ours; never a traceback, never a stuck call." Exceptions that an
input may cause are caught here; any other is a bug. Hypothesis (test_targets) and atheris (`make fuzz`) share the
targets.
"""

from __future__ import annotations

import asyncio
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

from ari_conf.ari.translate import to_event
from ari_conf.ari.websocket import AriResponse, AriWebSocket, decode_response
from ari_conf.core import elements as el
from ari_conf.core.conferences.digit_matching import DigitMatcher
from ari_conf.documents import parser
from ari_conf.errors import AriError, InvalidDocument, SoundError
from ari_conf.http_client import retry_policy
from ari_conf.media import ssml
from ari_conf.media.alphabets import can_be_said
from ari_conf.queues.command_queue import CommandMessage
from ari_conf.server import takeover
from ari_conf.web import models, parameters
from ari_conf.web.errors import ApiError
from tests.core.copies import copied
from tests.fuzz import course, damage

MAX_WARNING_CHARACTERS = 2000
"""The maximum length of a warning, whatever the document: it goes into a log line and a list of problems."""

SOON_S = 0.25
"""The limit in seconds for one input in the event loop, during which all calls wait.

With coverage measurement the work takes five times as long.
"""
LONGEST_S, SLOWEST_A_SECOND = 660, 10
"""The maximum seconds of one Speak, and the minimum number of characters spoken per second."""

T = TypeVar("T")
Target = Callable[[bytes], None]


def parse_document(given: bytes) -> None:
    # Also with another encoding, and with mistakes that are repaired.
    for parse in (parser.parse, parser.parse_sounds, partial(parser.parse, charset="shift_jis")):
        try:
            found = parse(given)
        except InvalidDocument as error:
            assert 0 < len(str(error)) <= MAX_WARNING_CHARACTERS, "a sentence, and not the document once more"
            continue
        elements, warnings = (found.elements, found.warnings) if isinstance(found, parser.Document) else found
        assert len(warnings) <= parser.MAX_WARNINGS + 1
        assert all(0 < len(warning) <= MAX_WARNING_CHARACTERS for warning in warnings)
        for element in elements:
            _is_element(element)


def _is_element(element: el.Element) -> None:
    """Check that the element can be persisted, and that all its text can be spoken."""
    assert copied(element) == element
    match element:
        case el.Speak(markup):
            _spoken(markup)
        case el.GetDigits(prompt) | el.PreAnswer(prompt):
            for inner in prompt:
                _is_element(inner)
        case el.Play(url) | el.Redirect(url):
            retry_policy.parse(url)


def match_digits(given: bytes) -> None:
    """Match digits. `given`: patterns separated by commas, a newline, the pressed digits; a space is a pause."""
    first, _, pressed = given.decode("latin-1").partition("\n")
    try:
        patterns = el.digit_patterns(first)
    except el.InvalidValue:
        return
    matcher, now, taken = DigitMatcher(patterns), 0, ""
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
    """Translate one message of Asterisk."""
    try:
        message = msgspec.json.decode(given)
    except (ValueError, RecursionError):
        return
    event = to_event(message, lambda: "id")
    assert event is None or all(isinstance(getattr(event, name), str | int | None) for name in event.__struct_fields__)


def wire(given: bytes) -> None:
    """Process bytes from the WebSocket, and as the body of a response."""

    async def hears() -> None:
        seen: list[dict[str, Any]] = []
        socket = AriWebSocket(seen.append, _ignore, _ignore)
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
        _answer(AriResponse(status, "", given))


def _ignore(_: object) -> None:
    pass


class _Silent:
    is_close_frame_sent = False

    def send(self, _kind: object, text: bytes) -> None:
        pass


def _answer(answer: AriResponse) -> None:
    try:
        decode_response("GET", "/channels", answer)
    except AriError as error:
        assert len(str(error)) <= MAX_WARNING_CHARACTERS


def fragment(given: bytes) -> None:
    """Parse a URL fragment, and a Retry-After header."""
    text = given.decode("utf-8", "replace")
    bare, policy, warnings = retry_policy.parse(f"http://example.com/{text}")
    assert "#" not in bare
    numbers = (policy.connect_ms, policy.read_ms, policy.total_ms, policy.retries)
    for number, (low, high) in zip(numbers, retry_policy.RANGES.values(), strict=True):
        assert low <= number <= high
    assert policy.retry_on and policy.retry_on <= set(retry_policy.RETRY_CONDITIONS)
    assert (
        all(len(warning) <= MAX_WARNING_CHARACTERS for warning in warnings)
        and len(warnings) <= retry_policy.MAX_WARNINGS + 1
    )
    waited = retry_policy.retry_after_ms(text, 1_700_000_000_000)
    assert waited is None or waited >= 0
    tries = [retry_policy.AttemptOutcome(0, 10, status=503, retry_after_ms=waited)]
    delay = retry_policy.next_delay_ms(policy, tries, 10, 0.5)
    assert delay is None or 0 <= delay <= policy.total_ms


def speech(given: bytes) -> None:
    """Parse the markup as in Speak, and as it is read again for synthesis."""
    text = given.decode("utf-8", "replace")
    _spoken(ssml.plain(text))
    try:
        _bounded(ssml.segments(text))
    except SoundError as error:
        assert len(str(error)) <= MAX_WARNING_CHARACTERS
    # A document cannot contain characters that XML does not allow.
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
        return  # the parser refuses documents before this depth
    assert all(len(warning) <= MAX_WARNING_CHARACTERS for warning in warnings)
    _spoken(markup)


def _spoken(markup: str) -> None:
    try:
        pieces = _soon(lambda: ssml.segments(markup))
    except SoundError:
        assert any((c < " " and c not in "\t\n\r") or c in "\ufffe\uffff" for c in markup), "ours is well-formed"
        return
    _bounded(pieces)


def _bounded(pieces: tuple[ssml.Text | ssml.Pause, ...]) -> None:
    """Check the limits of the whole text, and of the parts that an engine gets."""
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
        assert " ".join(parts) == ssml.shorten_runs(text.text), "nothing is lost"
        assert all(len(part) <= ssml.MAX_PART for part in parts)
        assert all(len(word) <= ssml.MAX_WORD for part in parts for word in part.split(" "))


def _soon(work: Callable[[], T]) -> T:
    found, took = cost_s(work, SOON_S)
    assert took < SOON_S, f"it took {took * 1000:.0f} ms of the time of all calls"
    return found


def cost_s(work: Callable[[], T], enough_s: float) -> tuple[T, float]:
    """Return the result of `work` and its lowest CPU cost in this thread, repeated until one run costs less than
    `enough_s`.

    A busy machine makes each run slower, and so does garbage collection during it.
    """
    least = math.inf
    for _ in range(40):
        began = time.thread_time()
        found = work()
        least = min(least, time.thread_time() - began)
        if least < enough_s:
            break
    return found, least


def bodies(given: bytes) -> None:
    """Parse the request body of each API call."""
    asyncio.run(_read_all(given))


async def _read_all(given: bytes) -> None:
    for kind in ("application/json", parameters.FORM, ""):
        for model in (
            models.PlayRequest,
            models.MemberSpeakRequest,
            models.AnnounceRequest,
            models.RecordRequest,
            models.HoldRequest,
        ):
            await _read(model, kind, given)


async def _read(model: type[Any], kind: str, given: bytes) -> None:
    chunks = [{"type": "http.request", "body": given}]

    async def receive() -> Any:
        return chunks.pop()

    headers = Headers({"content-type": kind}).raw
    request = Request({"type": "http", "method": "POST", "headers": headers, "query_string": b""}, receive)
    try:
        found = await parameters.params_dependency(model)(request)
    except ApiError as refused:
        assert refused.status in (400, 413)
    else:
        assert isinstance(found, model)


def queued_command(given: bytes) -> None:
    """Decode a command as `serve` reads it from Redis."""
    with suppress(ValueError, RecursionError):
        msgspec.json.decode(given, type=CommandMessage)


def state(given: bytes) -> None:
    """Restore damaged state: only the damaged call or conference may be lost, and nothing may raise later."""
    damage.play(given, takeover.load)


def engine(given: bytes) -> None:
    """Feed ARI events in any order, about anything."""
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
    "events": engine,
}
