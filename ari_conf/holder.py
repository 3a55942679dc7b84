"""Where a process lives, so that another on the same machine can tell that it is dead, and need not wait for it."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import msgspec

PROC = Path("/proc")


class Holder(msgspec.Struct, frozen=True):
    host: str
    pid: int
    started: str
    """As /proc/PID/stat has it: a pid alone may be another's by now."""
    place: str
    """Boot and pid namespace: within one, a pid means the same."""


def this() -> str:
    pid = os.getpid()
    started = _started(pid) or ""
    return msgspec.json.encode(Holder(socket.gethostname(), pid, started, _place())).decode()


def named(text: str) -> str:
    """For people."""
    found = _read(text)
    return f"{found.host} pid {found.pid}" if found else ""


def is_dead(text: str) -> bool:
    """False also if that can't be told from here."""
    found = _read(text)
    if found is None or not found.place or found.place != _place() or not found.started:
        return False
    return _started(found.pid) != found.started


def mark() -> str:
    """This process, for the name of a file that it makes."""
    return f"{os.getpid()}-{_started(os.getpid()) or ''}-{_short_place()}"


def is_dead_mark(text: str) -> bool:
    """False also if that can't be told from here, or if it is no mark."""
    pid, _, rest = text.partition("-")
    started, _, place = rest.partition("-")
    if not pid.isdecimal() or not started or not place or place != _short_place():
        return False
    return _started(int(pid)) != started


def _read(text: str) -> Holder | None:
    try:
        return msgspec.json.decode(text, type=Holder)
    except msgspec.MsgspecError:
        return None


def _place() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _short_place() -> str:
    place = _place()
    return hashlib.sha256(place.encode()).hexdigest()[:16] if place else ""


def _started(pid: int) -> str | None:
    """None: there is no such process, or it is dead and not yet buried."""
    try:
        # The name, in brackets, may hold anything: what follows counts from the last one.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
