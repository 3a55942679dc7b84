"""Tests of the event stream: changes arrive within a second, snapshot and changes agree, and no client delays
others."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ari_conf.core import effects as do
from ari_conf.settings import from_environment
from ari_conf.store import accounts
from ari_conf.web import account_feeds, live_view
from ari_conf.web.routes import event_stream
from tests import redis as redis_of
from tests.lateness import SOON_S, Patience, took_s
from tests.web.conftest import Api, Owner, Served, account, basic
from tests.web.test_dashboard_page import Browser

WITHIN_S = 1.0


class Listener:
    def __init__(self, api: Api, **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=90)
        given = headers or {"Authorization": basic(api.auth_id, api.token)}
        self.connection.request("GET", f"/v1/Account/{api.auth_id}/Events/", headers=given)
        self.response = self.connection.getresponse()
        self.view: live_view.View = {}
        self.heartbeats = 0
        self.ids: list[int] = []

    def next(self) -> tuple[str, Any]:
        """Return the next event, or ("", None) if the stream has ended."""
        found: dict[str, str] = {}
        while line := self.response.readline().decode():
            if line == "\n" and "event" in found:
                self.ids.append(int(found["id"]))
                return found["event"], json.loads(found["data"])
            self.heartbeats += line.startswith(":")
            name, _, value = line.rstrip("\n").partition(": ")
            found[name] = value
        return "", None

    def follow(self) -> str:
        kind, response = self.next()
        if kind in ("snapshot", "change"):
            self.view = response if kind == "snapshot" else live_view.apply_change(self.view, response)
        return kind

    def until(self, seen: Callable[[live_view.View], bool]) -> float:
        """Follow the stream until that state, and return the seconds that it took, less this machine's delay."""
        began = time.monotonic()
        while not seen(self.view):
            assert self.follow()
        return took_s(began)

    def members(self) -> dict[str, dict[str, Any]]:
        """Return the members by call."""
        return {m["call_uuid"]: m for one in self.view.values() for m in one["members"].values()}

    def close(self) -> None:
        self.response.close()
        self.connection.close()


@contextmanager
def listening(api: Api, **headers: str) -> Iterator[Listener]:
    listener = Listener(api, **headers)
    try:
        yield listener
    finally:
        listener.close()


def fresh(api: Api) -> live_view.View:
    with listening(api) as other:
        assert other.follow() == "snapshot"
        return other.view


def eventually(holds: Callable[[], bool]) -> None:
    patience = Patience(SOON_S)
    while not holds():
        assert not patience.over
        time.sleep(0.01)


def test_it_begins_with_what_is(api: Api, owner: Owner):
    owner.joins("ann")
    with listening(api) as ear:
        assert ear.response.status == 200
        assert ear.response.headers["Content-Type"].startswith("text/event-stream")
        assert ear.response.headers["X-Accel-Buffering"] == "no"
        kind, response = ear.next()
        assert kind == "snapshot"
        (conference,) = response.values()
        assert conference["conference_name"] == "standup"
        assert [m["call_uuid"] for m in conference["members"].values()] == ["call-ann"]


def test_each_thing_that_happens_is_there_within_a_second_and_agrees_with_a_fresh_snapshot(api: Api, owner: Owner):
    with listening(api) as ear:
        assert ear.follow() == "snapshot"
        assert ear.view == {}

        def happens(what: Callable[[], Any], seen: Callable[[live_view.View], bool]) -> None:
            what()
            assert ear.until(seen) < WITHIN_S
            assert fresh(api) == ear.view

        happens(lambda: owner.joins("ann"), lambda view: "call-ann" in ear.members())
        happens(lambda: owner.joins("bob"), lambda view: "call-bob" in ear.members())
        happens(lambda: owner.joins("eve", "other"), lambda view: len(view) == 2)
        happens(lambda: api.post("Conference/standup/Member/1/Mute/"), lambda view: ear.members()["call-ann"]["muted"])
        happens(
            lambda: api.post("Conference/standup/Member/2/Hold/"),
            lambda view: ear.members()["call-bob"]["state"] == "held",
        )
        happens(lambda: api.post("Conference/standup/Lock/"), lambda view: any(c["locked"] for c in view.values()))
        happens(lambda: api.post("Conference/other/Record/"), lambda view: any(c["recording"] for c in view.values()))
        happens(lambda: owner.plays(lambda s: s.hang_up("ann")), lambda view: "call-ann" not in ear.members())
        happens(lambda: api.delete("Conference/other/"), lambda view: len(view) == 1)
        happens(lambda: owner.plays(lambda s: s.hang_up("bob")), lambda view: view == {})
        assert ear.ids == sorted(set(ear.ids))


def test_another_account_hears_nothing_of_it(api: Api, owner: Owner, served: Served):
    with listening(account(served, "B")) as other, listening(api) as ear:
        assert (other.follow(), ear.follow()) == ("snapshot", "snapshot")
        owner.joins("ann")
        ear.until(lambda view: bool(view))
        owner.joins("eve", "standup", auth="B")
        assert other.until(lambda view: bool(view)) < WITHIN_S
        assert list(other.members()) == ["call-eve"]
        assert list(ear.members()) == ["call-ann"]


def test_talking_is_detected_while_a_client_watches(api: Api, owner: Owner):
    owner.joins("ann")
    owner.joins("bob")
    assert owner.stage.all(do.DetectTalking) == []
    with listening(api) as ear:
        eventually(lambda: len(owner.stage.all(do.DetectTalking)) == 2)
        owner.plays(lambda stage: stage.talk("ann"))
        assert ear.until(lambda view: any(m["talking"] and m["floor"] for m in ear.members().values())) < WITHIN_S
        owner.plays(lambda stage: stage.fall_silent("ann"))
        assert ear.until(lambda view: not any(m["talking"] for m in ear.members().values())) < WITHIN_S


def test_a_conference_that_begins_while_somebody_looks_is_listened_to(api: Api, owner: Owner):
    with listening(api) as ear:
        assert ear.follow() == "snapshot"
        owner.joins("ann")
        eventually(lambda: len(owner.stage.all(do.DetectTalking)) == 1)


def test_that_somebody_looks_is_said_again_as_long_as_they_do(api: Api, owner: Owner, served: Served, monkeypatch: Any):
    monkeypatch.setattr(account_feeds, "RENEW_INTERVAL_MS", 300)
    monkeypatch.setattr(account_feeds, "LEASE_MS", 900)
    monkeypatch.setattr(account_feeds, "POLL_TIMEOUT_S", 0.1)
    owner.joins("ann")

    def until() -> int:
        conference = owner.stage.conference()
        assert conference is not None
        return conference.watched_until or 0

    with listening(api):
        eventually(lambda: until() > 0)
        owner.plays(lambda stage: stage.pass_time(0.5))
        first = until()
        eventually(lambda: until() > first)
    # The feed announces the watched account; once it is closed, nothing does.
    eventually(lambda: owner.redis.pubsub_channels("ari_conf:changes:*") == [])
    eventually(lambda: not feeds_of(served)._feeds)
    owner.plays(lambda stage: stage.pass_time(2))
    assert owner.stage.all(do.DetectTalking)[-1].silence_ms is None


def test_a_hundred_things_at_once_are_a_few_changes(api: Api, owner: Owner):
    owner.stage.account["max_members"] = 100
    owner.joins("ann")
    with listening(api) as ear:
        ear.until(lambda view: bool(view))
        before = len(ear.ids)
        for n in range(60):
            owner.joins(f"caller{n}")
        ear.until(lambda view: len(ear.members()) == 61)
        assert len(ear.ids) - before < 40
        assert fresh(api) == ear.view


def test_several_look_by_one_subscription(api: Api, owner: Owner):
    with listening(api) as one, listening(api) as two:
        assert (one.follow(), two.follow()) == ("snapshot", "snapshot")
        assert owner.redis.pubsub_numsub("ari_conf:changes:A") == [(b"ari_conf:changes:A", 1)]
        owner.joins("ann")
        one.until(bool)
        two.until(bool)
        assert one.view == two.view


def rotated(owner: Owner, _: Browser) -> None:
    accounts.rotate_token(owner.redis, "A", int(time.time() * 1000), keep_ms=0)


def removed(owner: Owner, _: Browser) -> None:
    owner.redis.hdel(accounts.KEY, "A")


def logged_out(_: Owner, browser: Browser) -> None:
    assert browser.send("POST", "/logout").status == 303


def expired(owner: Owner, _: Browser) -> None:
    for key in owner.redis.scan_iter("ari_conf:session:*"):
        owner.redis.delete(key)


@pytest.mark.parametrize(
    ("by", "ends"),
    [
        ("token", rotated),
        ("token", removed),
        ("cookie", rotated),
        ("cookie", removed),
        ("cookie", logged_out),
        ("cookie", expired),
    ],
)
def test_a_client_that_lost_its_permission_receives_nothing_more(
    api: Api, owner: Owner, monkeypatch: Any, by: str, ends: Callable[[Owner, Browser], None]
):
    """The check follows the clock, and does not wait for a quiet moment."""
    assert event_stream.PERMISSION_INTERVAL_S + 5 <= 15, "Redis may take 5 s"
    monkeypatch.setattr(event_stream, "PERMISSION_INTERVAL_S", 0.3)
    owner.joins("ann")
    owner.joins("bob")
    browser = Browser(api)
    headers = {"Cookie": browser.cookie} if by == "cookie" else {}
    over = threading.Event()

    def busy() -> None:
        while not over.wait(0.02):
            owner.plays(lambda stage: stage.talk("ann"))
            owner.plays(lambda stage: stage.fall_silent("ann"))

    with listening(api, **headers) as ear:
        assert ear.follow() == "snapshot"
        threading.Thread(target=busy, daemon=True).start()
        try:
            for _ in range(3):
                assert ear.follow() == "change"
            ends(owner, browser)
            patience = Patience(20)
            while ear.follow() == "change":
                assert not patience.over
        finally:
            over.set()
    assert ear.heartbeats == 0, "the stream was never quiet"


def test_a_permitted_client_continues_to_receive(api: Api, owner: Owner, monkeypatch: Any):
    monkeypatch.setattr(event_stream, "PERMISSION_INTERVAL_S", 0.05)
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.2)
    with listening(api) as ear:
        assert ear.follow() == "snapshot"
        accounts.rotate_token(owner.redis, "A", int(time.time() * 1000), keep_ms=3_600_000)
        while ear.heartbeats < 3:
            line = ear.response.readline()
            assert line
            ear.heartbeats += line.startswith(b":")


def test_no_more_streams_than_the_setting_says(api: Api, variables: dict[str, str], served: Served):
    most = served.settings.event_streams
    ears = [Listener(api) for _ in range(most)]
    assert {ear.response.status for ear in ears} == {200}
    response = api.get("Events/")
    assert (response.status, "event streams" in response.json["error"]) == (429, True)
    assert int(response.headers["Retry-After"]) > 0
    for ear in ears:
        ear.close()
    # A closed stream frees its place, which is noticed immediately.
    eventually(lambda: feeds_of(served).streams == 0)
    with listening(api) as ear:
        assert ear.response.status == 200


def feeds_of(served: Served) -> account_feeds.FeedRegistry:
    found: account_feeds.FeedRegistry = served.server._app.state.resources.feeds
    return found


def test_a_client_that_does_not_read_is_disconnected_and_delays_no_other(api: Api, served: Served):
    with listening(api) as ear, slow_listener(api) as slow:
        assert ear.follow() == "snapshot"
        eventually(lambda: feeds_of(served).streams == 2)
        feed, _ = feeds_of(served)._feeds["A"]
        seen = threading.Thread(target=lambda: ear.until(lambda view: "end" in view), daemon=True)
        seen.start()
        while feeds_of(served).streams == 2:
            served.loop.call_soon_threadsafe(lambda: feed._broadcast("change", {"c": {"text": "x" * 50_000}}))
            time.sleep(0.002)
        served.loop.call_soon_threadsafe(lambda: feed._broadcast("change", {"end": {}}))
        seen.join(5)
        assert not seen.is_alive()
        last = got = b"-"
        while got:
            last, got = got, slow.recv(1 << 20)
        assert not last.endswith(b"0\r\n\r\n"), "the stream is cut off, and not ended properly"
    with listening(api) as again:
        assert again.follow() == "snapshot"


@contextmanager
def slow_listener(api: Api) -> Iterator[socket.socket]:
    """Send a request and read nothing."""
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", api.port))
        slow.settimeout(5)
        authorization = basic(api.auth_id, api.token)
        asked = f"GET /v1/Account/A/Events/ HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\r\n"
        slow.sendall(asked.encode())
        yield slow


def test_when_redis_is_back_there_is_a_new_snapshot(tmp_path: Path):
    server = redis_of.start(tmp_path / "redis")
    owner = Owner(server.url)
    given = {"ARI_CONF_REDIS_URL": server.url, "ARI_CONF_API_RATE": "0"}
    with Served(from_environment(given), owner) as served:
        api = account(served, "A")
        owner.joins("ann")
        with listening(api) as ear:
            assert ear.follow() == "snapshot"
            eventually(lambda: len(owner.stage.all(do.DetectTalking)) == 1)
            server.kill()
            assert ear.follow() == "away"
            server.start()
            owner.joins("bob")
            assert ear.follow() == "snapshot"
            ear.until(lambda view: len(ear.members()) == 2)
            # Each of the client's other connections detects on its own that it is dead.
            eventually(lambda: api.get("Conference/").status == 200)
            assert fresh(api) == ear.view
    server.kill()


# Unreadable state, and exceptions.


def damaged(owner: Owner, name: str, without: str) -> None:
    """Store the conference in Redis as a version without this field would."""
    for key, text in owner.redis.hgetall("ari_conf:state:fake").items():
        found = json.loads(text)
        if found.get("name") == name:
            del found[without]
            owner.redis.hset("ari_conf:state:fake", key, json.dumps(found))


@pytest.mark.parametrize("without", ["locked", "created_at", "recordings", "auth_id"])
def test_a_conference_of_another_version_costs_itself_alone(api: Api, owner: Owner, without: str):
    owner.joins("ann", "strange")
    owner.joins("bob", "standup")
    damaged(owner, "strange", without)
    with listening(api) as ear:
        assert ear.follow() == "snapshot"
        assert ear.members().keys() == {"call-bob"}
        owner.joins("eve", "standup")
        ear.until(lambda view: "call-eve" in ear.members())
    damaged(owner, "strange", without)  # a change of the conference has rewritten it
    assert api.get("Conference/strange/").status == 404
    assert api.get("Conference/standup/").json["conference_member_count"] == "2"


def test_a_call_of_another_version_costs_itself_alone(api: Api, owner: Owner):
    for name in ("ann", "bob"):
        owner.joins(name)
    found = json.loads(owner.redis.hget("ari_conf:state:fake", "call-ann"))
    del found["caller_name"]
    owner.redis.hset("ari_conf:state:fake", "call-ann", json.dumps(found))
    with listening(api) as ear:
        assert ear.follow() == "snapshot"
        assert ear.members().keys() == {"call-bob"}
    assert [m["call_uuid"] for m in api.get("Conference/standup/").json["members"]] == ["call-bob"]


def test_a_stream_that_raises_restarts_and_others_continue(api: Api, owner: Owner, served: Served, monkeypatch: Any):
    other, times, difference = account(served, "B"), list[int](), live_view.diff

    def breaks(old: Any, new: Any) -> Any:
        if any(one["conference_name"] == "cursed" for one in new.values()) and len(times) < 2:
            times.append(1)
            raise ZeroDivisionError
        return difference(old, new)

    monkeypatch.setattr(live_view, "diff", breaks)
    owner.joins("eve", auth="B")
    with listening(other) as theirs, listening(api) as ear:
        assert (theirs.follow(), ear.follow()) == ("snapshot", "snapshot")
        owner.joins("ann", "cursed")
        assert ear.follow() == "away"
        ear.until(lambda view: "call-ann" in ear.members())
        owner.joins("bob", auth="B")
        assert theirs.follow() == "change"
    assert not served.server.broken


def test_events_for_one_client_are_bounded_in_bytes():
    stream = account_feeds.ClientStream()
    stream.put(b"x" * 100_000_000)
    assert not stream.too_slow, "a snapshot may be large"
    stream.put(b"y")
    assert stream.too_slow and stream.ended.is_set()
    other = account_feeds.ClientStream()
    for _ in range(9):
        other.put(b"x" * 500_000)
    assert other.too_slow


def test_while_it_ends_no_more_streams_are_opened(api: Api, served: Served):
    """The server would have to wait for a new stream, since a stream never ends on its own."""
    served.loop.call_soon_threadsafe(feeds_of(served).end)
    eventually(lambda: api.get("Events/").status == 503)


def test_open_streams_do_not_delay_the_end_of_the_process(api: Api, served: Served):
    with listening(api) as ear:
        assert ear.follow() == "snapshot"
        began = time.monotonic()
        served.__exit__()
        assert time.monotonic() - began < 9, "the server would wait ten seconds for an event stream"
        assert ear.next() == ("", None)
