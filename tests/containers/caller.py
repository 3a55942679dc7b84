"""The world outside of the machine with the containers: an application, two callers, and a client of the API.

`python -m tests.containers.caller` runs on the machine beside it. It prints what it does, and `in conference` when the
test may stop the server; it goes on when it reads a line. It exits with 0 if everything happened as it should.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import threading
import time
import wave
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import requests

from demo import audio_analysis
from demo.phone import Phone, Switchboard
from tests.namespaces import BESIDE, HERE

PORT = 5000
ANSWER_URL = f"http://{BESIDE}:{PORT}/answer"
DOCUMENT = """<Response><Conference record="%s" recordFileFormat="wav" callbackUrl="%s">room</Conference></Response>"""
PITCHES = (500, 900, 1300)
WITHIN_S = 180.0
"""Maximum seconds until something has arrived: the machine may be busy."""


class Application(ThreadingHTTPServer):
    """It answers each call with the document, and keeps callbacks."""

    daemon_threads = True

    def __init__(self, *, record: bool) -> None:
        super().__init__((BESIDE, PORT), Handler)
        self.document = DOCUMENT % (str(record).lower(), f"http://{BESIDE}:{PORT}/callback")
        self.callbacks: list[dict[str, str]] = []
        self.arrived = threading.Condition()

    def wait_for(self, wanted: Callable[[dict[str, str]], bool], what: str) -> dict[str, str]:
        """Return the first callback for which `wanted` is true."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: any(map(wanted, self.callbacks)), WITHIN_S):
                fail(
                    f"no callback {what} arrived; those that did: {[c.get('ConferenceAction') for c in self.callbacks]}"
                )
            return next(filter(wanted, self.callbacks))


class Handler(BaseHTTPRequestHandler):
    server: Application

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        text = b""
        if self.path == "/answer":
            text = self.server.document.encode()
        else:
            with self.server.arrived:
                self.server.callbacks.append({name: values[0] for name, values in parse_qs(body).items()})
                self.server.arrived.notify_all()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


def fail(text: str) -> None:
    raise SystemExit(f"caller: {text}")


def progress(text: str) -> None:
    print(text, flush=True)


async def call(application: Application, target: str, stop_server: Callable[[], object]) -> None:
    """Two callers meet, `stop_server` stops the server while they talk, and a third one comes."""
    async with Switchboard(3, BESIDE) as phones:
        ann, bob, cid = phones
        for phone, hz, number in zip(phones, PITCHES, ("15550001", "15550002", "15550003"), strict=True):
            phone.tone(hz)
            if phone is not cid:
                await phone.call(target, from_user=number)
        await _hear(ann, PITCHES[1])
        await _hear(bob, PITCHES[0])
        progress("two callers hear each other")
        await asyncio.to_thread(stop_server)
        # Rings until another server has taken over.
        async with asyncio.timeout(WITHIN_S):
            await cid.call(target, from_user="15550003")
        for phone, hz in ((ann, PITCHES[2]), (cid, PITCHES[0]), (bob, PITCHES[0])):
            await _hear(phone, hz)
        lost = audio_analysis.gaps(ann.heard.audio[8000:], PITCHES[1], 200.0)
        if lost:
            fail(f"the first caller did not hear the second one all the time: {lost}")
        progress("the standby has taken over: nobody has heard a gap, and a third caller is in")
        for phone in phones:
            await phone.hang_up()
    for action in ("enter", "exit"):
        application.wait_for(lambda params, action=action: params.get("ConferenceAction") == action, action)


async def _hear(phone: Phone, hz: int) -> None:
    await phone.wait_for_audio(lambda samples: audio_analysis.is_tone_present(samples, hz), WITHIN_S)


def check_api(domain: str, ca: Path, auth_id: str, token: str) -> None:
    """Check the API behind the proxy: its certificate, and what it refuses."""
    base = f"https://{domain}"
    with requests.Session() as session:
        # The environment's certificates would take precedence.
        session.trust_env, session.verify, session.auth = False, str(ca), (auth_id, token)
        if (found := requests.get(f"http://{domain}/", allow_redirects=False, timeout=10)).status_code != 308:
            fail(f"http is not redirected: {found.status_code}")
        for path in ("/metrics", "/healthz", "/readyz"):
            if (found := session.get(base + path, timeout=10)).status_code != 404:
                fail(f"{path} is public: {found.status_code}")
        if (
            found := session.get(f"{base}/v1/Account/{auth_id}/Conference/", auth=(auth_id, "x" * 20), timeout=10)
        ).status_code != 401:
            fail(f"a wrong token is accepted: {found.status_code}")
        found = session.get(f"{base}/v1/Account/{auth_id}/Conference/", timeout=10)
        found.raise_for_status()
    progress("the API answers over TLS")


def check_recording(application: Application, domain: str, ca: Path, auth_id: str, token: str) -> None:
    """Fetch the recording, which has both callers."""
    with requests.Session() as session:
        # The environment's certificates would take precedence.
        session.trust_env, session.verify, session.auth = False, str(ca), (auth_id, token)
        stored = application.wait_for(lambda params: params.get("ConferenceAction") == "record", "record")
        listed = session.get(f"https://{domain}/v1/Account/{auth_id}/Recording/", timeout=30).json()
        if [one["recording_url"] for one in listed["objects"]] != [stored["RecordUrl"]]:
            fail(f"the callback names another recording than the API: {stored}, {listed}")
        audio = session.get(stored["RecordUrl"], timeout=30)
        audio.raise_for_status()
    with wave.open(io.BytesIO(audio.content)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        rate = file.getframerate()
    for hz in PITCHES[:2]:
        heard_ms = sum(to - since for since, to in audio_analysis.intervals_of(samples[:: rate // 8000], hz))
        if heard_ms < 2000:
            fail(f"{hz} Hz is in the recording of {len(samples) / rate:.1f} s for only {heard_ms:.0f} ms")
    progress(f"the recording of {len(samples) / rate:.0f} s has both callers: {stored['RecordUrl']}")


def check_history(domain: str, ca: Path, auth_id: str, token: str) -> None:
    """Wait until the API lists the conference as one that has ended, with its three members."""
    end = time.monotonic() + WITHIN_S
    with requests.Session() as session:
        # The environment's certificates would take precedence.
        session.trust_env, session.verify, session.auth = False, str(ca), (auth_id, token)
        while True:
            found = session.get(f"https://{domain}/v1/Account/{auth_id}/ConferenceHistory/", timeout=30)
            if found.ok and (listed := found.json()["objects"]):
                break
            if time.monotonic() > end:
                fail(f"the history does not have the conference: {found.status_code} {found.text}")
            time.sleep(0.5)
    if [(one["conference_name"], one["member_count"]) for one in listed] != [("room", 3)]:
        fail(f"the history has another conference: {listed}")
    progress("the API lists the conference that has ended, with its three members")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("domain", "ca", "auth_id"):
        parser.add_argument(name)
    given = parser.parse_args()
    # The token is not in the command line, which every user of the machine can read.
    token = sys.stdin.readline().strip()
    application = Application(record=True)
    threading.Thread(target=application.serve_forever, daemon=True).start()
    began = time.monotonic()

    def stop_server() -> None:
        progress("in conference")
        sys.stdin.readline()

    asyncio.run(call(application, f"sip:14155550100@{HERE}:5060", stop_server))
    check_api(given.domain, Path(given.ca), given.auth_id, token)
    check_recording(application, given.domain, Path(given.ca), given.auth_id, token)
    check_history(given.domain, Path(given.ca), given.auth_id, token)
    progress(f"done in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
