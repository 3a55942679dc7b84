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

PLAYING_S = 600
"""Seconds after a sound's last use and its own length during which it may still be playing, and is not deleted."""
SHARE = 4
"""Divisor of the limit for one account: a quarter."""
ROOM = 0.9
"""Part of the limit, or of the share, that is still in use after an eviction, so that evictions are rare."""
ENTRY_BYTES = 4096
"""Bytes that an index file takes on most disks."""
BYTES_A_SECOND = 48_000
"""Bytes per second of sound, in both files together."""
NOBODY = ""
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
    account: str = NOBODY


@dataclass(slots=True)
class _Kept:
    """Sound in the folder."""

    size: int
    """Bytes of both files."""
    used: float
    accounts: set[str] = field(default_factory=set)
    """Accounts that have the sound; it counts in full for each of them."""
    entries: set[str] = field(default_factory=set)
    """Names of the index files that lead to the sound."""

    def may_play(self, now: float) -> bool:
        return self.used + self.size / BYTES_A_SECOND + PLAYING_S > now


class SoundCache:
    """Sound cache. Its methods do file I/O: call them in a thread, except `path` and `name_of`."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder.absolute()
        self._limit = limit_bytes
        self._mark = process_identity.mark()
        self._kept: dict[str, _Kept] = {}
        self._entries: dict[str, tuple[float, str, str]] = {}
        """Name of an index file -> when it was written, account, sound."""
        self._bytes: Counter[str | None] = Counter()
        """Bytes by account, and of all sounds under None."""
        self._looked = False
        """True once the folder has been read."""
        self._counting = threading.Lock()
        """Lock for the counts above."""
        self._using = threading.Lock()
        """Lock that keeps a sound from being deleted while it is being found."""

    def find(self, key: str, now: float) -> CacheEntry | None:
        """Return the entry of a key; None if it or its files don't exist. A sound that is found counts as used now."""
        try:
            entry = CacheEntry(**json.loads(self._entry(key).read_bytes()))
            self.use(entry.name, now)
        except (OSError, ValueError, TypeError):
            return None
        return entry

    def use(self, name: str, now: float) -> None:
        """Record that a sound is used now. Raises OSError if it no longer exists."""
        with self._using:
            for suffix in SUFFIXES:
                os.utime(self.path(name, suffix), (now, now))
            if (kept := self._kept.get(name)) is not None:
                kept.used = now

    def path(self, name: str, suffix: str = "") -> Path:
        return self.folder / (name + suffix)

    @staticmethod
    def name_of(media: str) -> str | None:
        """Return the name of a sound of this cache from its media URI, or None."""
        found = re.search(r"(?:^|/)([0-9a-f]{2}/[0-9a-f]{62})(?:\.wav)?$", media)
        return found[1] if found else None

    def keep(self, key: str, entry: CacheEntry) -> None:
        """Write an index entry. Raises SoundError if the account's share is used up."""
        path = self._entry(key)
        with self._counting:
            if path.name not in self._entries:
                self._make_room(entry.account, ENTRY_BYTES, ENTRY_BYTES, entry.stored, entry.name)
            with self.temporary_file() as part:
                part.write_text(json.dumps(asdict(entry)))
                self._place(part, path)
                self._strike(path.name)
                self._enter(path.name, (path.stat().st_mtime, entry.account, entry.name))

    def forget(self, key: str) -> None:
        path = self._entry(key)
        with self._counting:
            self._strike(path.name)
        path.unlink(missing_ok=True)

    def add(self, narrow: Path, wide: Path, now: float, account: str) -> str:
        """Move both files into the cache and return their name. Raises SoundError if there is no room."""
        with narrow.open("rb") as first, wide.open("rb") as second:
            digest = hashlib.file_digest(first, "sha256").digest() + hashlib.file_digest(second, "sha256").digest()
        found = hashlib.sha256(digest).hexdigest()
        name = f"{found[:2]}/{found[2:]}"
        size = narrow.stat().st_size + wide.stat().st_size
        with self._counting:
            kept = self._kept.get(name)
            if kept is None or account not in kept.accounts:
                self._make_room(account, size, size if kept is None else 0, now, name)
            # The wide file comes first: once a .wav exists, the sound is complete.
            for part, suffix in ((wide, ".wav16"), (narrow, ".wav")):
                os.utime(part, (now, now))
                self._place(part, self.path(name, suffix))
            if kept is None:
                self._kept[name] = kept = _Kept(size, now)
                self._bytes[None] += size
            kept.used = now
            self._hold(kept, account)
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
        with self._counting:
            self._look()
            self._drop(now, None, self._limit)
            for name, (written, _, sound) in tuple(self._entries.items()):
                if sound not in self._kept and written < now - PLAYING_S:
                    self._lose(name)
            return self._bytes[None]

    # Bytes, and the accounts that use them. Call these methods only while holding `_counting`.

    def _make_room(self, account: str, more_of_account: int, more: int, now: float, name: str) -> None:
        """Evict until the sound `name`, or an index entry that leads to it, has room. Raises SoundError if that
        fails."""
        if not self._looked:
            self._look()
        if account == NOBODY:
            return
        for whose, added, limit in ((account, more_of_account, self._limit // SHARE), (None, more, self._limit)):
            if self._bytes[whose] + added <= limit:
                continue
            self._drop(now, whose, int(limit * ROOM) - added, name)
            if self._bytes[whose] + added > limit:
                who = "this account's sounds" if whose else "all accounts' sounds together"
                told = f"the sound cache is full: {who} of the last minutes may take at most {limit // MB} MB"
                raise SoundError(f"{told}; the operator can raise ARI_CONF_SOUNDS_LIMIT_MB")

    def _drop(self, now: float, account: str | None, goal: int, but: str = "") -> None:
        """Evict the least recently used sounds, but not `but`, until the account (None: all) has at most `goal`
        bytes."""
        if self._bytes[account] <= goal:
            return
        theirs = [n for n, kept in self._kept.items() if n != but and (account is None or account in kept.accounts)]
        for name in sorted(theirs, key=lambda name: self._kept[name].used):
            if self._bytes[account] <= goal:
                return
            self._drop_one(name, self._kept[name], now, account)

    def _drop_one(self, name: str, kept: _Kept, now: float, account: str | None) -> None:
        if account is not None and kept.accounts != {account}:
            # Other accounts have it as well.
            if not kept.may_play(now):
                self._let_go(kept, account)
        elif self._delete(name, kept, now):
            for each in tuple(kept.accounts):
                self._let_go(kept, each)
            del self._kept[name]
            self._bytes[None] -= kept.size

    def _delete(self, name: str, kept: _Kept, now: float) -> bool:
        """Delete a sound's files. Return False if it may be playing."""
        with self._using:
            # Another process may have used it since.
            with contextlib.suppress(OSError):
                kept.used = max(kept.used, self.path(name, SUFFIXES[0]).stat().st_mtime)
            if kept.may_play(now):
                return False
            for suffix in SUFFIXES:
                self.path(name, suffix).unlink(missing_ok=True)
        return True

    def _hold(self, kept: _Kept, account: str) -> None:
        if account not in kept.accounts:
            kept.accounts.add(account)
            self._bytes[account] += kept.size

    def _let_go(self, kept: _Kept, account: str) -> None:
        kept.accounts.remove(account)
        self._bytes[account] -= kept.size
        for name in [name for name in kept.entries if self._entries[name][1] == account]:
            self._lose(name)

    def _enter(self, name: str, entry: tuple[float, str, str]) -> None:
        _, account, sound = self._entries[name] = entry
        self._bytes[account] += ENTRY_BYTES
        self._bytes[None] += ENTRY_BYTES
        if (kept := self._kept.get(sound)) is not None:
            kept.entries.add(name)
            self._hold(kept, account)

    def _lose(self, name: str) -> None:
        self._strike(name)
        (self.folder / "index" / name).unlink(missing_ok=True)

    def _strike(self, name: str) -> None:
        """Remove an index entry from the counts, if it is known."""
        if (entry := self._entries.pop(name, None)) is None:
            return
        _, account, sound = entry
        self._bytes[account] -= ENTRY_BYTES
        self._bytes[None] -= ENTRY_BYTES
        if (kept := self._kept.get(sound)) is not None:
            kept.entries.discard(name)

    def _look(self) -> None:
        """Read the folder: after a start, and for what other processes have changed."""
        self._looked = True
        before, self._kept = self._kept, {}
        known, self._entries = self._entries, {}
        self._bytes.clear()
        for path, stat in self._files("[0-9a-f][0-9a-f]/*"):
            kept = self._kept.setdefault(f"{path.parent.name}/{path.stem}", _Kept(0, 0.0))
            kept.size, kept.used = kept.size + stat.st_size, max(kept.used, stat.st_mtime)
        for name, kept in self._kept.items():
            self._bytes[None] += kept.size
            for account in before[name].accounts if name in before else ():
                self._hold(kept, account)
        for path, stat in self._files("index/*"):
            entry = known.get(path.name)
            fresh = entry is not None and entry[0] == stat.st_mtime
            self._enter(path.name, entry if entry is not None and fresh else self._read(path, stat.st_mtime))

    def _read(self, path: Path, written: float) -> tuple[float, str, str]:
        try:
            told = json.loads(path.read_bytes())
            return written, str(told.get("account", NOBODY)), str(told["name"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return written, NOBODY, ""

    def remove_unfinished(self, now: float) -> None:
        """Delete files that no process will finish: their process is dead, or, where that is unknown, they are old."""
        for path, stat in self._files("parts/*"):
            if stat.st_mtime < now - PLAYING_S or process_identity.is_dead_mark(path.name.rpartition("-")[0]):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _files(self, pattern: str) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob(pattern):
            # Another process may have deleted it in the meantime.
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat()

    def _entry(self, key: str) -> Path:
        return self.folder / "index" / (hashlib.sha256(key.encode()).hexdigest() + ".json")

    def _place(self, part: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Asterisk runs as another user.
        part.chmod(0o644)
        part.replace(path)
