"""Tests of documents: signed or not sent, permission first, unknown accounts, kept documents, many concurrently."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ari_conf.core import effects as do
from ari_conf.core import events as ev
from ari_conf.core.calls.call import Call
from ari_conf.core.elements import Play, Speak, Wait
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.documents import parser
from ari_conf.errors import RequestFailed, RequestRefused, ResponseRefused, StoreUnavailable
from ari_conf.server import document_loader
from ari_conf.server.document_loader import DocumentLoader
from ari_conf.server.effect_runner import EffectRunner
from ari_conf.store.accounts import AccountRecord, OldToken
from tests.fuzz import costly

SOON_S = 10.0
"""Seconds for results that are immediate, on a busy machine."""
URL = "https://customer.example/answer?secret=1"
PARAMS = (("CallUUID", "c"),)
ACME = AccountRecord(auth_id="MA1", token="newest", created_ms=0, old_tokens=(OldToken("valid", 1 << 60),))


class World:
    """Everything from which documents are made; `did`: the actions, in order."""

    def __init__(self, folder: Path = Path()) -> None:
        self.did: list[Any] = []
        self.body = b"<Response><Wait/></Response>"
        self.content_type = "text/xml"
        self.error: Exception | None = None
        self.sounds_url = URL
        self.accounts: dict[str, AccountRecord | Exception | None] = {"MA1": ACME}
        self.looked_up: list[str] = []
        self.store_answers = asyncio.Event()
        self.store_answers.set()
        self.permitted = asyncio.Event()
        self.permitted.set()
        mine = cast(Any, self)
        self.documents = DocumentLoader(mine, mine, folder, cast(Any, SimpleNamespace(permission=self)))

    # The store, and the permission for each request.

    async def account(self, auth_id: str) -> AccountRecord | None:
        self.looked_up.append(auth_id)
        found = self.accounts.get(auth_id)
        if found is ACME:
            return ACME
        await self.store_answers.wait()
        if isinstance(found, Exception):
            raise found
        return found

    async def wait_until_held(self) -> None:
        self.did.append("permission")
        await self.permitted.wait()

    # The fetcher.

    async def request(
        self,
        method: str,
        url: str,
        params: do.Params,
        *,
        tokens: list[str],
        limit_bytes: int,
        account: str,
        enough: Any,
    ) -> Any:
        self.did.append((method, url, params, tokens, limit_bytes, account))
        if self.error is not None:
            raise self.error
        return SimpleNamespace(body=self.body, headers={"Content-Type": self.content_type})

    # The requests.

    async def fetch(self, source: str = URL, auth_id: str = "MA1") -> ev.Event:
        return await self.documents.fetch(do.FetchDocument("c.u.1", auth_id, source, "POST", PARAMS))

    async def fetch_sounds(self, auth_id: str = "MA1") -> ev.Event:
        return await self.documents.fetch_sounds(do.FetchSoundDocument("f.c.1", auth_id, self.sounds_url, PARAMS))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def failed(event: ev.Event) -> str:
    """Return the reason of a failure that is not the document's fault (codes 7011, 7012, 7014)."""
    assert isinstance(event, ev.DocumentFailed | ev.SoundDocumentFailed)
    assert not getattr(event, "invalid", False)
    return event.reason


Fetch = Callable[[World], Awaitable[ev.Event]]
BOTH = pytest.mark.parametrize("fetch", [World.fetch, World.fetch_sounds], ids=["document", "sounds"])


# Responses.


@BOTH
async def test_the_encoding_may_come_with_the_reply(world: World, fetch: Fetch) -> None:
    world.body = "<Response><Speak>Käse</Speak></Response>".encode("latin-1")
    world.content_type = 'Text/XML; Charset="ISO-8859-1"'
    event = await fetch(world)
    assert isinstance(event, ev.DocumentFetched | ev.SoundDocumentFetched)
    assert getattr(event, "elements", getattr(event, "sounds", None)) == (Speak("Käse"),)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("audio/mpeg", b""),
        ("audio/x-wav", b"anything"),
        ("application/octet-stream", b"ID3\x04\0"),
        ("", b"RIFF\0\0\0\0WAVE"),
        ("text/plain", b"\xff\xfb\x90\0"),
        ("text/plain", b"\xff\xf3\x40\0"),
    ],
)
async def test_a_sound_itself_is_played(world: World, content_type: str, body: bytes) -> None:
    """ "A reply that is audio (by its Content-Type or its first bytes) is played as a Play of that URL would be" """
    world.content_type, world.body = content_type, body
    assert await world.fetch_sounds() == ev.SoundDocumentFetched("f.c.1", (Play(URL),))


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("audio/mpeg", b"\n <Response><Wait/></Response>"),
        ("text/xml", "<Response><Wait/></Response>".encode("utf-16")),
        ("audio/wav", b"\xef\xbb\xbf<Response><Wait/></Response>"),
    ],
)
async def test_a_document_is_no_sound_whatever_it_is_called(world: World, content_type: str, body: bytes) -> None:
    world.content_type, world.body = content_type, body
    assert await world.fetch_sounds() == ev.SoundDocumentFetched("f.c.1", (Wait(),))


@pytest.mark.parametrize(
    ("name", "status", "played"),
    [
        ("a.mp3", 405, True),
        ("b.WAV", 403, True),
        ("a.mp3", 404, False),
        ("a.php", 405, False),
        ("a.mp3", 500, False),
        ("a.mp3", 0, False),
    ],
)
async def test_a_file_server_without_post_serves_the_sound_by_get(
    world: World, name: str, status: int, played: bool
) -> None:
    world.sounds_url = f"https://files.example/{name}?key=1"
    world.error = RequestFailed("no", status)
    event = await world.fetch_sounds()
    assert (event == ev.SoundDocumentFetched("f.c.1", (Play(world.sounds_url),))) == played
    assert isinstance(event, ev.SoundDocumentFetched if played else ev.SoundDocumentFailed)


# Requests.


@BOTH
async def test_a_request_is_signed_with_all_tokens_of_the_account_after_permission(world: World, fetch: Fetch) -> None:
    event = await fetch(world)
    assert isinstance(event, ev.DocumentFetched | ev.SoundDocumentFetched)
    assert world.did == ["permission", ("POST", URL, PARAMS, ["newest", "valid"], parser.MAX_BYTES, "MA1")]


@BOTH
async def test_without_permission_nothing_is_sent(world: World, fetch: Fetch) -> None:
    """Another process may own these calls by now."""
    world.permitted.clear()
    asking = asyncio.ensure_future(fetch(world))
    while not world.did:  # noqa: ASYNC110
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.did == ["permission"]
    world.permitted.set()
    await asking
    assert len(world.did) == 2


async def test_a_request_of_a_last_call_is_signed_while_its_account_is_being_removed(world: World) -> None:
    world.accounts["MA2"] = AccountRecord(auth_id="MA2", token="last", created_ms=0, removed=True)
    await world.fetch(auth_id="MA2")
    assert world.did[-1][3] == ["last"]


@BOTH
async def test_while_redis_is_away_nothing_is_sent_unsigned(
    world: World, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_loader, "ACCOUNT_TIMEOUT_S", 0.1)
    world.accounts["MA1"] = StoreUnavailable("Redis can't be used: refused")
    reason = failed(await fetch(world))
    assert reason == (
        "https://customer.example/answer: request not sent, because it could not be signed: "
        "Redis is unreachable, and account 'MA1' is not known yet"
    )
    assert world.did == []


@BOTH
async def test_nothing_is_sent_for_an_account_that_was_removed(world: World, fetch: Fetch) -> None:
    world.accounts.clear()
    reason = failed(await fetch(world))
    assert reason == "https://customer.example/answer: request not sent: account 'MA1' no longer exists"
    assert world.did == []


async def test_an_account_is_looked_up_again_while_there_is_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def comes_back(_: float) -> None:
        world.accounts["MA1"] = ACME

    monkeypatch.setattr(document_loader.asyncio, "sleep", comes_back)
    world.accounts["MA1"] = StoreUnavailable("Redis can't be used: refused")
    assert await world.documents.account("MA1") is ACME
    assert world.looked_up == ["MA1", "MA1"]


# Accounts while Redis is unreachable.


async def test_all_calls_of_an_account_share_one_look_up_that_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_loader, "ACCOUNT_TIMEOUT_S", 0.2)
    world.accounts["MA2"] = None
    world.store_answers.clear()
    asking = [asyncio.create_task(world.documents.account("MA2")) for _ in range(100)]
    assert await asyncio.wait_for(world.documents.account("MA1"), SOON_S) is ACME, "a known account does not wait"
    ended = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(end) for end in ended} == {StoreUnavailable}
    assert world.looked_up == ["MA2", "MA1"]
    world.store_answers.set()
    assert await world.documents.account("MA2") is None
    assert world.documents._looking_up == {}


async def test_a_call_that_gives_up_ends_the_look_up_for_no_other(world: World) -> None:
    world.accounts["MA2"] = None
    world.store_answers.clear()
    first, second = (asyncio.create_task(world.documents.account("MA2")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    world.store_answers.set()
    assert await second is None
    assert world.looked_up == ["MA2"]


@pytest.mark.parametrize("is_away", [True, False])
async def test_a_missing_account_and_an_unreachable_redis_have_different_messages(
    world: World, monkeypatch: pytest.MonkeyPatch, is_away: bool
) -> None:
    """An operator must not be told to add an account that exists."""
    monkeypatch.setattr(document_loader, "ACCOUNT_TIMEOUT_S", 0.1)
    world.accounts["MA1"] = StoreUnavailable("Redis can't be used: refused") if is_away else None
    reported: list[ev.Event] = []
    ari: Any = SimpleNamespace(app="ari_conf", request=_no_variable, permission=world)
    mine = cast(Any, world)
    interpreter = EffectRunner(ari, mine, mine, mine, Path(), reported.append, lambda _: None)
    call, (identify,) = Call.from_arrival(ev.CallArrived("ch", "c", "r", "MA1", "+1", "+2"), 1000)
    interpreter.run(cast(do.Effect, identify))
    async with asyncio.timeout(SOON_S):
        while not reported:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await interpreter.close()
    problem, *others = call.handle_event(reported[0], 2000)
    assert isinstance(problem, do.ReportProblem) and problem.code == 7011
    (hang_up,) = [effect for effect in others if isinstance(effect, do.HangUp)]
    if is_away:
        assert problem.text == "the call could not be started: Redis is unreachable, and account 'MA1' is not known yet"
        assert hang_up.reason == "normal"
    else:
        assert problem.text.startswith("account 'MA1' does not exist: create it with `ari-conf account add`")
        assert hang_up.reason == "rejected"


async def _no_variable(*_: Any, **__: Any) -> None:
    return None


# Results.


async def test_response_is_a_document_an_invalid_one_or_none(world: World) -> None:
    event = await world.fetch()
    assert event == ev.DocumentFetched("c.u.1", (Wait(),), ())
    world.body = b"<html/>"
    event = await world.fetch()
    assert isinstance(event, ev.DocumentFailed) and event.invalid
    assert event.reason == (
        "document https://customer.example/answer could not be run: "
        "the document's root is <html>; it must be <Response>"
    )
    world.error = RequestFailed("https://customer.example/answer: it responded with status 500 (1 try)")
    assert failed(await world.fetch()) == str(world.error)
    world.error = ResponseRefused("https://customer.example/answer: its response is longer than allowed")
    event = await world.fetch()
    assert isinstance(event, ev.DocumentFailed) and event.invalid


async def test_a_sound_document_is_delivered_or_the_reason_why_not(world: World) -> None:
    world.body = b"<Response><Wait/><Play>https://e.x/a</Play><Speak>hi</Speak><Hangup/></Response>"
    event = await world.fetch_sounds()
    assert isinstance(event, ev.SoundDocumentFetched)
    assert event.sounds == (Wait(), Play("https://e.x/a"), Speak("hi")) and len(event.warnings) == 1
    world.body = b"<html/>"
    assert "root is <html>" in failed(await world.fetch_sounds())


@pytest.mark.parametrize(
    ("error", "of_document", "of_sounds"),
    [
        (RequestFailed("down", 500), ProblemKind.DOCUMENT_UNREACHABLE, ProblemKind.SOUND_DOCUMENT_FAILED),
        (ResponseRefused("too long"), ProblemKind.DOCUMENT_INVALID, ProblemKind.SOUND_DOCUMENT_FAILED),
        (RequestRefused("private"), ProblemKind.URL_NOT_ALLOWED, ProblemKind.URL_NOT_ALLOWED),
        (None, ProblemKind.DOCUMENT_INVALID, ProblemKind.SOUND_DOCUMENT_FAILED),
    ],
    ids=["unreachable", "too long", "not allowed", "no document"],
)
async def test_a_failure_says_its_kind(
    world: World, error: Exception | None, of_document: ProblemKind, of_sounds: ProblemKind
) -> None:
    world.error, world.body = error, b"<html/>"
    document, sounds = await world.fetch(), await world.fetch_sounds()
    assert isinstance(document, ev.DocumentFailed) and document.kind == of_document
    assert isinstance(sounds, ev.SoundDocumentFailed) and sounds.kind == of_sounds


# Kept documents.


async def test_a_local_document_is_read_by_its_name_without_a_request(world: World, tmp_path: Path) -> None:
    (tmp_path / "standup.xml").write_text("<Response><Wait length='2'/></Response>")
    for name in ("standup", "standup.xml"):
        assert await world.fetch(name) == ev.DocumentFetched("c.u.1", (Wait(2),), ())
    assert world.did == [] and world.looked_up == []


@pytest.mark.parametrize(
    "name",
    ["../standup", "/etc/passwd", "a/b", ".hidden", "", "a b", "x" * 101, "standup\n", "..", "ftp:/x", "a\x00b", "é"],
)
async def test_a_name_leads_nowhere_else(world: World, tmp_path: Path, name: str) -> None:
    (tmp_path.parent / "standup.xml").write_text("<Response/>")
    event = await world.fetch(name)
    assert isinstance(event, ev.DocumentFailed) and event.invalid
    assert "expected an http or https URL, or a document name" in event.reason


@pytest.mark.parametrize("is_there", [False, True])
async def test_a_message_about_a_local_document_names_no_path(
    world: World, tmp_path: Path, is_there: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """An account does not need to know the server's folders; the operator finds the path in the log."""
    if is_there:
        (tmp_path / "standup.xml").mkdir()
    reason = failed(await world.fetch("standup"))
    why = "Is a directory" if is_there else "No such file or directory"
    assert reason == f"document 'standup' could not be read: {why}"
    assert str(tmp_path) in capsys.readouterr().out


async def test_a_message_names_little_of_a_long_source(world: World) -> None:
    event = await world.fetch("x" * 5000)
    assert isinstance(event, ev.DocumentFailed)
    assert len(event.reason) < 500


# Many, long and expensive documents.


async def latest(work: Awaitable[Any]) -> float:
    """Return the seconds by which the loop was late at most during the work."""
    found = [0.0]

    async def look() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.002)
            found.append(time.perf_counter() - began - 0.002)

    looking = asyncio.create_task(look())
    await work
    looking.cancel()
    return max(found)


async def test_long_documents_are_read_beside_the_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document that takes long does not delay the loop."""
    begun, goes_on = asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def slow(text: bytes, charset: str) -> parser.Document:
        loop.call_soon_threadsafe(begun.set)
        deadline = time.monotonic() + SOON_S
        while not goes_on:
            assert time.monotonic() < deadline, "the loop does not run"
            time.sleep(0.001)
        return parser.Document(())

    monkeypatch.setattr(parser, "parse", slow)
    world.body = b" " * (parser.SHORT_BYTES + 1)
    reading = asyncio.create_task(world.fetch())
    await asyncio.wait_for(begun.wait(), SOON_S)
    goes_on.append(True)
    assert await reading == ev.DocumentFetched("c.u.1", (), ())


@pytest.mark.parametrize(
    "name", ["names like a known one", "fragments", "spoken words", "a long namespace", "patterns of one"]
)
async def test_costly_documents_leave_the_loop_its_time(world: World, name: str) -> None:
    """Each of them alone took up to a second of the loop's time."""
    world.body = costly.documents()[name]
    # The best of several counts: delays by a busy machine are not caused by documents.
    for _ in range(20):
        late = await latest(asyncio.gather(*(world.fetch() for _ in range(5))))
        if late < 0.05:
            return
    pytest.fail(f"the loop was late by {late:.2f} s, and each time by more than 0.05 s")


async def test_an_account_s_many_long_documents_delay_another_s_by_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[bytes] = []

    def noted(text: bytes, charset: str = "") -> parser.Document:
        order.append(text.strip())
        time.sleep(0.01)
        return parser.Document(())

    monkeypatch.setattr(parser, "parse", noted)
    world.accounts["MA2"] = ACME
    pad = b" " * parser.SHORT_BYTES
    reads = [asyncio.create_task(world.documents._parse(parser.parse, "MA1", pad + b"MA1")) for _ in range(50)]
    await asyncio.sleep(0)
    await world.documents._parse(parser.parse, "MA2", pad + b"MA2")
    assert order.index(b"MA2") <= 2
    await asyncio.gather(*reads)


async def test_more_long_documents_than_can_wait_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser, "parse", lambda *_: time.sleep(0.001) or parser.Document(()))
    world.body = b" " * (parser.SHORT_BYTES + 1)
    events = await asyncio.gather(*(world.fetch() for _ in range(document_loader.MAX_UNPARSED + 50)))
    refused = [event for event in events if isinstance(event, ev.DocumentFailed)]
    assert 0 < len(refused) <= 50
    assert all("use fewer concurrent requests" in failed(event) for event in refused)
