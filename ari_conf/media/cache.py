"""Sounds on disk, as Asterisk plays them; several processes may share the folder.

ab/cdef….wav, .wav16   named by a hash of what is in them: who does not have the sound can't name it, so the
                       folder may be served by HTTP, and the same sound under two URLs is kept once
index/….json           what is known of an account's URL or text; never served
parts/                 not finished: each becomes a file by a rename, so that nobody plays half a sound; its name says
                       which process makes it, so that another removes it if that one was killed

It is never larger than its limit, and no account has more of it than its share: what was not used for longest goes
first, what may be playing stays, and if that is not enough, a new sound is refused. (Of what another process adds
meanwhile this one learns when it sweeps, each minute.)
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

from ari_conf import holder
from ari_conf.errors import SoundFailed

PLAYING_S = 600
"""What was used within this, and as long as it plays, may still be heard by somebody: it is not deleted."""
SHARE = 4
"""An account has a quarter of the limit."""
ROOM = 0.9
"""If something must go, so much that this is left of the limit, or of the share: it is looked for but now and then."""
ENTRY_BYTES = 4096
"""Of a file of the index, as most disks have it."""
BYTES_A_SECOND = 48_000
"""Of both files together."""
NOBODY = ""
"""Whose the sounds are that come with ari_conf. They have room always: they are few, and small."""
SUFFIXES = (".wav", ".wav16")
MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one URL or text."""

    name: str
    """Of its files, without the suffix: ab/cdef…"""
    stored: float
    """Epoch seconds at which the origin last confirmed it."""
    fresh_s: int
    stale_s: int
    etag: str | None = None
    last_modified: str | None = None
    account: str = NOBODY


@dataclass(slots=True)
class _Kept:
    """A sound in the folder."""

    size: int
    """Of both files."""
    used: float
    accounts: set[str] = field(default_factory=set)
    """Who have it: each as if they had it alone."""
    entries: set[str] = field(default_factory=set)
    """Of the index, that lead to it."""

    def may_play(self, now: float) -> bool:
        return self.used + self.size / BYTES_A_SECOND + PLAYING_S > now


class Cache:
    """Its methods do file I/O: call them in a thread, but for `path` and `name_of`."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder.absolute()
        self._limit = limit_bytes
        self._mark = holder.mark()
        self._kept: dict[str, _Kept] = {}
        self._entries: dict[str, tuple[float, str, str]] = {}
        """Of the index: file's name -> when it was written, account, sound."""
        self._bytes: Counter[str | None] = Counter()
        """By account, and of all together by None."""
        self._looked = False
        """The folder was read once at least."""
        self._counting = threading.Lock()
        """For all that is above."""
        self._using = threading.Lock()
        """Nothing is deleted while it is being found."""

    def find(self, key: str, now: float) -> Entry | None:
        """None also if its files are gone. What is found counts as used now."""
        try:
            entry = Entry(**json.loads(self._entry(key).read_bytes()))
            self.use(entry.name, now)
        except (OSError, ValueError, TypeError):
            return None
        return entry

    def use(self, name: str, now: float) -> None:
        """It is played. Raises OSError if it is gone."""
        with self._using:
            for suffix in SUFFIXES:
                os.utime(self.path(name, suffix), (now, now))
            if (kept := self._kept.get(name)) is not None:
                kept.used = now

    def path(self, name: str, suffix: str = "") -> Path:
        return self.folder / (name + suffix)

    @staticmethod
    def name_of(media: str) -> str | None:
        """Of a sound of this cache that Asterisk is told to play."""
        found = re.search(r"(?:^|/)([0-9a-f]{2}/[0-9a-f]{62})(?:\.wav)?$", media)
        return found[1] if found else None

    def keep(self, key: str, entry: Entry) -> None:
        """Raises SoundFailed if the account's share is used up."""
        path = self._entry(key)
        with self._counting:
            if path.name not in self._entries:
                self._make_room(entry.account, ENTRY_BYTES, ENTRY_BYTES, entry.stored, entry.name)
            with self.part() as part:
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
        """Takes both files over. Returns their name. Raises SoundFailed if there is no room."""
        with narrow.open("rb") as first, wide.open("rb") as second:
            digest = hashlib.file_digest(first, "sha256").digest() + hashlib.file_digest(second, "sha256").digest()
        found = hashlib.sha256(digest).hexdigest()
        name = f"{found[:2]}/{found[2:]}"
        size = narrow.stat().st_size + wide.stat().st_size
        with self._counting:
            kept = self._kept.get(name)
            if kept is None or account not in kept.accounts:
                self._make_room(account, size, size if kept is None else 0, now, name)
            # The wide one first: once there is a .wav, there is all of it.
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
    def part(self) -> Iterator[Path]:
        """A path for something unfinished, which is gone afterwards. Raises SoundFailed if the folder can't be used."""
        part = self.folder / "parts" / f"{self._mark}-{secrets.token_hex(16)}"
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            yield part
        except OSError as error:
            raise SoundFailed(f"the sounds folder {self.folder} can't be used: {error.strerror or error}") from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink()

    def served(self, path: str) -> Path | None:
        """The file for an HTTP request's path, if it names a sound."""
        if not re.fullmatch(r"[0-9a-f]{2}/[0-9a-f]{62}\.wav(16)?", path):
            return None
        found = self.folder / path
        return found if found.is_file() else None

    def sweep(self, now: float) -> int:
        """Looks at what there is, deletes what was not used for longest until the rest is within the limit, and what a
        crash left behind. Returns the bytes that are left."""
        self.remove_unfinished(now)
        with self._counting:
            self._look()
            self._drop(now, None, self._limit)
            for name, (written, _, sound) in tuple(self._entries.items()):
                if sound not in self._kept and written < now - PLAYING_S:
                    self._lose(name)
            return self._bytes[None]

    # How much there is, and whose it is. To be called while it is counted.

    def _make_room(self, account: str, more_of_account: int, more: int, now: float, name: str) -> None:
        """For so much more, which is the sound `name` or leads to it."""
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
                told = f"there is no room for it: {who} of the last minutes may take {limit // MB} MB"
                raise SoundFailed(f"{told}; the operator can raise ARI_CONF_SOUNDS_LIMIT_MB")

    def _drop(self, now: float, account: str | None, goal: int, but: str = "") -> None:
        """Those that were not used for longest, until what the account has (None: all) is no more than `goal`."""
        if self._bytes[account] <= goal:
            return
        theirs = [n for n, kept in self._kept.items() if n != but and (account is None or account in kept.accounts)]
        for name in sorted(theirs, key=lambda name: self._kept[name].used):
            if self._bytes[account] <= goal:
                return
            self._drop_one(name, self._kept[name], now, account)

    def _drop_one(self, name: str, kept: _Kept, now: float, account: str | None) -> None:
        if account is not None and kept.accounts != {account}:
            # Others have it as well.
            if not kept.may_play(now):
                self._let_go(kept, account)
        elif self._delete(name, kept, now):
            for each in tuple(kept.accounts):
                self._let_go(kept, each)
            del self._kept[name]
            self._bytes[None] -= kept.size

    def _delete(self, name: str, kept: _Kept, now: float) -> bool:
        """False: it may be playing."""
        with self._using:
            # Another process may have used it.
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
        """An entry of the index, if it is known."""
        if (entry := self._entries.pop(name, None)) is None:
            return
        _, account, sound = entry
        self._bytes[account] -= ENTRY_BYTES
        self._bytes[None] -= ENTRY_BYTES
        if (kept := self._kept.get(sound)) is not None:
            kept.entries.discard(name)

    def _look(self) -> None:
        """At the folder: after a start, and for what other processes have done."""
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
        """What nobody will finish: its process is dead, or, where that can't be told, it is old."""
        for path, stat in self._files("parts/*"):
            if stat.st_mtime < now - PLAYING_S or holder.is_dead_mark(path.name.rpartition("-")[0]):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _files(self, pattern: str) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob(pattern):
            # Another process may just have deleted it.
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat()

    def _entry(self, key: str) -> Path:
        return self.folder / "index" / (hashlib.sha256(key.encode()).hexdigest() + ".json")

    def _place(self, part: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Asterisk is another user.
        part.chmod(0o644)
        part.replace(path)
