"""A minimal application for ari_conf: asks each caller for a PIN, puts them into a conference, and prints its events.

It uses Plivo's SDK for the documents and the signatures, and no code of ari_conf.

    .venv/bin/ari-conf example
    .venv/bin/ari-conf up --answer-url http://127.0.0.1:5000/answer     # in another terminal

Then call any number, such as sip:15550100@127.0.0.1:5060; the PIN is 1234. With AUTH_TOKEN set to the account's token
(`ari-conf account show demo --token`), requests that are not signed with it are refused.
"""

from __future__ import annotations

import argparse
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

from plivo import plivoxml
from plivo.utils.signature_v3 import validate_v3_signature

PIN = "1234"
MAX_BODY_BYTES = 1_000_000


class Example(ThreadingHTTPServer):
    """The HTTP server. `events` has the conference's events, in order of arrival."""

    def __init__(self, port: int = 5000, token: str = "") -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.token = token
        self.events: list[dict[str, str]] = []


class Handler(BaseHTTPRequestHandler):
    server: Example

    def do_POST(self) -> None:
        length = min(int(self.headers.get("Content-Length") or 0), MAX_BODY_BYTES)
        params = dict(parse_qsl(self.rfile.read(length).decode(), keep_blank_values=True))
        if not self._is_signed(params):
            return self.send_error(403, "not signed with the token of the account")
        document = ""
        if self.path == "/answer":
            document = ask_for_pin(self.server.url)
        elif self.path == "/pin":
            document = (
                enter_conference(self.server.url) if params.get("Digits") == PIN else ask_for_pin(self.server.url)
            )
        else:
            self.server.events.append(params)
            sys.stdout.write(f"{params.get('Event')}: {params.get('From')}, {params.get('ConferenceName')}\n")
            sys.stdout.flush()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        self.wfile.write(document.encode())
        return None

    def _is_signed(self, params: dict[str, str]) -> bool:
        if not self.server.token:
            return True
        nonce = self.headers.get("X-Plivo-Signature-V3-Nonce", "")
        given = self.headers.get("X-Plivo-Signature-V3", "")
        url = self.server.url + self.path
        return bool(validate_v3_signature("POST", url, nonce, self.server.token, given, params))

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: `do_POST` prints the events."""


def ask_for_pin(url: str) -> str:
    digits = plivoxml.GetDigitsElement(action=f"{url}/pin", method="POST", num_digits=len(PIN), timeout=10, log=False)
    digits.add(plivoxml.SpeakElement("Please enter the PIN."))
    response = plivoxml.ResponseElement().add(digits)
    return str(response.add(plivoxml.SpeakElement("No PIN was entered. Goodbye.")).to_string())


def enter_conference(url: str) -> str:
    response = plivoxml.ResponseElement().add(plivoxml.SpeakElement("You are in."))
    conference = plivoxml.ConferenceElement(
        "standup", callback_url=f"{url}/events", callback_method="POST", enter_sound="beep:1"
    )
    return str(response.add(conference).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=5000, help="port on 127.0.0.1 (5000)")
    port = parser.parse_args().port
    try:
        example = Example(port, os.environ.get("AUTH_TOKEN", ""))
    except OSError as error:
        sys.exit(f"port {port} of 127.0.0.1 could not be used ({error.strerror}): choose another with --port")
    with example:
        sys.stdout.write(f"answer URL: {example.url}/answer; the PIN is {PIN}; press Ctrl-C to stop\n")
        sys.stdout.flush()
        try:
            example.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
