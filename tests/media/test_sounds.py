"""An origin that can change, fail and be counted; real ffmpeg; a clock that is set."""

import asyncio
import subprocess
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from ari_conf.core.elements import Play, Speak
from ari_conf.errors import RequestFailed, RequestRefused, SoundFailed
from ari_conf.http.fetch import Fetcher
from ari_conf.media.beeps import beep
from ari_conf.media.freshness import STALE_S, UNTOLD_S
from ari_conf.media.sounds import LIMIT_BYTES, Sounds
from ari_conf.settings import Settings

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
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.let_go.set()

    async def get_file(
        self, url: str, path: Path, limit_bytes: int, etag: str | None = None, last_modified: str | None = None
    ) -> Reply:
        assert limit_bytes == LIMIT_BYTES == 10 * 1024 * 1024
        self.seen.append((url, etag))
        self.arrived.put_nowait(url)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        await self.let_go.wait()
        self.at_once -= 1
        if self.fails:
            raise self.fails
        if etag is not None and etag == self.etag:
            return Reply(304, self.etag, None, self.cache_control)
        path.write_bytes(self.body)
        return Reply(200, self.etag, "Mon, 02 Nov 2026 00:00:00 GMT", self.cache_control)


class Parrot:
    """An engine that says everything with a beep, and counts."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def identity(self, voice: str, language: str) -> str:
        return voice

    async def speak(self, markup: str, voice: str, language: str, path: Path) -> None:
        self.said.append(markup)
        path.write_bytes(beep("beep:2", 16000))

    async def close(self) -> None:
        self.said.append("closed")


@dataclass
class World:
    folder: Path
    origin: Origin = field(default_factory=Origin)
    engine: Parrot = field(default_factory=Parrot)
    now: float = 1_000_000_000.0
    opened: list[Sounds] = field(default_factory=list)

    def sounds(self, sounds_url: str | None = None) -> Sounds:
        settings = Settings(sounds_folder=self.folder, sounds_url=sounds_url)
        self.opened.append(Sounds(settings, self.origin, self.engine, lambda: self.now))
        return self.opened[-1]

    def asked(self) -> int:
        return len(self.origin.seen)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    for sounds in world.opened:
        await sounds.close()


def length(media: str, suffix: str = ".wav") -> tuple[int, float]:
    """(samples a second, seconds) of what Asterisk plays."""
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
    media = await world.sounds().prepare(Play(URL))
    assert media.startswith(f"sound:{world.folder}/")
    assert length(media, ".wav") == (8000, 0.3)
    assert length(media, ".wav16") == (16000, 0.3)


async def test_an_asterisk_elsewhere_gets_an_address(world: World) -> None:
    sounds = world.sounds("http://10.0.0.5:8090/sounds/")
    media = await sounds.prepare(Play(URL))
    assert media.startswith("sound:http://10.0.0.5:8090/sounds/")
    found = sounds.served(media.removeprefix("sound:http://10.0.0.5:8090/sounds/"))
    assert found is not None
    assert length(str(found), "") == (8000, 0.3)
    assert sounds.served("../settings.py") is None


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
async def test_what_users_have(world: World, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    world.origin.body = made(tmp_path, *arguments)
    rate, seconds = length(await world.sounds().prepare(Play(URL)), ".wav16")
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
async def test_what_is_no_sound_is_refused(world: World, body: bytes) -> None:
    world.origin.body = body
    with pytest.raises(SoundFailed, match=r"Play: https://example.com/hello.wav can't be played \(mp3 and wav can\): "):
        await world.sounds().prepare(Play(URL + "?token=secret"))
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
    with pytest.raises(SoundFailed, match="mp3 and wav can"):
        await world.sounds().prepare(Play(URL))


# The cache of URLs.


async def test_a_fresh_copy_is_not_asked_for_again_even_by_another_process(world: World) -> None:
    world.origin.cache_control = "max-age=600"
    first = await world.sounds().prepare(Play(URL))
    world.now += 599
    assert await world.sounds().prepare(Play(URL + "#rc=3", loop=0)) == first
    assert world.asked() == 1


async def test_an_old_copy_is_confirmed_by_its_etag(world: World) -> None:
    sounds = world.sounds()
    first = await sounds.prepare(Play(URL))
    world.now += UNTOLD_S
    assert await sounds.prepare(Play(URL)) == first
    assert world.origin.seen == [(URL, None), (URL, '"1"')]
    world.now += UNTOLD_S - 1
    assert await sounds.prepare(Play(URL)) == first
    assert world.asked() == 2


async def test_a_changed_sound_is_heard(world: World) -> None:
    sounds = world.sounds()
    first = await sounds.prepare(Play(URL))
    world.origin.body, world.origin.etag = beep("beep:2", 8000), '"2"'
    world.now += UNTOLD_S
    second = await sounds.prepare(Play(URL))
    assert (length(first), length(second)) == ((8000, 0.3), (8000, 0.8))


async def test_no_cache_is_confirmed_each_time_and_no_store_fetched_each_time(world: World) -> None:
    sounds = world.sounds()
    for told, seen in (("no-cache", ['"1"', '"1"']), ("no-store", ['"1"', None])):
        world.origin.cache_control = told
        world.origin.seen.clear()
        if told == "no-cache":
            await sounds.prepare(Play(URL))
            world.origin.seen.clear()
        else:
            world.origin.body, world.origin.etag = beep("beep:2", 8000), '"2"'
        for _ in range(2):
            await sounds.prepare(Play(URL))
        assert [etag for _, etag in world.origin.seen] == seen


@pytest.mark.parametrize(("told", "after", "heard"), [
    (None, UNTOLD_S, True),
    (None, UNTOLD_S + STALE_S, False),
    ("max-age=10, must-revalidate", 10, False),
    ("no-cache", 0, False),
])  # fmt: skip
async def test_an_older_copy_stands_in_for_an_origin_that_fails(
    world: World, told: str | None, after: int, heard: bool
) -> None:
    world.origin.cache_control = told
    sounds = world.sounds()
    first = await sounds.prepare(Play(URL))
    world.origin.fails = RequestFailed("example.com: no answer (2 tries)")
    world.now += after
    if heard:
        assert await sounds.prepare(Play(URL)) == first
    else:
        with pytest.raises(SoundFailed, match="no answer"):
            await sounds.prepare(Play(URL))


async def test_nothing_stands_in_for_a_url_that_may_not_be_asked(world: World) -> None:
    sounds = world.sounds()
    await sounds.prepare(Play(URL))
    world.now += UNTOLD_S
    world.origin.fails = RequestRefused("example.com: no request may go there")
    with pytest.raises(SoundFailed, match="no request may go there"):
        await sounds.prepare(Play(URL))


async def test_what_failed_is_tried_again(world: World) -> None:
    sounds = world.sounds()
    world.origin.fails = RequestFailed("down")
    with pytest.raises(SoundFailed):
        await sounds.prepare(Play(URL))
    world.origin.fails = None
    assert length(await sounds.prepare(Play(URL))) == (8000, 0.3)


# Several at once.


async def test_who_asks_for_what_is_being_fetched_waits_for_that(world: World) -> None:
    sounds = world.sounds()
    world.origin.let_go.clear()
    sounds.warm([Play(URL), Play(URL)])
    asking = [asyncio.create_task(sounds.prepare(Play(URL))) for _ in range(3)]
    await world.origin.arrived.get()
    world.origin.let_go.set()
    assert len(set(await asyncio.gather(*asking))) == 1
    assert world.asked() == 1


async def test_it_goes_on_for_the_others_if_one_hangs_up(world: World) -> None:
    sounds = world.sounds()
    world.origin.let_go.clear()
    first, second = (asyncio.create_task(sounds.prepare(Play(URL))) for _ in range(2))
    await world.origin.arrived.get()
    first.cancel()
    world.origin.let_go.set()
    assert length(await second) == (8000, 0.3)
    assert world.asked() == 1


async def test_warming_takes_four_at_a_time_and_fails_quietly(world: World) -> None:
    sounds = world.sounds()
    world.origin.let_go.clear()
    world.origin.fails = RequestFailed("down")
    urls = [f"{URL}?{n}" for n in range(12)]
    sounds.warm([Play(url) for url in urls])
    first = {await world.origin.arrived.get() for _ in range(4)}
    world.origin.let_go.set()
    assert first | {await world.origin.arrived.get() for _ in range(8)} == set(urls)
    assert world.origin.most_at_once == 4


async def test_closing_ends_what_runs(world: World) -> None:
    sounds = world.sounds()
    world.origin.let_go.clear()
    asking = asyncio.create_task(sounds.prepare(Play(URL)))
    await world.origin.arrived.get()
    await sounds.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert world.engine.said == ["closed"]


# Speak and beeps.


async def test_a_text_is_spoken_once_for_each_voice(world: World) -> None:
    sounds = world.sounds()
    media = await sounds.prepare(Speak("Hi."))
    assert length(media) == (8000, 0.8)
    assert await world.sounds().prepare(Speak("Hi.", loop=3)) == media
    await sounds.prepare(Speak("Hi.", voice="MAN"))
    await sounds.prepare(Speak("Ho."))
    assert world.engine.said == ["Hi.", "Hi.", "Ho."]


@pytest.mark.parametrize(("name", "seconds"), [("beep:1", 0.3), ("beep:2", 0.8), ("beep:digits", 0.2)])
async def test_beeps_need_no_origin(world: World, name: str, seconds: float) -> None:
    sounds = world.sounds()
    media = await sounds.prepare(Play(name))
    assert await sounds.prepare(Play(name)) == media
    assert (length(media, ".wav"), length(media, ".wav16")) == ((8000, seconds), (16000, seconds))
    assert world.asked() == 0


async def test_a_folder_that_cannot_be_written_is_named(world: World) -> None:
    world.folder = world.folder / "file"
    world.folder.write_bytes(b"")
    for sound in (Play(URL), Play("beep:1"), Speak("Hi.")):
        with pytest.raises(SoundFailed, match=r"the sounds folder .* can't be used: Not a directory"):
            await world.sounds().prepare(sound)


async def test_an_ffmpeg_that_is_not_there_is_named(world: World) -> None:
    sounds = Sounds(Settings(sounds_folder=world.folder, ffmpeg="/nowhere/ffmpeg"), world.origin, world.engine)
    with pytest.raises(SoundFailed, match=r"ffmpeg"):
        await sounds.prepare(Play(URL))


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
        sounds = Sounds(Settings(sounds_folder=world.folder), fetcher, world.engine, lambda: world.now)
        first = await sounds.prepare(play)
        world.now += 5
        assert await sounds.prepare(play) == first
        with pytest.raises(SoundFailed, match="404"):
            await sounds.prepare(Play(httpserver.url_for("/gone.wav")))
    async with Fetcher() as careful:
        with pytest.raises(SoundFailed, match="no request may go there"):
            await Sounds(Settings(sounds_folder=world.folder), careful, world.engine).prepare(Play(play.url + "?2"))
    assert conditions == [None, '"1"']
    assert length(first) == (8000, 0.3)
