"""Sounds on disk, as Asterisk plays them; several processes may share the folder.

ab/cdef….wav, .wav16   named by a hash of what is in them: who does not have the sound can't name it, so the
                       folder may be served by HTTP, and the same sound under two URLs is kept once
index/….json           what is known of a URL or a text; never served
parts/                 not finished: each becomes a file by a rename, so that nobody plays half a sound; its name says
                       which process makes it, so that another removes it if that one was killed
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ari_conf import holder
from ari_conf.errors import SoundFailed

PLAYING_S = 3600
"""What was used within this may still be heard by somebody: it is not deleted, whatever the limit."""
SUFFIXES = (".wav", ".wav16")


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


class Cache:
    """Its methods do file I/O: call them in a thread, but for `find` and `path`."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder.absolute()
        self._limit = limit_bytes
        self._mark = holder.mark()

    def find(self, key: str, now: float) -> Entry | None:
        """None also if its files are gone. What is found counts as used now."""
        try:
            entry = Entry(**json.loads(self._entry(key).read_bytes()))
            for suffix in SUFFIXES:
                os.utime(self.path(entry.name, suffix), (now, now))
        except (OSError, ValueError, TypeError):
            return None
        return entry

    def path(self, name: str, suffix: str = "") -> Path:
        return self.folder / (name + suffix)

    def keep(self, key: str, entry: Entry) -> None:
        with self.part() as part:
            part.write_text(json.dumps(asdict(entry)))
            self._place(part, self._entry(key))

    def forget(self, key: str) -> None:
        self._entry(key).unlink(missing_ok=True)

    def add(self, narrow: Path, wide: Path, now: float) -> str:
        """Takes both files over. Returns their name."""
        with narrow.open("rb") as first, wide.open("rb") as second:
            digest = hashlib.file_digest(first, "sha256").digest() + hashlib.file_digest(second, "sha256").digest()
        found = hashlib.sha256(digest).hexdigest()
        name = f"{found[:2]}/{found[2:]}"
        # The wide one first: once there is a .wav, there is all of it.
        for part, suffix in ((wide, ".wav16"), (narrow, ".wav")):
            os.utime(part, (now, now))
            self._place(part, self.path(name, suffix))
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
        """Deletes what was not used for longest until the rest is within the limit, and what a crash left behind.
        Returns the bytes that are left."""
        files = [(stat.st_mtime, stat.st_size, path) for path, stat in self._files("[0-9a-f][0-9a-f]/*")]
        total = sum(size for _, size, _ in files)
        for used, size, path in sorted(files):
            if total <= self._limit or used > now - PLAYING_S:
                break
            path.unlink(missing_ok=True)
            total -= size
        self.remove_unfinished(now)
        for path, stat in self._files("index/*"):
            if stat.st_mtime < now - PLAYING_S and not self._points_to_files(path):
                path.unlink(missing_ok=True)
        return total

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

    def _points_to_files(self, index: Path) -> bool:
        try:
            return all(self.path(json.loads(index.read_bytes())["name"], suffix).exists() for suffix in SUFFIXES)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _entry(self, key: str) -> Path:
        return self.folder / "index" / (hashlib.sha256(key.encode()).hexdigest() + ".json")

    def _place(self, part: Path, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Asterisk is another user.
        part.chmod(0o644)
        part.replace(path)
