"""Tests of the nginx example in docs/operations/reverse-proxy.md, used word by word before a real `web`."""

from __future__ import annotations

import http.client
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from ari_conf.local.processes import free_port
from ari_conf.settings import from_environment
from tests.lateness import took_s
from tests.web.conftest import Answered, Api, Owner, Served, account, basic, part
from tests.web.test_dashboard_page import cookie_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations" / "reverse-proxy.md"
MAIN = """
daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    {server}
}}
"""


class Proxied:
    """Client that sends requests through nginx, from a chosen address of this machine."""

    def __init__(self, port: int, api: Api) -> None:
        self.port, self.api = port, api
        self._trust = ssl.create_default_context()
        self._trust.check_hostname, self._trust.verify_mode = False, ssl.CERT_NONE

    def open(self, method: str, path: str, raw: bytes | None = None, source: str = "127.0.0.1", **headers: str):
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        wire = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=10, context=self._trust, source_address=(source, 0)
        )
        wire.request(method, path, raw, given)
        return wire.getresponse()

    def send(self, method: str, path: str, raw: bytes | None = None, **more: str) -> Answered:
        return Answered(self.open(method, path, raw, **more))

    def get(self, path: str, token: str | None = None, **more: str) -> Answered:
        return self.send("GET", path, Authorization=basic("A", token or self.api.token), **more)


@pytest.fixture
def proxied(owner: Owner, tmp_path: Path) -> Iterator[Proxied]:
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert program, "nginx is not installed: `make test` installs it"
    port = free_port()
    given = {"ARI_CONF_REDIS_URL": owner.url, "ARI_CONF_PUBLIC_URL": f"https://localhost:{port}"}
    given |= {"ARI_CONF_AUTH_FAILURES": "3"}
    with Served(from_environment(given), owner) as served:
        (server,) = re.findall(r"```nginx\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
        for old, new in (
            ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
            ("127.0.0.1:8080", f"127.0.0.1:{served.port}"),
            ("/etc/ssl/conference.example.com", str(tmp_path)),
        ):
            assert server.count(old) >= 1
            server = server.replace(old, new)
        (tmp_path / "nginx.conf").write_text(MAIN.format(folder=tmp_path, server=server))
        certificate(tmp_path)
        process = subprocess.Popen([program, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)])
        try:
            proxied = Proxied(port, account(served, "A"))
            until_it_answers(proxied, process)
            yield proxied
        finally:
            process.terminate()
            process.wait(10)


def certificate(folder: Path) -> None:
    files = ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run([*make, *files, "-days", "2", "-subj", "/CN=localhost"], check=True, capture_output=True)


def until_it_answers(proxied: Proxied, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            proxied.send("GET", "/login")
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)


def test_proxy_example_keeps_its_promises(proxied: Proxied, owner: Owner):
    # The login: the cookie is for HTTPS only, and the page's requests are recognized as same-origin.
    form = urlencode({"auth_id": "A", "auth_token": proxied.api.token}).encode()
    kind = {"Content_Type": "application/x-www-form-urlencoded", "Origin": f"https://127.0.0.1:{proxied.port}"}
    response = proxied.send("POST", "/login", form, **kind)
    assert (response.status, response.headers["Location"]) == (303, "/")
    cookie = cookie_of(response)
    assert cookie["secure"] and cookie["httponly"]
    owner.joins("ann", "stand/up ☕ %")
    mute = f"/v1/Account/A/Conference/{part('stand/up ☕ %')}/Member/all/Mute/"
    given = {"Cookie": f"ari_conf={cookie.value}", "X_Requested_With": "ari_conf"}
    assert proxied.send("POST", mute, Origin=f"https://localhost:{proxied.port}", **given).status == 202
    assert proxied.send("POST", mute, Origin="https://evil.example", **given).status == 403
    # Names arrive unchanged, however long they are.
    for name in ("..", "a/../b", "☕" * 10_000, "%2F"):
        response = proxied.get(f"/v1/Account/A/Conference/{part(name)}/")
        assert (response.status, response.json["error"]) == (404, "conference not found")
    # These paths are not available from outside.
    assert [proxied.send("GET", path).status for path in ("/metrics", "/healthz", "/readyz")] == [404] * 3


def test_events_come_as_they_happen(proxied: Proxied, owner: Owner):
    stream = proxied.open("GET", "/v1/Account/A/Events/", Authorization=basic("A", proxied.api.token))
    assert stream.status == 200

    def until(event: str) -> None:
        while not stream.readline().startswith(f"event: {event}".encode()):
            pass

    until("snapshot")
    began = time.monotonic()
    owner.joins("ann")
    until("change")
    assert took_s(began) < 1
    stream.close()


def test_failures_are_counted_by_the_real_address_of_the_client(proxied: Proxied):
    path = "/v1/Account/A/Conference/"
    wrong = [proxied.get(path, "wrong", source="127.0.0.2", X_Forwarded_For=f"10.0.0.{n}") for n in range(4)]
    assert [response.status for response in wrong] == [401, 401, 401, 429]
    assert proxied.get(path, source="127.0.0.2").status == 200, "the right token is always accepted"
    assert proxied.get(path, source="127.0.0.3").status == 200
