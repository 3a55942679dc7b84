"""Tests of sounds, with an origin that can change, fail and be counted; a real ffmpeg; and a clock that the test
sets."""

import asyncio
import contextlib
import subprocess
import wave
from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from structlog.testing import capture_logs
from werkzeug import Request, Response

from ari_conf.core.elements import Play, Speak
from ari_conf.errors import RequestFailed, RequestRefused, ResponseRefused, SoundError, SoundNotFetched
from ari_conf.http_client.fetch import Fetcher
from ari_conf.media import sounds as media_sounds
from ari_conf.media import transcode
from ari_conf.media.cache import PLAYBACK_GRACE_S
from ari_conf.media.cache_control import DEFAULT_FRESH_S, STALE_S
from ari_conf.media.sounds import LIMIT_BYTES, MAX_PREFETCHES_PER_ACCOUNT, MAX_PREFETCHES_PER_CALL, SoundPreparer
from ari_conf.media.tones import beep, wav
from ari_conf.settings import Settings
from tests import lateness

URL = "https://example.com/hello.wav"


@dataclass
class Reply:
    status: int
    etag: str | None = None
    last_modified: str | None = None
    cache_control: str | None = None


@dataclass
class Origin:
    body: bytes = beep("beep:1", 16000)
    etag: str | None = '"1"'
    cache_control: str | None = None
    fails: Exception | None = None
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    arrived: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    given_up: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    hangs: str | None = None
    """Part of the URLs that are never answered."""
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.let_go.set()

    async def get_file(
        self,
        url: str,
        path: Path,
        limit_bytes: int,
        etag: str | None = None,
        last_modified: str | None = None,
        *,
        account: str,
    ) -> Reply:
        assert account, "names are looked up in the account's share"
        assert limit_bytes == LIMIT_BYTES == 10 * 1024 * 1024
        self.seen.append((url, etag))
        self.arrived.put_nowait(url)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await (asyncio.Event() if self.hangs and self.hangs in url else self.let_go).wait()
        except asyncio.CancelledError:
            self.given_up.put_nowait(url)
            raise
        finally:
            self.at_once -= 1
        if self.fails:
            raise self.fails
        if etag is not None and etag == self.etag:
            return Reply(304, self.etag, None, self.cache_control)
        path.write_bytes(self.body)
        return Reply(200, self.etag, "Mon, 02 Nov 2026 00:00:00 GMT", self.cache_control)


class Parrot:
    """Engine that renders every text as a beep, and counts."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.hangs = False

    def identity(self, voice: str, language: str) -> str:
        return voice

    async def speak(self, markup: str, voice: str, language: str, path: Path, account: str) -> None:
        self.said.append(markup)
        if self.hangs:
            await asyncio.Event().wait()
        path.write_bytes(beep("beep:2", 16000))

    async def close(self) -> None:
        self.said.append("closed")


@dataclass
class World:
    folder: Path
    origin: Origin = field(default_factory=Origin)
    engine: Parrot = field(default_factory=Parrot)
    now: float = 1_000_000_000.0
    opened: list[SoundPreparer] = field(default_factory=list)

    def sounds(self, sounds_url: str | None = None) -> SoundPreparer:
        settings = Settings(sounds_folder=self.folder, sounds_url=sounds_url)
        self.opened.append(SoundPreparer(settings, self.origin, self.engine, lambda: self.now))
        return self.opened[-1]

    def request_count(self) -> int:
        return len(self.origin.seen)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give conversions time on a busy machine: other programs have priority over them."""
    monkeypatch.setattr(media_sounds, "PREPARE_TIMEOUT_S", 300.0)
    monkeypatch.setattr(transcode, "TRANSCODE_TIMEOUT_S", 300.0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    for sounds in world.opened:
        await sounds.close()


async def cancelled(tasks: list[asyncio.Task[str]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def quiet(sounds: SoundPreparer) -> None:
    """Wait until no background work is left."""
    async with asyncio.timeout(30):
        await sounds._background.wait_until_idle()


def length(media: str, suffix: str = ".wav") -> tuple[int, float]:
    """Return (samples per second, seconds) of the file that Asterisk plays."""
    with wave.open(media.removeprefix("sound:") + suffix) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getframerate(), round(file.getnframes() / file.getframerate(), 2)


def made(folder: Path, suffix: str, *arguments: str) -> bytes:
    path = folder / f"made{suffix}"
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments, path], check=True)
    return path.read_bytes()


SINE = ("-f", "lavfi", "-i", "sine=frequency=440:duration=1")


# Play.


async def test_a_url_becomes_a_file_for_narrow_and_one_for_wide_callers(world: World) -> None:
    media = await world.sounds().prepare(Play(URL), "A")
    assert media.startswith(f"sound:{world.folder}/")
    assert length(media, ".wav") == (8000, 0.3)
    assert length(media, ".wav16") == (16000, 0.3)


async def test_an_asterisk_elsewhere_gets_an_address(world: World) -> None:
    sounds = world.sounds("http://10.0.0.5:8090/sounds/")
    media = await sounds.prepare(Play(URL), "A")
    assert media.startswith("sound:http://10.0.0.5:8090/sounds/")
    found = sounds.file_for_request(media.removeprefix("sound:http://10.0.0.5:8090/sounds/"))
    assert found is not None
    assert length(str(found), "") == (8000, 0.3)
    assert sounds.file_for_request("../settings.py") is None


@pytest.mark.parametrize(
    "arguments",
    [
        (".mp3", *SINE, "-ar", "44100", "-ac", "2"),
        (".mp3", *SINE, "-f", "lavfi", "-i", "color=s=64x64:d=1", "-map", "0", "-map", "1", "-frames:v", "1"),
        (".wav", *SINE, "-ar", "8000", "-c:a", "pcm_mulaw"),
        (".wav", *SINE, "-c:a", "pcm_f32le"),
        (".wav", *SINE, "-c:a", "adpcm_ms"),
    ],
    ids=["stereo", "cover picture", "u-law", "float", "adpcm"],
)
async def test_usual_formats_are_accepted(world: World, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    world.origin.body = made(tmp_path, *arguments)
    rate, seconds = length(await world.sounds().prepare(Play(URL), "A"), ".wav16")
    assert rate == 16000
    assert seconds == pytest.approx(1, abs=0.08)


PLAY_LIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile /usr/share/sounds/alsa/Front_Center.wav\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Not found</html>",
        PLAY_LIST,
        CONCAT,
        beep("beep:1", 8000)[:44],
        b"RIFF\0\0\0\0WAVE",
        b"\xff\xfb" * 99,
    ],
    ids=["empty", "a page", "play list", "concat", "no samples", "no chunks", "noise"],
)
async def test_response_that_is_no_sound_is_refused(world: World, body: bytes) -> None:
    world.origin.body = body
    told = r"Play: https://example.com/hello.wav could not be played \(expected mp3 or wav\): "
    with pytest.raises(SoundError, match=told):
        await world.sounds().prepare(Play(URL + "?token=secret"), "A")
    assert list((world.folder / "parts").iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        (".flac", *SINE),
        (".mkv", *SINE, "-c:a", "mp3"),
        (".avi", *SINE, "-c:a", "mp3"),
        (".wav", *SINE, "-c:a", "wmav2"),
    ],
)
async def test_other_formats_are_refused_also_around_mp3(
    world: World, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    world.origin.body = made(tmp_path, *arguments)
    with pytest.raises(SoundError, match="expected mp3 or wav"):
        await world.sounds().prepare(Play(URL), "A")


# The cache of URLs.


async def test_a_fresh_copy_is_not_requested_again_even_by_another_process(world: World) -> None:
    world.origin.cache_control = "max-age=600"
    first = await world.sounds().prepare(Play(URL), "A")
    world.now += 599
    assert await world.sounds().prepare(Play(URL + "#rc=3", loop=0), "A") == first
    assert world.request_count() == 1


async def test_an_old_copy_is_confirmed_by_its_etag(world: World) -> None:
    sounds = world.sounds()
    first = await sounds.prepare(Play(URL), "A")
    world.now += DEFAULT_FRESH_S
    assert await sounds.prepare(Play(URL), "A") == first
    assert world.origin.seen == [(URL, None), (URL, '"1"')]
    world.now += DEFAULT_FRESH_S - 1
    assert await sounds.prepare(Play(URL), "A") == first
    assert world.request_count() == 2


async def test_a_changed_sound_is_heard(world: World) -> None:
    sounds = world.sounds()
    first = await sounds.prepare(Play(URL), "A")
    world.origin.body, world.origin.etag = beep("beep:2", 8000), '"2"'
    world.now += DEFAULT_FRESH_S
    second = await sounds.prepare(Play(URL), "A")
    assert (length(first), length(second)) == ((8000, 0.3), (8000, 0.8))


async def test_no_cache_is_confirmed_each_time_and_no_store_fetched_each_time(world: World) -> None:
    sounds = world.sounds()
    for told, seen in (("no-cache", ['"1"', '"1"']), ("no-store", ['"1"', None])):
        world.origin.cache_control = told
        world.origin.seen.clear()
        if told == "no-cache":
            await sounds.prepare(Play(URL), "A")
            world.origin.seen.clear()
        else:
            world.origin.body, world.origin.etag = beep("beep:2", 8000), '"2"'
        for _ in range(2):
            await sounds.prepare(Play(URL), "A")
        assert [etag for _, etag in world.origin.seen] == seen


@pytest.mark.parametrize(("told", "after", "heard"), [
    (None, DEFAULT_FRESH_S, True),
    (None, DEFAULT_FRESH_S + STALE_S, False),
    ("max-age=10, must-revalidate", 10, False),
    ("no-cache", 0, False),
])  # fmt: skip
async def test_an_older_copy_stands_in_for_an_origin_that_fails(
    world: World, told: str | None, after: int, heard: bool
) -> None:
    world.origin.cache_control = told
    sounds = world.sounds()
    first = await sounds.prepare(Play(URL), "A")
    world.origin.fails = RequestFailed("example.com: no answer (2 tries)")
    world.now += after
    if heard:
        assert await sounds.prepare(Play(URL), "A") == first
    else:
        with pytest.raises(SoundError, match="no answer"):
            await sounds.prepare(Play(URL), "A")


async def test_no_stale_copy_replaces_a_forbidden_url(world: World) -> None:
    sounds = world.sounds()
    await sounds.prepare(Play(URL), "A")
    world.now += DEFAULT_FRESH_S
    world.origin.fails = RequestRefused("example.com: requests to this address are not allowed")
    with pytest.raises(SoundNotFetched, match="requests to this address are not allowed") as refused:
        await sounds.prepare(Play(URL), "A")
    assert refused.value.not_allowed


@pytest.mark.parametrize(
    ("fails", "heard"),
    [
        (RequestFailed("down", 500), True),
        (RequestFailed("down", 503), True),
        (RequestFailed("no connection"), True),
        (RequestFailed("forbidden", 401), False),
        (RequestFailed("forbidden", 403), False),
        (RequestFailed("gone", 404), False),
        (RequestFailed("gone", 410), False),
        (RequestFailed("moved", 302), False),
        (ResponseRefused("longer than allowed"), False),
    ],
    ids=lambda given: f"{type(given).__name__} {given.status}" if isinstance(given, RequestFailed) else None,
)
async def test_an_origin_that_answers_decides_what_is_played(world: World, fails: RequestFailed, heard: bool) -> None:
    """RFC 5861: stale-if-error is for origins that are broken, not for those that refuse."""
    sounds = world.sounds()
    first = await sounds.prepare(Play(URL + "?key=secret"), "A")
    world.now += DEFAULT_FRESH_S
    world.origin.fails = fails
    with capture_logs() as logs:
        if heard:
            assert await sounds.prepare(Play(URL + "?key=secret"), "A") == first
            assert [line["url"] for line in logs] == [URL]
            assert "secret" not in str(logs)
            return
        with pytest.raises(SoundNotFetched) as failure:
            await sounds.prepare(Play(URL + "?key=secret"), "A")
        assert not failure.value.not_allowed
    # Nor is it played once the origin is unreachable.
    world.origin.fails = RequestFailed("no connection")
    with pytest.raises(SoundError, match="no connection"):
        await sounds.prepare(Play(URL + "?key=secret"), "A")


async def test_each_account_fetches_a_sound_itself(world: World) -> None:
    world.origin.cache_control = "max-age=600"
    sounds = world.sounds()
    first = await sounds.prepare(Play(URL), "A")
    world.origin.fails = RequestFailed("it responded with status 403", 403)
    with pytest.raises(SoundError, match="403"):
        await sounds.prepare(Play(URL), "B")
    assert await sounds.prepare(Play(URL), "A") == first
    world.origin.fails = None
    assert await sounds.prepare(Play(URL), "B") == first
    assert world.origin.seen == [(URL, None)] * 3


async def test_a_sound_that_is_played_again_and_again_stays(world: World) -> None:
    """An application that plays a sound in a loop causes one request."""
    sounds = world.sounds()
    media = await sounds.prepare(Play(URL), "A")
    path = Path(media.removeprefix("sound:") + ".wav")
    for _ in range(3):
        world.now += PLAYBACK_GRACE_S - 10
        sounds.record_use([media, "sound:tt-monkeys", "sound:/nowhere/ab/" + "0" * 62])
        await quiet(sounds)
        assert path.stat().st_mtime == world.now
    for _ in range(100):
        sounds.record_use([media])
    assert len(sounds._background) == 0, "not for every playback"


async def test_a_sound_without_room_is_refused_in_the_user_s_words(world: World) -> None:
    sounds = SoundPreparer(Settings(sounds_folder=world.folder, sounds_limit_mb=10), world.origin, world.engine)
    world.opened.append(sounds)
    second = array("h", range(16000)).tobytes()
    world.origin.body = wav(second * 50, 16000)
    await sounds.prepare(Play(URL), "A")
    world.origin.body = wav(second * 51, 16000)
    told = r"^Play: https://example.com/hello.wav could not be played: the sound cache is full: this account's .* 2 MB"
    with pytest.raises(SoundError, match=told):
        await sounds.prepare(Play(URL + "?2"), "A")
    assert list((world.folder / "parts").iterdir()) == []
    assert length(await sounds.prepare(Play("beep:1"), "A")) == (8000, 0.3)
    assert await sounds.prepare(Play(URL + "?3"), "B")


async def test_a_failed_sound_is_retried(world: World) -> None:
    sounds = world.sounds()
    world.origin.fails = RequestFailed("down")
    with pytest.raises(SoundError):
        await sounds.prepare(Play(URL), "A")
    world.origin.fails = None
    assert length(await sounds.prepare(Play(URL), "A")) == (8000, 0.3)


# Concurrent requests.


async def test_concurrent_requests_share_one_fetch(world: World) -> None:
    sounds = world.sounds()
    world.origin.let_go.clear()
    sounds.warm([Play(URL), Play(URL)], "A", "call")
    asking = [asyncio.create_task(sounds.prepare(Play(URL), "A")) for _ in range(3)]
    await world.origin.arrived.get()
    world.origin.let_go.set()
    assert len(set(await asyncio.gather(*asking))) == 1
    assert world.request_count() == 1


async def test_a_fetch_continues_for_the_other_callers_if_one_hangs_up(world: World) -> None:
    sounds = world.sounds()
    world.origin.let_go.clear()
    first, second = (asyncio.create_task(sounds.prepare(Play(URL), "A")) for _ in range(2))
    await world.origin.arrived.get()
    first.cancel()
    world.origin.let_go.set()
    assert length(await second) == (8000, 0.3)
    assert world.request_count() == 1


async def test_a_fetch_ends_when_its_last_caller_hangs_up(world: World) -> None:
    sounds = world.sounds()
    world.origin.let_go.clear()
    asking = [asyncio.create_task(sounds.prepare(Play(URL), "A")) for _ in range(2)]
    await world.origin.arrived.get()
    for one in asking:
        one.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await world.origin.given_up.get()
    world.origin.let_go.set()
    # No remains make the next request wait.
    assert length(await sounds.prepare(Play(URL), "A")) == (8000, 0.3)
    assert world.request_count() == 2


async def test_a_preparation_has_a_timeout(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_sounds, "PREPARE_TIMEOUT_S", 0.2)
    sounds = world.sounds()
    world.origin.let_go.clear()
    with pytest.raises(SoundError, match=r"^Play: https://example.com/hello.wav: it was not ready after 0.2 s$"):
        await sounds.prepare(Play(URL + "?token=secret"), "A")
    await world.origin.given_up.get()
    world.engine.hangs = True
    with pytest.raises(SoundError, match=r"^Speak: it was not ready"):
        await sounds.prepare(Speak("Hi."), "A")


async def arrive(world: World, requests: int) -> bool:
    """Return True if that many requests reach the origin within a while."""
    with contextlib.suppress(TimeoutError):
        async with lateness.timeout(10):
            for _ in range(requests):
                await world.origin.arrived.get()
            return True
    return False


async def test_slow_origins_of_one_account_keep_no_other_waiting(world: World) -> None:
    sounds = world.sounds()
    world.origin.hangs = "slow"
    slow = [Play(f"https://slow{n % 20}.example/{n}.wav") for n in range(100)]
    asking = [asyncio.create_task(sounds.prepare(sound, "A")) for sound in slow]
    assert await arrive(world, media_sounds.MAX_FETCHES_PER_ACCOUNT), "an account may have that many concurrently"
    assert length(await sounds.prepare(Play(URL), "B")) == (8000, 0.3)
    assert world.request_count() == media_sounds.MAX_FETCHES_PER_ACCOUNT + 1
    await cancelled(asking)


async def test_a_slow_origin_leaves_room_for_the_account_s_other_sounds(world: World) -> None:
    sounds = world.sounds()
    world.origin.hangs = "slow"
    asking = [asyncio.create_task(sounds.prepare(Play(f"https://slow.example/{n}.wav"), "A")) for n in range(9)]
    for _ in range(media_sounds.MAX_FETCHES_PER_ORIGIN):
        await world.origin.arrived.get()
    assert length(await sounds.prepare(Play(URL), "A")) == (8000, 0.3)
    await cancelled(asking)


async def test_one_account_can_t_have_more_wait_than_there_is_room_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ari_conf.media.subprocesses.MAX_WAITING", 3)
    sounds = world.sounds()
    world.origin.let_go.clear()
    many = [Play(f"{URL}?{n}") for n in range(media_sounds.MAX_FETCHES_PER_ORIGIN + 3 + 1)]
    asking = [asyncio.create_task(sounds.prepare(sound, "A")) for sound in many]
    (refused,), _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    with pytest.raises(SoundError, match=r"^Play: https://example.com/hello.wav: .* use fewer concurrent requests"):
        refused.result()
    await cancelled(asking)


async def test_a_sound_that_takes_long_to_convert_keeps_no_other_account_waiting(world: World, tmp_path: Path) -> None:
    """This holds on the smallest machine too."""
    stuck = tmp_path / "ffmpeg"
    stuck.write_text('#!/bin/sh\ncase "$*" in *A-*) exec sleep 60;; esac\nexec ffmpeg "$@"\n')
    stuck.chmod(0o755)
    sounds = SoundPreparer(Settings(sounds_folder=tmp_path / "A-"), world.origin, world.engine)
    others = SoundPreparer(Settings(sounds_folder=tmp_path / "B-"), world.origin, world.engine)
    others._transcode_shares = sounds._transcode_shares
    for one in (sounds, others):
        one._ffmpeg = str(stuck)
        world.opened.append(one)
    asking = [asyncio.create_task(sounds.prepare(Play(f"{URL}?{n}"), "A")) for n in range(9)]
    for _ in range(4):
        await world.origin.arrived.get()
    assert length(await others.prepare(Play(URL), "B")) == (8000, 0.3)
    await cancelled(asking)


# Warming.


async def test_warming_takes_some_of_the_first_at_a_time_and_fails_quietly(world: World) -> None:
    sounds = world.sounds()
    world.origin.let_go.clear()
    world.origin.fails = RequestFailed("down")
    sounds.warm([Play(f"{URL}?{n}") for n in range(1900)], "A", "call")
    seen = {await world.origin.arrived.get() for _ in range(MAX_PREFETCHES_PER_ACCOUNT)}
    world.origin.let_go.set()
    seen |= {await world.origin.arrived.get() for _ in range(MAX_PREFETCHES_PER_CALL - MAX_PREFETCHES_PER_ACCOUNT)}
    assert seen == {f"{URL}?{n}" for n in range(MAX_PREFETCHES_PER_CALL)}
    await quiet(sounds)
    assert world.origin.most_at_once == MAX_PREFETCHES_PER_ACCOUNT
    assert world.request_count() == MAX_PREFETCHES_PER_CALL
    assert sounds._prefetches_by_owner == {}


async def test_a_call_that_names_sounds_again_and_again_warms_no_more(world: World) -> None:
    sounds = world.sounds()
    world.origin.let_go.clear()
    for document in range(50):
        sounds.warm([Play(f"{URL}?{document}.{n}") for n in range(100)], "A", "call")
    assert len(sounds._background) == MAX_PREFETCHES_PER_CALL
    for call in range(50):
        sounds.warm([Play(f"{URL}?{call}.{n}") for n in range(100)], "A", f"call {call}")
    # Those calls that do not wait for a turn are gone by now.
    await world.origin.arrived.get()
    assert len(sounds._background) <= media_sounds.MAX_WAITING_PREFETCHES + MAX_PREFETCHES_PER_ACCOUNT


async def test_warming_ends_with_the_call(world: World) -> None:
    sounds = world.sounds()
    world.origin.let_go.clear()
    sounds.warm([Play(f"{URL}?{n}") for n in range(9)], "A", "call")
    for _ in range(MAX_PREFETCHES_PER_ACCOUNT):
        await world.origin.arrived.get()
    asking = asyncio.create_task(sounds.prepare(Play(f"{URL}?0"), "A"))
    await asyncio.sleep(0)
    sounds.stop_warming("call")
    # One of the two fetches in progress continues, because a caller waits for it.
    assert await world.origin.given_up.get() == f"{URL}?1"
    await quiet(sounds)
    world.origin.let_go.set()
    assert length(await asking) == (8000, 0.3)
    assert world.request_count() == MAX_PREFETCHES_PER_ACCOUNT


async def test_prefetches_do_not_delay_needed_sounds(world: World) -> None:
    """Warming delays neither another account's sounds nor the account's own, even if the sound is still queued for
    warming."""
    sounds = world.sounds()
    world.origin.hangs = "slow"
    for call in range(9):
        sounds.warm([*(Play(f"https://slow.example/{call}.{n}") for n in range(15)), Play(URL)], "A", f"call {call}")
    for _ in range(MAX_PREFETCHES_PER_ACCOUNT):
        await world.origin.arrived.get()
    slow = [Play(f"https://slow.example/{n}") for n in range(media_sounds.MAX_FETCHES_PER_ORIGIN)]
    asking = [asyncio.create_task(sounds.prepare(sound, "A")) for sound in slow]
    for _ in slow:
        assert await world.origin.arrived.get() in {sound.url for sound in slow}
    for account in "AB":
        assert length(await sounds.prepare(Play(URL), account)) == (8000, 0.3)
    await cancelled(asking)


async def test_closing_ends_what_runs(world: World) -> None:
    sounds = world.sounds()
    world.origin.let_go.clear()
    asking = asyncio.create_task(sounds.prepare(Play(URL), "A"))
    await world.origin.arrived.get()
    await sounds.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert world.engine.said == ["closed"]


# Speak and beeps.


async def test_a_text_is_spoken_once_for_each_voice(world: World) -> None:
    sounds = world.sounds()
    media = await sounds.prepare(Speak("Hi."), "A")
    assert length(media) == (8000, 0.8)
    assert await world.sounds().prepare(Speak("Hi.", loop=3), "A") == media
    await sounds.prepare(Speak("Hi.", voice="MAN"), "A")
    await sounds.prepare(Speak("Ho."), "A")
    assert world.engine.said == ["Hi.", "Hi.", "Ho."]


@pytest.mark.parametrize(("name", "seconds"), [("beep:1", 0.3), ("beep:2", 0.8), ("beep:digits", 0.2)])
async def test_beeps_need_no_origin(world: World, name: str, seconds: float) -> None:
    sounds = world.sounds()
    media = await sounds.prepare(Play(name), "A")
    assert await sounds.prepare(Play(name), "A") == media
    assert (length(media, ".wav"), length(media, ".wav16")) == ((8000, seconds), (16000, seconds))
    assert world.request_count() == 0


async def test_a_folder_that_cannot_be_written_is_named(world: World) -> None:
    world.folder = world.folder / "file"
    world.folder.write_bytes(b"")
    for sound in (Play(URL), Play("beep:1"), Speak("Hi.")):
        with pytest.raises(SoundError, match=r"the sounds folder .* could not be used: Not a directory"):
            await world.sounds().prepare(sound, "A")


async def test_an_ffmpeg_that_is_not_there_is_named(world: World) -> None:
    sounds = SoundPreparer(Settings(sounds_folder=world.folder, ffmpeg="/nowhere/ffmpeg"), world.origin, world.engine)
    with pytest.raises(SoundError, match=r"ffmpeg"):
        await sounds.prepare(Play(URL), "A")


async def test_with_the_real_fetcher_and_a_real_origin(world: World, httpserver: HTTPServer) -> None:
    conditions: list[str | None] = []

    def answer(request: Request) -> Response:
        conditions.append(request.headers.get("If-None-Match"))
        headers = {"ETag": '"1"', "Cache-Control": "max-age=5"}
        return Response(status=304, headers=headers) if conditions[-1] else Response(world.origin.body, headers=headers)

    httpserver.expect_request("/hello.wav").respond_with_handler(answer)
    httpserver.expect_request("/gone.wav").respond_with_data("gone", status=404)
    play = Play(httpserver.url_for("/hello.wav"))
    async with Fetcher((ip_network("127.0.0.0/8"),)) as fetcher:
        sounds = SoundPreparer(Settings(sounds_folder=world.folder), fetcher, world.engine, lambda: world.now)
        first = await sounds.prepare(play, "A")
        world.now += 5
        assert await sounds.prepare(play, "A") == first
        with pytest.raises(SoundError, match="404"):
            await sounds.prepare(Play(httpserver.url_for("/gone.wav")), "A")
    async with Fetcher() as careful:
        with pytest.raises(SoundError, match="requests to this address are not allowed"):
            await SoundPreparer(Settings(sounds_folder=world.folder), careful, world.engine).prepare(
                Play(play.url + "?2"), "A"
            )
    assert conditions == [None, '"1"']
    assert length(first) == (8000, 0.3)
