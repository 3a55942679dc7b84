"""SIP as text: messages and the SDP of a phone that speaks one codec and RFC 4733 (RFC 3261, 4566)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from demo.codec import PCMU, Codec

_SHORT = {
    "v": "via",
    "f": "from",
    "t": "to",
    "i": "call-id",
    "m": "contact",
    "c": "content-type",
    "l": "content-length",
}
EVENT_TYPE = 101
"""The RTP payload type that the phone offers for RFC 4733 events."""


@dataclass(frozen=True)
class Message:
    start: str
    headers: tuple[tuple[str, str], ...]
    body: str

    @property
    def status(self) -> int:
        """Return the status of a response, or 0 for a request."""
        return int(self.start.split(" ")[1]) if self.start.startswith("SIP/2.0 ") else 0

    @property
    def reason(self) -> str:
        return self.start.split(" ", 2)[2] if self.status and self.start.count(" ") > 1 else ""

    @property
    def method(self) -> str:
        """Return the request's method; for a response, the method of its request."""
        return self.first("cseq").split()[-1] if self.status else self.start.split(" ")[0]

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header == name]

    def first(self, name: str) -> str:
        return next(iter(self.all(name)), "")

    @property
    def branch(self) -> str:
        found = re.search(r"branch=([^;,\s]+)", self.first("via"))
        return found[1] if found else ""

    @property
    def to_tag(self) -> str:
        found = re.search(r";\s*tag=([^;\s]+)", self.first("to").rpartition(">")[2])
        return found[1] if found else ""

    @property
    def cause(self) -> int | None:
        """Return the Q.850 cause of a Reason header (RFC 3326) or of Asterisk's own header, or None; cause 0 means
        none."""
        found = re.search(r"Q\.850\s*;.*?cause=(\d+)", self.first("reason"), re.I)
        code = found[1] if found else self.first("x-asterisk-hangupcausecode")
        return int(code) or None if code.isdigit() else None


def read(datagram: bytes) -> Message | None:
    """Return the message, or None for a datagram that is not SIP, such as a keep-alive."""
    head, _, body = datagram.decode("utf-8", "replace").partition("\r\n\r\n")
    start, *lines = re.sub(r"\r\n[ \t]+", " ", head).split("\r\n")
    if "SIP/2.0" not in start:
        return None
    headers = []
    for line in lines:
        name, _, value = line.partition(":")
        name = name.strip().lower()
        headers.append((_SHORT.get(name, name), value.strip()))
    return Message(start, tuple(headers), body)


def write(start: str, headers: list[tuple[str, str]], body: str = "") -> bytes:
    lines = [start, *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines.append("Content-Type: application/sdp")
    return ("\r\n".join([*lines, f"Content-Length: {len(body.encode())}", "", ""]) + body).encode()


def reply(request: Message, status: str, extra: list[tuple[str, str]], body: str = "") -> bytes:
    """Return a response with the Via, From, To, Call-ID and CSeq of its request (RFC 3261, 8.2.6.2)."""
    kept = [(name, value) for name, value in request.headers if name in ("via", "from", "to", "call-id", "cseq")]
    return write(f"SIP/2.0 {status}", [*kept, *extra], body)


def offer(
    host: str, port: int, version: int = 1, codec: Codec = PCMU, direction: str = "sendrecv", address: str = ""
) -> str:
    """Return an SDP offer. `address`: the address in the c= line, such as 0.0.0.0 for the old way to hold."""
    lines = [
        "v=0",
        f"o=- {port} {version} IN IP4 {host}",
        "s=call",
        f"c=IN IP4 {address or host}",
        "t=0 0",
        f"m=audio {port} RTP/AVP {codec.payload_type} {EVENT_TYPE}",
        f"a=rtpmap:{codec.payload_type} {codec.name}/8000",
        f"a=rtpmap:{EVENT_TYPE} telephone-event/8000",
        f"a=fmtp:{EVENT_TYPE} 0-16",
        "a=ptime:20",
        f"a={direction}",
    ]
    return "\r\n".join(lines) + "\r\n"


def media_address(sdp: str) -> tuple[str, int] | None:
    """Return (host, port) of the audio in an answer, or None if it has none or refuses it with port 0."""
    port = re.search(r"^m=audio (\d+)", sdp, re.M)
    if not port or port[1] == "0":
        return None
    # A c= line within the media section overrides that of the session (RFC 4566, 5.7).
    host = re.search(r"^c=IN IP4 (\S+)", sdp[port.start() :], re.M) or re.search(r"^c=IN IP4 (\S+)", sdp, re.M)
    return (host[1], int(port[1])) if host else None


def address_of(uri: str) -> tuple[str, int]:
    """Return the address for requests to a SIP URI. The host must be an IPv4 address: phones make no lookups."""
    found = re.search(r"sip:(?:[^@>]*@)?([\d.]+)(?::(\d+))?", uri)
    if not found:
        raise ValueError(f"{uri!r} is not a SIP URI with an IPv4 address, such as sip:100@127.0.0.1:5060")
    return found[1], int(found[2] or 5060)
