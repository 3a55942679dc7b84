"""Fake ARI server without audio: the real protocol on a real WebSocket and over HTTP, in front of the strict fake.

It opens the outbound WebSocket, sends each event as Asterisk does (with the whole channel and bridge in it, and only
types of the event filter), and accepts requests over HTTP and over the WebSocket. An unknown request is an error, which
is kept and reported at the end: a benchmark of something unintended is worthless.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import aiohttp
from aiohttp import WSMsgType, web

from ari_conf.ari.translate import BRIDGE_NAME
from ari_conf.core import effects as do
from ari_conf.core import events as ev
from tests.fakes.asterisk import Asterisk, Refused

APP, USER, PASSWORD = "ari_conf", "ari_conf", "secret"
AUTHORIZATION = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
PLAYED_S = 0.1
"""The length of a playback in seconds."""
AGAIN_S = 0.02
LISTENED_TO = 20
"""One of this many conferences asks for floor events."""
STARTED = "2026-11-22T12:00:00.000+0000"

Reply = tuple[int, bytes]


class FakeAri:
    def __init__(self, app_url: str) -> None:
        self._app_url = app_url
        self.asterisk = Asterisk(self._on_asterisk_event)
        self.exten: dict[str, str] = {}
        """channel id -> dialed number"""
        self.on_event: Callable[[ev.Event], None] = lambda _: None
        """A function that receives each event before the server does."""
        self.on_request: Callable[[str, str], None] = lambda _method, _path: None
        """A function that receives each request after it was answered."""
        self.sent = 0
        """The number of events sent."""
        self.requests = 0
        self._variables: dict[str, str] = {}
        """Asterisk's global variables."""
        self.unknown: list[str] = []
        self.refused: list[str] = []
        self.connected = asyncio.Event()
        self._wanted: set[str] = set()
        self._out: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._channels: dict[str, bytes] = {}

    # The fake's side of the WebSocket.

    async def connect_for_ever(self) -> None:
        async with aiohttp.ClientSession(headers={"Authorization": AUTHORIZATION}) as session:
            while True:
                try:
                    async with session.ws_connect(
                        self._app_url, protocols=("ari",), max_msg_size=0, decode_text=False
                    ) as socket:
                        self.connected.set()
                        await self._serve(socket)
                except (aiohttp.ClientError, OSError):
                    pass
                self.connected.clear()
                await asyncio.sleep(AGAIN_S)

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse[Any]) -> None:
        sending = asyncio.create_task(self._send(socket))
        try:
            async for message in socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    self._rest(json.loads(message.data))
        finally:
            sending.cancel()

    async def _send(self, socket: aiohttp.ClientWebSocketResponse[Any]) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._out:
                await socket.send_frame(self._out.popleft(), WSMsgType.TEXT)

    def _put(self, text: bytes) -> None:
        self._out.append(text)
        self._wake.set()

    def _rest(self, request: dict[str, Any]) -> None:
        query = {pair["name"]: pair["value"] for pair in request.get("query_strings", ())}
        status, body = self.obey(request["method"], "/" + request["uri"], query, request.get("message_body", ""))
        answer = {
            "type": "RESTResponse",
            "transaction_id": request["transaction_id"],
            "request_id": request["request_id"],
            "status_code": status,
            "reason_phrase": "OK" if status < 300 else "Not OK",
            "uri": request["uri"],
        }
        if body:
            answer |= {"content_type": "application/json", "message_body": body.decode()}
        self._put(json.dumps(answer).encode())
        self.on_request(request["method"], "/" + request["uri"])

    # The fake's HTTP server.

    async def http(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != AUTHORIZATION:
            return web.Response(status=401)
        path = request.raw_path.partition("?")[0].removeprefix("/ari")
        body = (await request.read()).decode() if request.body_exists else ""
        status, text = self.obey(request.method, path, request.query, body)
        asyncio.get_running_loop().call_soon(self.on_request, request.method, path)
        return web.Response(status=status, body=text, content_type="application/json")

    # Requests.

    def obey(self, method: str, path: str, query: Any, body: str) -> Reply:
        self.requests += 1
        match [method, *(unquote(part) for part in urlsplit(path).path.strip("/").split("/"))]:
            case ["GET", "asterisk", "ping"]:
                return 200, b'{"ping":"pong"}'
            case ["GET", "asterisk", "variable"]:
                return 200, json.dumps({"value": self._variables.get(query["variable"], "")}).encode()
            case ["POST", "asterisk", "variable"]:
                self._variables[query["variable"]] = query["value"]
                return 204, b""
            case ["PUT", "applications", _, "eventFilter"]:
                self._wanted = {one["type"] for one in json.loads(body)["allowed"]}
                return 200, b"{}"
            case ["POST", "events", "user", name]:
                self._event("ChannelUserevent", b'"eventname":"%s","userevent":{}' % name.encode())
                return 204, b""
            case ["GET", "applications", _]:
                return 200, json.dumps({"name": APP, "bridge_ids": list(self.asterisk.bridges)}).encode()
            case ["GET", "channels"]:
                return 200, b"[" + b",".join(map(self.channel, self.asterisk.channels)) + b"]"
            case ["GET", "bridges"]:
                return 200, b"[" + b",".join(map(self.bridge, self.asterisk.bridges)) + b"]"
            case ["GET", "channels", channel_id, "variable"] if channel_id in self.asterisk.channels:
                return 200, json.dumps({"value": _variable(query["variable"])}).encode()
            case ["POST", "channels", channel_id, "variable"] if channel_id in self.asterisk.channels:
                return 204, b""
            case ["GET", "channels", channel_id, "rtp_statistics"] if channel_id in self.asterisk.channels:
                return 200, _statistics(channel_id)
            case ["GET", "playbacks", playback_id] if playback_id in self.asterisk.playbacks:
                return 200, json.dumps({"id": playback_id, "state": "playing"}).encode()
            case ["GET", "playbacks", _]:
                return 404, b'{"message":"Playback not found"}'
            case ["GET" | "POST", "channels", _, "variable" | "rtp_statistics"]:
                return 404, b'{"message":"Channel not found"}'
            case words:
                return self._effect(words, query)

    def _effect(self, words: list[str], query: Any) -> Reply:
        effect = as_effect(words, query)
        if effect is None:
            self.unknown.append(" ".join(words))
            return 404, b'{"message":"Resource not found"}'
        try:
            self.asterisk.obey(effect)
        except Refused as refused:
            self.refused.append(f"{' '.join(words)}: {refused.reason}")
            return 404 if refused.gone else 400, json.dumps({"message": refused.reason}).encode()
        if isinstance(effect, do.CreateBridge):
            return 200, self.bridge(effect.bridge_id)
        if isinstance(effect, do.PlayMedia):
            asyncio.get_running_loop().call_later(PLAYED_S, self._played, effect.playback_id)
            return 201, json.dumps({"id": effect.playback_id, "state": "queued"}).encode()
        return 204, b""

    def _played(self, playback_id: str) -> None:
        if playback_id in self.asterisk.playbacks:
            self.asterisk.finish(playback_id)

    # Events.

    def call(self, channel_id: str, exten: str) -> None:
        """Let a call enter `Stasis(ari_conf,MA1)`."""
        self.exten[channel_id] = exten
        self.asterisk.call(channel_id)
        self._event("StasisStart", b'"args":["MA1"],"channel":' + self.channel(channel_id))

    def _on_asterisk_event(self, _source: str, event: ev.Event) -> None:
        self.on_event(event)
        match event:
            case ev.ChannelHungUp(channel_id, cause):
                # The fake reports a hangup twice: as the request, and when the channel has left the Stasis application.
                there = channel_id in self.asterisk.channels
                kind = "ChannelHangupRequest" if there else "StasisEnd"
                self._event(kind, b'"cause":%d,"channel":%s' % (cause, self.channel(channel_id)))
                if not there:
                    del self.exten[channel_id]
                    self._channels.pop(channel_id, None)
            case ev.ChannelEnteredBridge(channel_id, bridge_id) | ev.ChannelLeftBridge(channel_id, bridge_id):
                fields = b'"bridge":%s,"channel":%s' % (self.bridge(bridge_id), self.channel(channel_id))
                self._event(type(event).__name__, fields)
            case ev.BridgeDestroyed(bridge_id):
                self._event("BridgeDestroyed", b'"bridge":' + _bridge(bridge_id, []))
            case ev.DigitReceived(channel_id, digit):
                fields = b'"digit":"%s","duration_ms":120,"channel":%s' % (digit.encode(), self.channel(channel_id))
                self._event("ChannelDtmfReceived", fields)
            case ev.TalkingStarted(channel_id) | ev.TalkingFinished(channel_id):
                self._event(f"Channel{type(event).__name__}", b'"channel":' + self.channel(channel_id))
            case ev.PlaybackStarted(playback_id) | ev.PlaybackFinished(playback_id):
                state = "playing" if isinstance(event, ev.PlaybackStarted) else "done"
                playback = {"id": playback_id, "media_uri": "sound:beep", "language": "en", "state": state}
                self._event(type(event).__name__, b'"playback":' + json.dumps(playback).encode())
            case _:
                raise TypeError(f"the fake tells of no {type(event).__name__}")

    def _event(self, kind: str, fields: bytes) -> None:
        if kind in self._wanted:
            self.sent += 1
            self._put(
                b'{"type":"%s","timestamp":"%s","asterisk_id":"00:11:22:33:44:55","application":"%s",%s}'
                % (kind.encode(), STARTED.encode(), APP.encode(), fields)
            )

    def channel(self, channel_id: str) -> bytes:
        found = self._channels.get(channel_id)
        if found is None:
            channel = self.asterisk.channels.get(channel_id)
            found = _channel(channel_id, self.exten[channel_id], channel is None or channel.up)
            if channel is not None and channel.up:
                self._channels[channel_id] = found
        return found

    def bridge(self, bridge_id: str) -> bytes:
        bridge = self.asterisk.bridges.get(bridge_id)
        return _bridge(bridge_id, bridge.channels if bridge else [])


def as_effect(words: list[str], query: Any) -> do.Effect | None:
    """Return the effect that a request came from."""
    match words:
        case ["POST", "channels", channel_id, "answer"]:
            return do.Answer(channel_id)
        case ["POST", "channels", channel_id, "ring"]:
            return do.Ring(channel_id)
        case ["DELETE", "channels", channel_id]:
            return do.HangUp(channel_id, query["reason"])
        case ["POST" | "DELETE" as method, "channels", channel_id, "mute"]:
            return do.MuteChannel(channel_id, method == "POST")
        case ["POST", "channels", channel_id, "variable"] if query["variable"] == "VOLUME(TX)":
            return do.DeafenChannel(channel_id, query["value"] != "0")
        case ["POST", "channels", channel_id, "moh"]:
            return do.StartMusic(channel_id)
        case ["DELETE", "channels", channel_id, "moh"]:
            return do.StopMusic(channel_id)
        case ["POST", "channels", channel_id, "dtmf"]:
            return do.SendDigits(channel_id, query["dtmf"])
        case ["POST", "channels", channel_id, "variable"] if query["variable"].startswith("TALK_DETECT("):
            sets = query["variable"] == "TALK_DETECT(set)"
            return do.DetectTalking(channel_id, int(query["value"].split(",")[0]) if sets else None)
        case ["POST", "bridges"] if query["name"] == BRIDGE_NAME:
            return do.CreateBridge(query["bridgeId"])
        case ["DELETE", "bridges", bridge_id]:
            return do.DestroyBridge(bridge_id)
        case ["POST", "bridges", bridge_id, "addChannel"]:
            return do.AddChannel(query["channel"], bridge_id)
        case ["POST", "bridges", bridge_id, "removeChannel"]:
            return do.RemoveChannel(query["channel"], bridge_id)
        case ["POST", "channels" | "bridges" as kind, id, "play"]:
            target = do.Target("channel" if kind == "channels" else "bridge", id)
            return do.PlayMedia(target, query["playbackId"], tuple(query["media"].split(",")))
        case ["DELETE", "playbacks", playback_id]:
            return do.StopPlayback(do.Target("channel", ""), playback_id)
    return None


def _channel(channel_id: str, exten: str, up: bool) -> bytes:
    """Return a channel as in events of Asterisk 22."""
    return json.dumps(
        {
            "id": channel_id,
            "name": f"PJSIP/trunk-{channel_id}",
            "state": "Up" if up else "Ring",
            "protocol_id": f"1-{channel_id}@127.0.0.1",
            "caller": {"name": "", "number": f"+4930{channel_id[-8:]}"},
            "connected": {"name": "", "number": ""},
            "accountcode": "",
            "dialplan": {
                "context": "conferences",
                "exten": exten,
                "priority": 2,
                "app_name": "Stasis",
                "app_data": f"{APP},MA1",
            },
            "creationtime": STARTED,
            "language": "en",
        }
    ).encode()


def _bridge(bridge_id: str, channels: list[str]) -> bytes:
    return json.dumps(
        {
            "id": bridge_id,
            "technology": "softmix",
            "bridge_type": "mixing",
            "bridge_class": "stasis",
            "creator": "Stasis",
            "name": BRIDGE_NAME,
            "channels": channels,
            "creationtime": STARTED,
            "video_mode": "sfu",
        }
    ).encode()


def listened_to(exten: str) -> bool:
    return int(exten) % LISTENED_TO == 0


async def answered(request: web.Request) -> web.Response:
    """Answer with a document for the conference that was called."""
    called = dict(parse_qsl((await request.read()).decode()))["To"]
    floor = "true" if listened_to(called) else "false"
    text = (
        f'<Response><Conference callbackUrl="http://127.0.0.1/callback" enterSound="beep:1" digitsMatch="1"'
        f' floorEvent="{floor}">room{called}</Conference></Response>'
    )
    return web.Response(text=text, content_type="application/xml")


def _variable(name: str) -> str:
    """Return a variable of a phone on this machine: it has a codec, and no X-PH- header."""
    return "(ulaw);PJSIP;127.0.0.1:5060 127.0.0.1:40000;Via,From,To" if name.startswith("EVAL(") else ""


def _statistics(channel_id: str) -> bytes:
    """Return the RTP statistics of a phone that sends and receives without a pause."""
    packets = int(time.monotonic() * 50)
    stats = {"remote_ssrc": zlib.crc32(channel_id.encode()), "txcount": packets, "rxcount": packets, "rxploss": 0}
    return json.dumps(stats | {"rxoctetcount": packets * 160}).encode()
