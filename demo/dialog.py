"""One SIP call over UDP, from the caller's side (RFC 3261): INVITE, CANCEL, BYE, and responses to the far end's
requests."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from demo import sip
from demo.codec import PCMU, Codec

State = Literal["calling", "ringing", "early", "answered", "ended"]
_T1_S = 0.5
_TRANSACTION_TIMEOUT_S = 32.0
"""Seconds. 64 x T1: a transaction that takes longer has failed (RFC 3261, 17.1.1.2)."""
_ALLOW = ("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, NOTIFY")


class CallFailed(Exception):
    """A call that was not answered. `status` and `reason` are SIP's, 408 without any response; `cause` is Q.850's."""

    def __init__(self, status: int, reason: str, cause: int | None = None) -> None:
        super().__init__(f"the call was not answered: {status} {reason}")
        self.status, self.reason, self.cause = status, reason, cause


@dataclass(frozen=True)
class CallTarget:
    """The SIP URI to call, and the caller's identity."""

    uri: str
    user: str
    display_name: str
    headers: tuple[tuple[str, str], ...] = ()


class Dialog(asyncio.DatagramProtocol):
    """One call. `changed` receives each new state; `media` receives each address to which the far end wants audio."""

    def __init__(
        self,
        call_target: CallTarget,
        rtp_port: int,
        changed: Callable[[State], None],
        media: Callable[[tuple[str, int]], None],
        codec: Codec = PCMU,
        host: str = "127.0.0.1",
    ) -> None:
        self._own_host = host
        self._call_target, self._rtp_port, self._changed, self._media = call_target, rtp_port, changed, media
        self._codec = codec
        self.state: State = "calling"
        self.end_reason = ""
        self.cause: int | None = None
        loop = asyncio.get_running_loop()
        self._final: asyncio.Future[sip.Message] = loop.create_future()
        self._waiting: dict[str, asyncio.Future[sip.Message]] = {}
        self._response_by_request: dict[str, bytes] = {}
        self._tag, self._call_id = secrets.token_hex(6), f"{secrets.token_hex(12)}@{host}"
        self._sequence = 1
        self._to = f"<{call_target.uri}>"
        self._target, self._route = call_target.uri, list[str]()
        self._branch = ""
        self._provisional = asyncio.Event()
        self._ack = b""
        self._version = 1
        self._direction = "sendrecv"
        self.vanished = False
        """True once the phone sends no more responses."""

    async def open(self) -> None:
        self._destination = sip.address_of(self._call_target.uri)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(self._own_host, 0))
        self._host, self._port = self._transport.get_extra_info("sockname")[:2]

    def close(self) -> None:
        self._set_state("ended")
        if not self._final.done():
            self._final.set_result(sip.Message("SIP/2.0 487 hung up before any answer", (), ""))
        self._transport.close()

    async def invite(self) -> None:
        """Send the INVITE and return when the call is answered. Raises CallFailed."""
        extra = [_ALLOW, *self._call_target.headers]
        body = sip.offer(self._host, self._rtp_port, codec=self._codec)
        request = self._request("INVITE", extra, body)
        sender = asyncio.create_task(self._repeat(request, self._provisional))
        try:
            final = await asyncio.shield(self._final)
        finally:
            sender.cancel()
        if final.status >= 300:
            self._end(final.reason, final.cause)
            raise CallFailed(final.status, final.reason, final.cause)

    async def end(self) -> None:
        """Send BYE or CANCEL, depending on the state, and return when the far end has confirmed it or the time
        is over."""
        if self.state == "ended":
            return
        if self.vanished:
            self._set_state("ended")
            return
        if self.state == "answered":
            self._set_state("ended")
            self.end_reason = self.end_reason or "hung up by the caller"
            await self._send_request("BYE")
            return
        # Spec: "If no provisional response has been received, the CANCEL request MUST NOT be sent" (RFC 3261, 9.1)
        await self._provisional.wait()
        if not self._final.done():
            cancel = self._request("CANCEL", [], branch=self._branch, sequence=self._invite_sequence)
            await self._transact(self._branch + "CANCEL", cancel)
        final = await asyncio.shield(self._final)
        if final.status < 300:
            await self.end()
        else:
            self._end(final.reason, final.cause)

    async def reinvite(self, direction: str, address: str = "") -> sip.Message:
        """Send a re-INVITE and return its final response."""
        self._sequence += 1
        self._version += 1
        self._direction = direction
        body = sip.offer(self._host, self._rtp_port, self._version, self._codec, direction, address)
        self._final, self._provisional = asyncio.get_running_loop().create_future(), asyncio.Event()
        sender = asyncio.create_task(self._repeat(self._request("INVITE", [_ALLOW], body), self._provisional))
        try:
            return await asyncio.shield(self._final)
        finally:
            sender.cancel()

    async def _send_request(self, method: str) -> None:
        self._sequence += 1
        branch = _new_branch()
        await self._transact(branch + method, self._request(method, [], branch=branch))

    async def _transact(self, key: str, request: bytes) -> None:
        self._waiting[key] = asyncio.get_running_loop().create_future()
        sender = asyncio.create_task(self._repeat(request))
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._waiting[key], 4)
        finally:
            sender.cancel()
            del self._waiting[key]

    async def _repeat(self, request: bytes, stop_event: asyncio.Event | None = None) -> None:
        """Send a request after 0, 0.5, 1.5, 3.5 s … (timers A, E); an INVITE only until its first provisional
        response."""
        wait, elapsed = _T1_S, 0.0
        while elapsed < _TRANSACTION_TIMEOUT_S:
            self._send(request)
            await asyncio.sleep(wait)
            elapsed, wait = elapsed + wait, min(wait * 2, 4.0)
            if stop_event is not None and stop_event.is_set():
                return
        if stop_event is not None and not self._final.done():
            self._final.set_result(sip.Message("SIP/2.0 408 Request Timeout", (), ""))

    def _request(
        self, method: str, extra: list[tuple[str, str]], body: str = "", *, branch: str = "", sequence: int = 0
    ) -> bytes:
        if method == "INVITE":
            self._branch, self._invite_sequence = _new_branch(), self._sequence
            branch = self._branch
        name = f'"{self._call_target.display_name}" ' if self._call_target.display_name else ""
        headers = [
            ("Via", f"SIP/2.0/UDP {self._host}:{self._port};branch={branch}"),
            *(("Route", route) for route in self._route),
            ("Max-Forwards", "70"),
            ("From", f"{name}<sip:{self._call_target.user}@{self._host}>;tag={self._tag}"),
            ("To", self._to if method != "CANCEL" else f"<{self._call_target.uri}>"),
            ("Call-ID", self._call_id),
            ("CSeq", f"{sequence or self._sequence} {method}"),
            ("Contact", self._contact),
            *extra,
        ]
        return sip.write(f"{method} {self._target} SIP/2.0", headers, body)

    @property
    def _contact(self) -> str:
        return f"<sip:{self._call_target.user}@{self._host}:{self._port}>"

    def _send(self, message: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(message, self._destination)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        message = sip.read(data)
        if message is None or message.first("call-id") != self._call_id or self.vanished:
            return
        if not message.status:
            self._on_request(message)
        elif message.method == "INVITE":
            self._on_invite_response(message)
        elif message.status >= 200:
            waiting = self._waiting.get(message.branch + message.method)
            if waiting and not waiting.done():
                waiting.set_result(message)

    def _on_invite_response(self, answer: sip.Message) -> None:
        self._provisional.set()
        if answer.status < 200:
            self._update_media(answer)
            if answer.status > 100 and self.state in ("calling", "ringing"):
                self._set_state("early" if answer.body else "ringing")
            return
        if not self._final.done():
            self._to = answer.first("to")
            if answer.status < 300:
                self._target = _uri(answer.first("contact")) or self._target
                self._route = answer.all("record-route")[::-1]
                self._update_media(answer)
            # The ACK of a 2xx is a transaction of its own; any other has the INVITE's branch (13.2.2.4, 17.1.1.3).
            branch = _new_branch() if answer.status < 300 else self._branch
            self._ack = self._request("ACK", [], branch=branch, sequence=self._invite_sequence)
            self._final.set_result(answer)
            if answer.status < 300:
                self._set_state("answered")
        self._send(self._ack)

    def _update_media(self, message: sip.Message) -> None:
        if message.body and (address := sip.media_address(message.body)):
            self._media(address)

    def _on_request(self, request: sip.Message) -> None:
        """Answer a request; a retransmission gets the same response (RFC 3261, 17.2.2)."""
        key = request.branch + request.method
        if request.method == "ACK":
            return
        if key not in self._response_by_request:
            body = ""
            if request.method == "INVITE":
                self._update_media(request)
                self._version += 1
                body = sip.offer(self._host, self._rtp_port, self._version, self._codec, self._direction)
            known = request.method in ("INVITE", "BYE", "OPTIONS", "INFO", "NOTIFY", "CANCEL")
            status = "200 OK" if known else "405 Method Not Allowed"
            self._response_by_request[key] = sip.reply(request, status, [("Contact", self._contact), _ALLOW], body)
        self._send(self._response_by_request[key])
        if request.method == "BYE":
            self._end(request.first("reason") or "the far end hung up", request.cause)

    def _end(self, reason: str, cause: int | None) -> None:
        if self.state != "ended":
            self.end_reason, self.cause = reason, cause
            self._set_state("ended")

    def _set_state(self, state: State) -> None:
        if self.state != state and self.state != "ended":
            self.state = state
            self._changed(state)


def _new_branch() -> str:
    return "z9hG4bK" + secrets.token_hex(8)


def _uri(contact: str) -> str:
    return contact.partition("<")[2].partition(">")[0] if "<" in contact else contact.partition(";")[0]
