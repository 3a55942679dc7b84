"""Tests of the files on disk, and of two processes that share them."""

import os
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ari_conf.errors import SoundError
from ari_conf.media.cache import (
    ACCOUNT_SHARE,
    BYTES_PER_SECOND,
    ENTRY_BYTES,
    NO_ACCOUNT,
    PLAYBACK_GRACE_S,
    CacheEntry,
    SoundCache,
)

NOW = 1_000_000_000.0
LIMIT = 200_000
SOUND = 20_000
"""Bytes of a sound. Ten sounds are the whole limit; two, with their index entries, are an account's whole share."""
LATER = NOW + PLAYBACK_GRACE_S + 10
"""A time at which none of these sounds is played any more."""


@pytest.fixture
def cache(tmp_path: Path) -> SoundCache:
    return SoundCache(tmp_path, LIMIT)


def stored(cache: SoundCache, content: bytes, now: float = NOW, account: str = "A") -> str:
    with cache.temporary_file() as narrow, cache.temporary_file() as wide:
        narrow.write_bytes(content)
        wide.write_bytes(content)
        return cache.add(narrow, wide, now, account)


def sound(letter: str) -> bytes:
    return letter.encode() * (SOUND // 2)


def there(cache: SoundCache, *names: str) -> list[bool]:
    found = [[cache.path(name, suffix).exists() for suffix in (".wav", ".wav16")] for name in names]
    assert all(narrow == wide for narrow, wide in found), "both or neither"
    return [narrow for narrow, _ in found]


def on_disk(cache: SoundCache) -> int:
    return sum(path.stat().st_size for path in cache.folder.rglob("*.wav*"))


def test_equal_sounds_are_stored_once_under_a_name_of_their_content(cache: SoundCache) -> None:
    name = stored(cache, b"a")
    assert stored(cache, b"a") == name != stored(cache, b"b")
    assert cache.path(name, ".wav").read_bytes() == cache.path(name, ".wav16").read_bytes() == b"a"


def test_asterisk_can_read_the_files(cache: SoundCache) -> None:
    path = cache.path(stored(cache, b"a"), ".wav")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.is_absolute()


def test_an_entry_of_one_process_is_found_by_another(cache: SoundCache, tmp_path: Path) -> None:
    entry = CacheEntry(stored(cache, b"a"), NOW, 60, 0, '"v1"', "Mon")
    cache.keep("play x", entry)
    assert SoundCache(tmp_path, LIMIT).find("play x", NOW) == entry
    cache.forget("play x")
    assert cache.find("play x", NOW) is None


def test_deleted_or_damaged_entries_are_not_found(cache: SoundCache, tmp_path: Path) -> None:
    entry = CacheEntry(stored(cache, b"a"), NOW, 60, 0)
    cache.keep("x", entry)
    (index,) = (tmp_path / "index").iterdir()
    for damaged in (b"", b"{", b"[]", b'{"name": 1}', b"null"):
        index.write_bytes(damaged)
        assert cache.find("x", NOW) is None
    cache.keep("x", entry)
    cache.path(entry.name, ".wav16").unlink()
    assert cache.find("x", NOW) is None


def test_the_most_recently_used_sounds_stay(cache: SoundCache) -> None:
    names = [stored(cache, sound(a), NOW + n, a) for n, a in enumerate("ABCDEFGHI")]
    cache.keep("first", CacheEntry(names[0], NOW, 60, 0, account="A"))
    assert cache.find("first", LATER - 100) is not None
    stored(cache, sound("J"), LATER, "J")
    assert there(cache, *names) == [True, False, False, *[True] * 6]
    assert on_disk(cache) <= LIMIT * 0.9


def test_sounds_that_may_be_playing_stay_and_a_new_sound_is_refused(cache: SoundCache) -> None:
    names = [stored(cache, sound(a), account=a) for a in "ABCDEFGHIJ"]
    told = r"the sound cache is full: all accounts' sounds .* at most 0 MB; the operator can raise ARI_CONF_SOUNDS_L"
    with pytest.raises(SoundError, match=told):
        stored(cache, sound("K"), NOW + PLAYBACK_GRACE_S - 1, "K")
    assert all(there(cache, *names))
    assert on_disk(cache) <= LIMIT
    assert cache.sweep(NOW + PLAYBACK_GRACE_S - 1) == 10 * SOUND
    stored(cache, b"beep", account=NO_ACCOUNT)


def test_a_long_one_stays_for_as_long_as_it_may_play(tmp_path: Path) -> None:
    cache = SoundCache(tmp_path, 50 * BYTES_PER_SECOND)
    minutes = bytes(15 * BYTES_PER_SECOND)
    name = stored(cache, minutes[: len(minutes) // 3])
    for after, stays in ((0, True), (9, True), (11, False)):
        with suppress(SoundError):
            stored(cache, minutes[: len(minutes) // 3 + 1], NOW + PLAYBACK_GRACE_S + after)
        assert there(cache, name) == [stays], after


def test_an_account_has_no_more_than_its_share(cache: SoundCache) -> None:
    others = stored(cache, sound("x"), account="B")
    first, second = (stored(cache, sound(a), NOW + n) for n, a in enumerate("ab"))
    with pytest.raises(SoundError, match="the sound cache is full: this account's sounds of the last"):
        stored(cache, sound("c"))
    assert all(there(cache, stored(cache, sound("y"), account="B")))
    # The account's own least recently used sound makes room, and no other account's.
    third = stored(cache, sound("c"), LATER)
    assert there(cache, others, first, second, third) == [True, False, True, True]
    assert ACCOUNT_SHARE * 2 * SOUND <= LIMIT < ACCOUNT_SHARE * 3 * SOUND


def test_a_shared_sound_is_not_evicted_for_its_other_accounts(cache: SoundCache) -> None:
    both = stored(cache, sound("a"))
    assert stored(cache, sound("a"), account="B") == both
    for account in "AB":
        cache.keep(f"{account} x", CacheEntry(both, NOW, 60, 0, account=account))
    stored(cache, sound("b"), LATER)
    stored(cache, sound("c"), LATER + 1)
    assert there(cache, both) == [True]
    assert cache.find("A x", LATER) is None
    assert cache.find("B x", LATER) is not None


def test_many_addresses_of_one_sound_are_counted(cache: SoundCache, tmp_path: Path) -> None:
    entry = CacheEntry(stored(cache, b"a"), NOW, 60, 0, account="A")
    fit = LIMIT // ACCOUNT_SHARE // ENTRY_BYTES
    with pytest.raises(SoundError, match="the sound cache is full"):
        for n in range(fit + 1):
            cache.keep(f"play {n}", entry)
    assert len(list((tmp_path / "index").iterdir())) == fit
    cache.keep("play 0", entry)


@pytest.mark.parametrize("sweeps", [True, False])
def test_sounds_of_another_process_count_too(cache: SoundCache, tmp_path: Path, sweeps: bool) -> None:
    """The other process may be an earlier one, or run at the same time."""
    if sweeps:
        cache.sweep(NOW)
    other = SoundCache(tmp_path, LIMIT)
    for n, letter in enumerate("ab"):
        other.keep(letter, CacheEntry(stored(other, sound(letter)), NOW + n, 60, 0, account="A"))
    if sweeps:
        cache.sweep(NOW)
    with pytest.raises(SoundError, match="this account's"):
        stored(cache, sound("c"))


@pytest.mark.parametrize("by", ["this process", "another"])
def test_a_sound_is_not_deleted_while_it_is_being_found(
    cache: SoundCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    name = stored(cache, sound("a"))
    cache.keep("a", CacheEntry(name, NOW, 60, 0, account="A"))
    finds = cache if by == "this process" else SoundCache(tmp_path, LIMIT)
    look = cache._scan

    def looks() -> None:
        look()
        assert finds.find("a", LATER) is not None

    monkeypatch.setattr(cache, "_scan", looks)
    monkeypatch.setattr(cache, "_limit", 1)
    cache.sweep(LATER)
    assert there(cache, name) == [True]
    monkeypatch.setattr(cache, "_scan", look)
    cache.sweep(LATER + PLAYBACK_GRACE_S + 10)
    assert there(cache, name) == [False]


def test_the_name_of_a_sound_from_its_media_uri(cache: SoundCache) -> None:
    name = stored(cache, b"a")
    for media in (f"sound:{cache.path(name)}", f"sound:http://10.0.0.5:8090/sounds/{name}.wav"):
        assert SoundCache.name_of(media) == name
    assert SoundCache.name_of("sound:tt-monkeys") is None


def test_leftovers_of_a_crash_are_deleted(cache: SoundCache, tmp_path: Path) -> None:
    cache.keep("gone", CacheEntry("aa/bb", NOW, 60, 0))
    cache.keep("here", CacheEntry(stored(cache, b"a"), NOW, 60, 0))
    (tmp_path / "parts" / "old").write_bytes(b"x")
    (tmp_path / "parts" / "new").write_bytes(b"x")
    for path in (tmp_path / "parts" / "old", *(tmp_path / "index").iterdir()):
        os.utime(path, (NOW, NOW))
    os.utime(tmp_path / "parts" / "new", (NOW + PLAYBACK_GRACE_S, NOW + PLAYBACK_GRACE_S))
    cache.sweep(NOW + PLAYBACK_GRACE_S + 1)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["new"]
    assert len(list((tmp_path / "index").iterdir())) == 1
    assert cache.find("here", NOW) is not None


def test_unfinished_files_of_a_killed_process_are_deleted_at_the_next_start(cache: SoundCache, tmp_path: Path) -> None:
    begin = (
        "import sys, time; from pathlib import Path; from ari_conf.media.cache import SoundCache\n"
        "with SoundCache(Path(sys.argv[1]), 2500).temporary_file() as part:\n"
        "    part.write_bytes(b'x'); print(part.name, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", begin, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        unfinished = other.stdout.readline().strip()
        with cache.temporary_file() as ours:
            ours.write_bytes(b"x")
            SoundCache(tmp_path, 2500).remove_unfinished(time.time())
            assert {path.name for path in (tmp_path / "parts").iterdir()} == {unfinished, ours.name}, "both still run"
            other.kill()
            other.wait()
            # A file of another machine, whose process may well be alive.
            pid, started, _, token = unfinished.split("-")
            elsewhere = f"{pid}-{started}-{'0' * 16}-{token}"
            (tmp_path / "parts" / elsewhere).write_bytes(b"x")
            SoundCache(tmp_path, 2500).remove_unfinished(time.time())
            assert {path.name for path in (tmp_path / "parts").iterdir()} == {ours.name, elsewhere}


def test_only_sounds_are_served(cache: SoundCache) -> None:
    name = stored(cache, b"a")
    cache.keep("x", CacheEntry(name, NOW, 60, 0))
    assert cache.file_for_request(f"{name}.wav") == cache.path(name, ".wav")
    assert cache.file_for_request(f"{name}.wav16") == cache.path(name, ".wav16")
    index = next((cache.folder / "index").iterdir()).name
    for path in (name, f"{name}.wav\n", "ab/" + "0" * 62 + ".wav", f"index/{index}", f"{name[:2]}/../{name}.wav", ""):
        assert cache.file_for_request(path) is None


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    unusable = SoundCache(tmp_path / "file", 1)
    told = r"the sounds folder .*/file could not be used: Not a directory"
    with pytest.raises(SoundError, match=told), unusable.temporary_file():
        pass


def test_nothing_unfinished_is_left(cache: SoundCache, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), cache.temporary_file() as part:
        part.write_bytes(b"x")
        _ = 1 / 0
    stored(cache, b"a")
    assert list((tmp_path / "parts").iterdir()) == []
