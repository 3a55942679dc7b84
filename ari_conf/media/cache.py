"""Sound cache on disk: files in the formats that Asterisk plays. Several processes may share the folder.

ab/cdef….wav, .wav16   named by a hash of the content: a client that doesn't have the sound can't name it, so the folder
                       may be served over HTTP, and the same sound under two URLs is stored once
index/….json           the entry of an account's URL or text; never served
parts/                 unfinished files: each becomes a sound by a rename, so that half a sound is never played; its
                       name identifies the process that writes it, so that another one removes it if that was killed

The cache never exceeds its limit, and no account exceeds its share. The least recently used sounds are evicted first,
and sounds that may be playing stay. If that is not enough, a new sound is refused. (A process learns what another one
has added in the meantime when it sweeps, each minute.)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ari_conf.common import process_identity
from ari_conf.errors import SoundError

PLAYBACK_GRACE_S = 600
"""Seconds after a sound's last use and its own length during which it may still be playing, and is not deleted."""
ACCOUNT_SHARE = 4
"""Divisor of the limit for one account: a quarter."""
FILL_RATIO = 0.9
"""Part of the limit, or of the share, that is still in use after an eviction, so that evictions are rare."""
ENTRY_BYTES = 4096
"""Bytes that an index file takes on most disks."""
BYTES_PER_SECOND = 48_000
"""Bytes per second of sound, in both files together."""
NO_ACCOUNT = ""
"""Account of the sounds that come with ari_conf. They always have room, because they are few and small."""
SUFFIXES = (".wav", ".wav16")
MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """Index entry of one URL or text."""

    name: str
    """Name of the files, without suffix: ab/cdef…"""
    stored: float
    """Epoch seconds at which the origin last confirmed the sound."""
    fresh_s: int
    stale_s: int
    etag: str | None = None
    last_modified: str | None = None
    account: str = NO_ACCOUNT


@dataclass(slots=True)
class _CachedSound:
    """Sound in the folder."""

    size: int
    """Bytes of both files."""
    used: float
    accounts: set[str] = field(default_factory=set)
    """Accounts that have the sound; it counts in full for each of them."""
    entries: set[str] = field(default_factory=set)
    """Names of the index files that lead to the sound."""

    def may_be_playing(self, now: float) -> bool:
        return self.used + self.size / BYTES_PER_SECOND + PLAYBACK_GRACE_S > now


class SoundCache:
    """Sound cache. Its methods do file I/O: call them in a thread, except `path` and `name_of`."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder.absolute()
        self._limit = limit_bytes
        self._mark = process_identity.mark()
        self._sounds: dict[str, _CachedSound] = {}
        self._entries: dict[str, tuple[float, str, str]] = {}
        """Name of an index file -> when it was written, account, sound."""
        self._bytes: Counter[str | None] = Counter()
        """Bytes by account, and of all sounds under None."""
        self._is_scanned = False
        """True once the folder has been read."""
        self._counts_lock = threading.Lock()
        """Lock for the counts above."""
        self._use_lock = threading.Lock()
        """Lock that keeps a sound from being deleted while it is being found."""

    def find(self, key: str, now: float) -> CacheEntry | None:
        """Return the entry of a key; None if it or its files don't exist. A sound that is found counts as used now."""
        try:
            entry = CacheEntry(**json.loads(self._index_path(key).read_bytes()))
            self.use(entry.name, now)
        except (OSError, ValueError, TypeError):
            return None
        return entry

    def use(self, name: str, now: float) -> None:
        """Record that a sound is used now. Raises OSError if it no longer exists."""
        with self._use_lock:
            for suffix in SUFFIXES:
                os.utime(self.path(name, suffix), (now, now))
            if (cached := self._sounds.get(name)) is not None:
                cached.used = now

    def path(self, name: str, suffix: str = "") -> Path:
        return self.folder / (name + suffix)

    @staticmethod
    def name_of(media: str) -> str | None:
        """Return the name of a sound of this cache from its media URI, or None."""
        found = re.search(r"(?:^|/)([0-9a-f]{2}/[0-9a-f]{62})(?:\.wav)?$", media)
        return found[1] if found else None

    def keep(self, key: str, entry: CacheEntry) -> None:
        """Write an index entry. Raises SoundError if the account's share is used up."""
        path = self._index_path(key)
        with self._counts_lock:
            if path.name not in self._entries:
                self._make_room(entry.account, ENTRY_BYTES, ENTRY_BYTES, entry.stored, entry.name)
            with self.temporary_file() as part:
                part.write_text(json.dumps(asdict(entry)))
                self._move_into_place(part, path)
                self._uncount_entry(path.name)
                self._add_entry(path.name, (path.stat().st_mtime, entry.account, entry.name))

    def forget(self, key: str) -> None:
        path = self._index_path(key)
        with self._counts_lock:
            self._uncount_entry(path.name)
        path.unlink(missing_ok=True)

    def add(self, narrow: Path, wide: Path, now: float, account: str) -> str:
        """Move both files into the cache and return their name. Raises SoundError if there is no room."""
        with narrow.open("rb") as first, wide.open("rb") as second:
            digest = hashlib.file_digest(first, "sha256").digest() + hashlib.file_digest(second, "sha256").digest()
        found = hashlib.sha256(digest).hexdigest()
        name = f"{found[:2]}/{found[2:]}"
        size = narrow.stat().st_size + wide.stat().st_size
        with self._counts_lock:
            cached = self._sounds.get(name)
            if cached is None or account not in cached.accounts:
                self._make_room(account, size, size if cached is None else 0, now, name)
            # The wide file comes first: once a .wav exists, the sound is complete.
            for part, suffix in ((wide, ".wav16"), (narrow, ".wav")):
                os.utime(part, (now, now))
                self._move_into_place(part, self.path(name, suffix))
            if cached is None:
                self._sounds[name] = cached = _CachedSound(size, now)
                self._bytes[None] += size
            cached.used = now
            self._add_account(cached, account)
        return name

    @contextlib.contextmanager
    def temporary_file(self) -> Iterator[Path]:
        """Yield a path for an unfinished file, which is deleted afterwards. Raises SoundError if the folder can't be
        used."""
        part = self.folder / "parts" / f"{self._mark}-{secrets.token_hex(16)}"
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            yield part
        except OSError as error:
            raise SoundError(f"the sounds folder {self.folder} could not be used: {error.strerror or error}") from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

    def file_for_request(self, path: str) -> Path | None:
        """Return the file for an HTTP request's path, or None if the path doesn't name a sound."""
        if not re.fullmatch(r"[0-9a-f]{2}/[0-9a-f]{62}\.wav(16)?", path):
            return None
        found = self.folder / path
        return found if found.is_file() else None

    def sweep(self, now: float) -> int:
        """Read the folder, evict the least recently used sounds until the rest is within the limit, and delete what a
        crash left behind. Return the bytes that are left."""
        self.remove_unfinished(now)
        with self._counts_lock:
            self._scan()
            self._evict(now, None, self._limit)
            for name, (written, _, sound) in tuple(self._entries.items()):
                if sound not in self._sounds and written < now - PLAYBACK_GRACE_S:
                    self._delete_entry(name)
            return self._bytes[None]

    # Bytes, and the accounts that use them. Call these methods only while holding `_counts_lock`.

    def _make_room(self, account: str, more_of_account: int, more: int, now: float, name: str) -> None:
        """Evict until the sound `name`, or an index entry that leads to it, has room. Raises SoundError if that
        fails."""
        if not self._is_scanned:
            self._scan()
        if account == NO_ACCOUNT:
            return
        for owner, needed, limit in (
            (account, more_of_account, self._limit // ACCOUNT_SHARE),
            (None, more, self._limit),
        ):
            if self._bytes[owner] + needed <= limit:
                continue
            self._evict(now, owner, int(limit * FILL_RATIO) - needed, name)
            if self._bytes[owner] + needed > limit:
                subject = "this account's sounds" if owner else "all accounts' sounds together"
                reason = f"the sound cache is full: {subject} of the last minutes may take at most {limit // MB} MB"
                raise SoundError(f"{reason}; the operator can raise ARI_CONF_SOUNDS_LIMIT_MB")

    def _evict(self, now: float, account: str | None, goal: int, spared: str = "") -> None:
        """Evict the least recently used sounds, but not `spared`, until the account (None: all) has at most `goal`
        bytes."""
        if self._bytes[account] <= goal:
            return
        candidates = [
            n for n, cached in self._sounds.items() if n != spared and (account is None or account in cached.accounts)
        ]
        for name in sorted(candidates, key=lambda name: self._sounds[name].used):
            if self._bytes[account] <= goal:
                return
            self._evict_sound(name, self._sounds[name], now, account)

    def _evict_sound(self, name: str, cached: _CachedSound, now: float, account: str | None) -> None:
        if account is not None and cached.accounts != {account}:
            # Other accounts have it as well.
            if not cached.may_be_playing(now):
                self._remove_account(cached, account)
        elif self._delete_files(name, cached, now):
            for each in tuple(cached.accounts):
                self._remove_account(cached, each)
            del self._sounds[name]
            self._bytes[None] -= cached.size

    def _delete_files(self, name: str, cached: _CachedSound, now: float) -> bool:
        """Delete a sound's files. Return False if it may be playing."""
        with self._use_lock:
            # Another process may have used it since.
            with contextlib.suppress(OSError):
                cached.used = max(cached.used, self.path(name, SUFFIXES[0]).stat().st_mtime)
            if cached.may_be_playing(now):
                return False
            for suffix in SUFFIXES:
                self.path(name, suffix).unlink(missing_ok=True)
        return True

    def _add_account(self, cached: _CachedSound, account: str) -> None:
        if account not in cached.accounts:
            cached.accounts.add(account)
            self._bytes[account] += cached.size

    def _remove_account(self, cached: _CachedSound, account: str) -> None:
        cached.accounts.remove(account)
        self._bytes[account] -= cached.size
        for name in [name for name in cached.entries if self._entries[name][1] == account]:
            self._delete_entry(name)

    def _add_entry(self, name: str, entry: tuple[float, str, str]) -> None:
        _, account, sound = self._entries[name] = entry
        self._bytes[account] += ENTRY_BYTES
        self._bytes[None] += ENTRY_BYTES
        if (cached := self._sounds.get(sound)) is not None:
            cached.entries.add(name)
            self._add_account(cached, account)

    def _delete_entry(self, name: str) -> None:
        self._uncount_entry(name)
        (self.folder / "index" / name).unlink(missing_ok=True)

    def _uncount_entry(self, name: str) -> None:
        """Remove an index entry from the counts, if it is known."""
        if (entry := self._entries.pop(name, None)) is None:
            return
        _, account, sound = entry
        self._bytes[account] -= ENTRY_BYTES
        self._bytes[None] -= ENTRY_BYTES
        if (cached := self._sounds.get(sound)) is not None:
            cached.entries.discard(name)

    def _scan(self) -> None:
        """Read the folder: after a start, and for what other processes have changed."""
        self._is_scanned = True
        old_sounds, self._sounds = self._sounds, {}
        old_entries, self._entries = self._entries, {}
        self._bytes.clear()
        for path, stat in self._list_files("[0-9a-f][0-9a-f]/*"):
            cached = self._sounds.setdefault(f"{path.parent.name}/{path.stem}", _CachedSound(0, 0.0))
            cached.size, cached.used = cached.size + stat.st_size, max(cached.used, stat.st_mtime)
        for name, cached in self._sounds.items():
            self._bytes[None] += cached.size
            for account in old_sounds[name].accounts if name in old_sounds else ():
                self._add_account(cached, account)
        for path, stat in self._list_files("index/*"):
            entry = old_entries.get(path.name)
            is_unchanged = entry is not None and entry[0] == stat.st_mtime
            self._add_entry(
                path.name, entry if entry is not None and is_unchanged else self._read_entry(path, stat.st_mtime)
            )

    def _read_entry(self, path: Path, written: float) -> tuple[float, str, str]:
        try:
            content = json.loads(path.read_bytes())
            return written, str(content.get("account", NO_ACCOUNT)), str(content["name"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return written, NO_ACCOUNT, ""

    def remove_unfinished(self, now: float) -> None:
        """Delete files that no process will finish: their process is dead, or, where that is unknown, they are old."""
        for path, stat in self._list_files("parts/*"):
            if stat.st_mtime < now - PLAYBACK_GRACE_S or process_identity.is_dead_mark(path.name.rpartition("-")[0]):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _list_files(self, pattern: str) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob(pattern):
            # Another process may have deleted it in the meantime.
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat()

    def _index_path(self, key: str) -> Path:
        return self.folder / "index" / (hashlib.sha256(key.encode()).hexdigest() + ".json")

    def _move_into_place(self, part: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Asterisk runs as another user.
        part.chmod(0o644)
        part.replace(path)
