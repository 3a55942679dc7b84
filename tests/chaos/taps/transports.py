"""Candidates: each creates an Asterisk channel that carries the audio, and receives that audio."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp
import picows
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from ari_conf.ari.client import Client

Heard = Callable[[bytes], None]
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Slot:
    """The ports and names of one receiver in Asterisk's configuration."""

    number: int
    events_port: int
    media_port: int

    @property
    def app(self) -> str:
        """Return the name of the Stasis application; ids of the receiver's objects start with it."""
        return f"slot{self.number}"

    @property
    def media(self) -> str:
        """Return the name of the connection in websocket_client.conf."""
        return f"media{self.number}"


class Transport:
    """The transport of one receiver. `ready` may listen; `open` creates the channel."""

    modules: tuple[str, ...] = ()
    """The modules that Asterisk must load."""

    def __init__(self, ari: Client, slot: Slot, heard: Heard) -> None:
        self.ari, self.slot, self.heard = ari, slot, heard

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        yield

    async def open(self, channel_id: str) -> None:
        raise NotImplementedError

    async def external(self, channel_id: str, **query: str) -> Any:
        asked = {"app": self.slot.app, "channelId": channel_id, "format": "slin"} | query
        return await self.ari.request("POST", "/channels/externalMedia", asked)


class WebSocketServer(Transport):
    """Media over WebSocket with Asterisk as the server: the receiver connects."""

    modules = ("chan_websocket",)

    async def open(self, channel_id: str) -> None:
        made = await self.external(
            channel_id, external_host="INCOMING", connection_type="server", transport="websocket", encapsulation="none"
        )
        connection_id = made["channelvars"]["MEDIA_WEBSOCKET_CONNECTION_ID"]
        server = self.ari._server
        login = aiohttp.encode_basic_auth(server.user, server.password)
        self._session = aiohttp.ClientSession(headers={"Authorization": login})
        url = f"{server.url.removesuffix('/ari')}/media/{connection_id}"
        self._socket = await self._session.ws_connect(url, heartbeat=3.0, decode_text=False)
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                self.heard(message.data)


class _Listener(WSListener):  # type: ignore[misc]
    def __init__(self, heard: Heard) -> None:
        self._heard = heard

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.BINARY:
            self._heard(frame.get_payload_as_bytes())


class WebSocketClient(Transport):
    """Media over WebSocket with Asterisk as the client: Asterisk connects."""

    modules = ("chan_websocket", "res_websocket_client")

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        def accepted(request: picows.WSUpgradeRequest) -> picows.WSUpgradeResponseWithListener:
            answer = picows.WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": "media"})
            return picows.WSUpgradeResponseWithListener(answer, _Listener(self.heard))

        async with await picows.ws_create_server(accepted, HOST, self.slot.media_port, use_aiofastnet=False):
            yield

    async def open(self, channel_id: str) -> None:
        await self.external(
            channel_id,
            external_host=self.slot.media,
            connection_type="client",
            transport="websocket",
            encapsulation="none",
        )


class AudioSocket(Transport):
    """AudioSocket over TCP; Asterisk connects."""

    modules = ("res_audiosocket", "chan_audiosocket")
    SOUND = 0x10

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._accepted, HOST, self.slot.media_port):
            yield

    async def _accepted(self, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                kind, length = struct.unpack("!BH", await reader.readexactly(3))
                payload = await reader.readexactly(length)
                if kind == self.SOUND:
                    self.heard(payload)

    async def open(self, channel_id: str) -> None:
        await self.external(
            channel_id,
            external_host=f"{HOST}:{self.slot.media_port}",
            transport="tcp",
            encapsulation="audiosocket",
            data=str(uuid4()),
        )


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, heard: Heard) -> None:
        self._heard = heard

    def datagram_received(self, data: bytes, _from: Any) -> None:
        self._heard(data[12:])


class Rtp(Transport):
    """External media over UDP (UnicastRTP): Asterisk uses two ports of rtp.conf's range for it."""

    modules = ("res_rtp_multicast", "chan_rtp")

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        listening, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self.heard), local_addr=(HOST, self.slot.media_port)
        )
        yield
        listening.close()

    async def open(self, channel_id: str) -> None:
        host = f"{HOST}:{self.slot.media_port}"
        await self.external(channel_id, external_host=host, transport="udp", encapsulation="rtp", format="ulaw")


class RtpOnlySent(Rtp):
    """MulticastRTP to a unicast address: Asterisk only sends, and needs no port of the range."""

    async def open(self, channel_id: str) -> None:
        endpoint = f"MulticastRTP/basic/{HOST}:{self.slot.media_port}//c(ulaw)"
        asked = {"endpoint": endpoint, "app": self.slot.app, "channelId": channel_id}
        await self.ari.request("POST", "/channels", asked)


TRANSPORTS: dict[str, type[Transport]] = {
    "websocket-server": WebSocketServer,
    "websocket-client": WebSocketClient,
    "audiosocket": AudioSocket,
    "rtp": Rtp,
    "rtp-only-sent": RtpOnlySent,
}
OURS = "ours"
"""The beep listener of ari_conf itself."""
EVENTS = "events"
"""No audio: only the event WebSocket dies, or is closed properly."""
CANDIDATES = (*TRANSPORTS, OURS, EVENTS)
