"""Process identity: lets another process on the same machine detect that this one is dead, and not wait for it."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import msgspec

PROC = Path("/proc")


class ProcessIdentity(msgspec.Struct, frozen=True):
    host: str
    pid: int
    started: str
    """Start time as in /proc/PID/stat, in clock ticks since boot: a pid alone may belong to another process by now."""
    pid_namespace: str
    """Boot id and pid namespace: only within the same ones does a pid mean the same process."""


def current() -> str:
    pid = os.getpid()
    started = _start_time(pid) or ""
    return msgspec.json.encode(ProcessIdentity(socket.gethostname(), pid, started, _pid_namespace())).decode()


def describe(text: str) -> str:
    """Return host and pid for people; empty if the text is not an identity."""
    found = _read(text)
    return f"{found.host} pid {found.pid}" if found else ""


def is_dead(text: str) -> bool:
    """Return True if the process is known to be dead; False also if this process can't tell."""
    found = _read(text)
    if found is None or not found.pid_namespace or found.pid_namespace != _pid_namespace() or not found.started:
        return False
    return _start_time(found.pid) != found.started


def mark() -> str:
    """Return a mark of this process, for the names of files that it creates."""
    return f"{os.getpid()}-{_start_time(os.getpid()) or ''}-{_hash_place()}"


def is_dead_mark(text: str) -> bool:
    """Return True if the marked process is known to be dead; False also if this can't be known, or without a mark."""
    pid, _, rest = text.partition("-")
    started, _, place = rest.partition("-")
    if not pid.isdecimal() or not started or not place or place != _hash_place():
        return False
    return _start_time(int(pid)) != started


def _read(text: str) -> ProcessIdentity | None:
    try:
        return msgspec.json.decode(text, type=ProcessIdentity)
    except msgspec.MsgspecError:
        return None


def _pid_namespace() -> str:
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _hash_place() -> str:
    place = _pid_namespace()
    return hashlib.sha256(place.encode()).hexdigest()[:16] if place else ""


def _start_time(pid: int) -> str | None:
    """Return the start time of a process; None if it does not exist or is a zombie."""
    try:
        # The process name in parentheses may contain any character: the fields follow the last parenthesis.
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
