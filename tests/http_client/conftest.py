from __future__ import annotations

import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import pytest

from ari_conf.http_client import connect_sync, deliver
from ari_conf.http_client.fetch import Fetcher, read_response
from ari_conf.http_client.policy import MAX_DISCARDED_BYTES
from ari_conf.http_client.retry_policy import AttemptOutcome, RetryPolicy
from ari_conf.http_client.signature import Pairs
from ari_conf.http_client.url_guard import Networks
from tests.http_client.misbehaving import Receiver, receiving

LOOPBACK: Networks = (ip_network("127.0.0.0/8"),)
PATIENT = RetryPolicy(connect_ms=5000, read_ms=5000, total_ms=20_000)
"""Policy for requests that must succeed on a busy machine."""

Attempt = Callable[..., Awaitable[AttemptOutcome]]


@pytest.fixture(scope="session")
def shared_receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def receiver(shared_receiver: Receiver) -> Receiver:
    shared_receiver.seen.clear()
    return shared_receiver


@pytest.fixture(params=["deliver", "fetch"])
def attempt(request: pytest.FixtureRequest) -> Attempt:
    """Make one attempt, through the workers' client or the application's: tests expect the same of both."""

    async def one(
        url: str,
        params: Pairs = (),
        *,
        method: str = "POST",
        policy: RetryPolicy = PATIENT,
        networks: Networks = LOOPBACK,
        tokens: tuple[str, ...] = ("my_auth_token",),
    ) -> AttemptOutcome:
        if request.param == "deliver":
            connect_sync.thread_state.pools.clear()
            return deliver.attempt(
                method,
                url,
                params,
                tokens=tokens,
                policy=policy,
                allowed_networks=networks,
                remaining_ms=policy.total_ms,
            )
        async with Fetcher(networks) as fetcher:
            take = partial(read_response, limit_bytes=MAX_DISCARDED_BYTES)
            outcome, reply = await fetcher.attempt(
                method, url, params, take, tokens=tokens, policy=policy, remaining_ms=policy.total_ms, conditions={}
            )
            assert (reply is not None) == outcome.ok
            return outcome

    one.way = request.param  # type: ignore[attr-defined]
    return one


@dataclass
class Names:
    """A resolver whose answers the test sets; it repeats the last one."""

    answers: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Looked-up names. Converting an address into its binary form is not a lookup."""

    def getaddrinfo(self, host: object, port: int, *args: object, **kwargs: object) -> list[object]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name[0].isdigit() or ":" in name:
            return list(self.real(name, port, type=socket.SOCK_STREAM))
        self.asked.append(name)
        answers = self.answers.get(name)
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [found for address in addresses for found in self.real(address, port, type=socket.SOCK_STREAM)]

    real = staticmethod(socket.getaddrinfo)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    return names


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a self-signed certificate for answer.test, with its key in the same file."""
    path = tmp_path_factory.mktemp("tls") / "answer.test.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=answer.test"
    extension = ["-addext", "subjectAltName=DNS:answer.test", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run([*command.split(), *extension], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path
