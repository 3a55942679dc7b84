"""Files on disk, and two processes that share them."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ari_conf.errors import SoundFailed
from ari_conf.media.cache import PLAYING_S, Cache, Entry

NOW = 1_000_000_000.0


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path, limit_bytes=2500)


def stored(cache: Cache, content: bytes, now: float = NOW) -> str:
    with cache.part() as narrow, cache.part() as wide:
        narrow.write_bytes(content)
        wide.write_bytes(content)
        return cache.add(narrow, wide, now)


def test_the_same_sound_is_kept_once_under_a_name_that_only_the_sound_tells(cache: Cache) -> None:
    name = stored(cache, b"a")
    assert stored(cache, b"a") == name != stored(cache, b"b")
    assert cache.path(name, ".wav").read_bytes() == cache.path(name, ".wav16").read_bytes() == b"a"


def test_asterisk_may_read_it(cache: Cache) -> None:
    path = cache.path(stored(cache, b"a"), ".wav")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.is_absolute()


def test_what_one_process_keeps_another_finds(cache: Cache, tmp_path: Path) -> None:
    entry = Entry(stored(cache, b"a"), NOW, 60, 0, '"v1"', "Mon")
    cache.keep("play x", entry)
    assert Cache(tmp_path, 2500).find("play x", NOW) == entry
    cache.forget("play x")
    assert cache.find("play x", NOW) is None


def test_what_was_deleted_or_damaged_is_not_found(cache: Cache, tmp_path: Path) -> None:
    entry = Entry(stored(cache, b"a"), NOW, 60, 0)
    cache.keep("x", entry)
    (index,) = (tmp_path / "index").iterdir()
    for damaged in (b"", b"{", b"[]", b'{"name": 1}', b"null"):
        index.write_bytes(damaged)
        assert cache.find("x", NOW) is None
    cache.keep("x", entry)
    cache.path(entry.name, ".wav16").unlink()
    assert cache.find("x", NOW) is None


def test_what_was_used_last_stays(cache: Cache) -> None:
    later = NOW + PLAYING_S
    names = [stored(cache, bytes([i]) * 500, NOW + i) for i in range(4)]
    cache.keep("first", Entry(names[0], NOW, 60, 0))
    assert cache.find("first", later - 10) is not None
    assert cache.sweep(later + 10) <= 2500
    left = [cache.path(name, ".wav").exists() and cache.path(name, ".wav16").exists() for name in names]
    assert left == [True, False, False, True]


def test_what_may_be_playing_stays_whatever_the_limit(cache: Cache) -> None:
    names = [stored(cache, bytes([i]) * 1000) for i in range(4)]
    assert cache.sweep(NOW + PLAYING_S - 1) == 8000
    assert all(cache.path(name, ".wav").exists() for name in names)
    assert cache.sweep(NOW + PLAYING_S + 1) == 2000


def test_what_a_crash_left_behind_goes(cache: Cache, tmp_path: Path) -> None:
    cache.keep("gone", Entry("aa/bb", NOW, 60, 0))
    cache.keep("here", Entry(stored(cache, b"a"), NOW, 60, 0))
    (tmp_path / "parts" / "old").write_bytes(b"x")
    (tmp_path / "parts" / "new").write_bytes(b"x")
    for path in (tmp_path / "parts" / "old", *(tmp_path / "index").iterdir()):
        os.utime(path, (NOW, NOW))
    os.utime(tmp_path / "parts" / "new", (NOW + PLAYING_S, NOW + PLAYING_S))
    cache.sweep(NOW + PLAYING_S + 1)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["new"]
    assert len(list((tmp_path / "index").iterdir())) == 1
    assert cache.find("here", NOW) is not None


def test_what_a_killed_process_left_unfinished_goes_at_the_next_start(cache: Cache, tmp_path: Path) -> None:
    begin = (
        "import sys, time; from pathlib import Path; from ari_conf.media.cache import Cache\n"
        "with Cache(Path(sys.argv[1]), 2500).part() as part:\n"
        "    part.write_bytes(b'x'); print(part.name, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", begin, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        unfinished = other.stdout.readline().strip()
        with cache.part() as ours:
            ours.write_bytes(b"x")
            Cache(tmp_path, 2500).remove_unfinished(time.time())
            assert {path.name for path in (tmp_path / "parts").iterdir()} == {unfinished, ours.name}, "both still live"
            other.kill()
            other.wait()
            # One of a machine that is not this one: who made it may well live.
            pid, started, _, token = unfinished.split("-")
            elsewhere = f"{pid}-{started}-{'0' * 16}-{token}"
            (tmp_path / "parts" / elsewhere).write_bytes(b"x")
            Cache(tmp_path, 2500).remove_unfinished(time.time())
            assert {path.name for path in (tmp_path / "parts").iterdir()} == {ours.name, elsewhere}


def test_only_sounds_are_served(cache: Cache) -> None:
    name = stored(cache, b"a")
    cache.keep("x", Entry(name, NOW, 60, 0))
    assert cache.served(f"{name}.wav") == cache.path(name, ".wav")
    assert cache.served(f"{name}.wav16") == cache.path(name, ".wav16")
    index = next((cache.folder / "index").iterdir()).name
    for path in (name, f"{name}.wav\n", "ab/" + "0" * 62 + ".wav", f"index/{index}", f"{name[:2]}/../{name}.wav", ""):
        assert cache.served(path) is None


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    unusable = Cache(tmp_path / "file", 1)
    with pytest.raises(SoundFailed, match=r"the sounds folder .*/file can't be used: Not a directory"), unusable.part():
        pass


def test_nothing_unfinished_is_left(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), cache.part() as part:
        part.write_bytes(b"x")
        _ = 1 / 0
    stored(cache, b"a")
    assert list((tmp_path / "parts").iterdir()) == []
