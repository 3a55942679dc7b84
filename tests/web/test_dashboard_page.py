"""Tests of the page's files, logging in and out, and the permissions of the cookie."""

from __future__ import annotations

import re
import time
from http.cookies import Morsel, SimpleCookie
from typing import Any
from urllib.parse import urlencode

import pytest
from redis import Redis

from ari_conf.recordings import transcribers
from ari_conf.settings import from_environment
from ari_conf.store import accounts
from ari_conf.web import sessions
from ari_conf.web.routes import dashboard
from tests.lateness import Patience
from tests.web.conftest import Answered, Api, Owner, Served, account

FORM = "application/x-www-form-urlencoded"
BY_PAGE = {"X-Requested-With": "ari_conf"}
MUTE = "Conference/standup/Member/all/Mute/"


def log_in(api: Api, token: str | None = None, **headers: str) -> Answered:
    form = urlencode({"auth_id": api.auth_id, "auth_token": token or api.token}).encode()
    return api.send("POST", "/login", raw=form, Authorization="", Content_Type=FORM, **headers)


def cookie_of(response: Answered) -> Morsel[str]:
    return SimpleCookie(response.headers["Set-Cookie"])["ari_conf"]


class Browser:
    """A logged-in browser: by default it sends the same as a browser with the dashboard page."""

    def __init__(self, api: Api, **headers: str) -> None:
        self.api = api
        self.cookie = f"ari_conf={cookie_of(log_in(api, **headers)).value}"
        self.origin = f"http://127.0.0.1:{api.port}"

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answered:
        ours = {"Sec-Fetch-Site": "same-origin", "X-Requested-With": "ari_conf"}
        ours |= {"Origin": self.origin} if method != "GET" else {}
        given = ours | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.api.send(method, path, body, Cookie=self.cookie, Authorization="", **given)


@pytest.fixture
def browser(api: Api) -> Browser:
    return Browser(api)


# Logging in and out.


def test_the_form_leads_to_the_page_with_a_cookie_that_no_script_and_no_other_site_has(api: Api, owner: Owner):
    response = log_in(api)
    assert (response.status, response.headers["Location"]) == (303, "/")
    cookie = cookie_of(response)
    assert (cookie["httponly"], cookie["samesite"], cookie["path"], cookie["max-age"]) == (True, "strict", "/", "43200")
    assert not cookie["secure"]
    (key,) = owner.redis.lrange("ari_conf:sessions:A", 0, -1)
    assert set(owner.redis.keys("ari_conf:session*")) == {key, b"ari_conf:sessions:A"}
    kept = owner.redis.get(key)
    assert 0 < owner.redis.ttl(key) <= 43200
    for secret in (cookie.value, api.token):
        assert secret.encode() not in key + kept
    assert api.token not in cookie.value


def test_behind_https_the_cookie_is_never_sent_without_it(api: Api):
    """The test's address is a trusted proxy, by the setting's default."""
    assert cookie_of(log_in(api, X_Forwarded_Proto="https"))["secure"]


@pytest.mark.parametrize("trusted", ["10.9.8.0/24"])
def test_an_unknown_proxy_is_not_trusted(owner: Owner, trusted: str):
    given = {"ARI_CONF_REDIS_URL": owner.url, "ARI_CONF_TRUSTED_PROXIES": trusted, "ARI_CONF_AUTH_FAILURES": "2"}
    with Served(from_environment(given), owner) as served:
        api = account(served, "A")
        assert not cookie_of(log_in(api, X_Forwarded_Proto="https"))["secure"]
        said = [log_in(api, "wrong", X_Forwarded_For=f"10.0.0.{n}").headers["Location"] for n in range(3)]
        assert said == ["/login?error=wrong", "/login?error=wrong", "/login?error=often"], "counted by its own address"


def test_a_proxy_of_a_network_that_is_trusted_is_believed(owner: Owner):
    given = {"ARI_CONF_REDIS_URL": owner.url, "ARI_CONF_TRUSTED_PROXIES": "10.9.8.0/24, 127.0.0.0/8"}
    given |= {"ARI_CONF_AUTH_FAILURES": "2"}
    with Served(from_environment(given), owner) as served:
        api = account(served, "A")
        assert cookie_of(log_in(api, X_Forwarded_Proto="https"))["secure"]
        said = [log_in(api, "wrong", X_Forwarded_For=f"10.0.0.{n}").headers["Location"] for n in range(3)]
        assert said == ["/login?error=wrong"] * 3, "each address has its own count"


def test_a_wrong_token_leads_back_to_the_form_until_there_are_too_many(api: Api, served: Served):
    response = log_in(api, "wrong")
    assert (response.status, response.headers["Location"], response.headers["Set-Cookie"]) == (
        303,
        "/login?error=wrong",
        None,
    )
    for _ in range(served.settings.auth_failures):
        response = log_in(api, "wrong")
    assert response.headers["Location"] == "/login?error=often"
    assert log_in(api).headers["Location"] == "/", "the right token is always accepted"


def test_an_account_has_so_many_log_ins_and_no_more(api: Api, owner: Owner, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sessions, "MAX_PER_ACCOUNT", 3)
    browsers = [Browser(api) for _ in range(5)]
    assert [one.send("GET", "Conference/").status for one in browsers] == [401, 401, 200, 200, 200]
    browsers[3].send("POST", "/logout")
    browsers.append(Browser(api))
    assert [one.send("GET", "Conference/").status for one in browsers] == [401, 401, 200, 401, 200, 200]
    assert len(owner.redis.keys("ari_conf:session*")) == 4


class TestOften:
    @pytest.fixture
    def variables(self) -> dict[str, str]:
        return {"ARI_CONF_API_RATE": "5"}

    def test_logging_in_is_counted_as_a_request(self, api: Api):
        said = [log_in(api).headers["Location"] for _ in range(20)]
        assert set(said) == {"/", "/login?error=often"}


def test_nobody_is_logged_in_from_another_site(api: Api):
    assert log_in(api, Origin="https://evil.example").status == 403
    assert log_in(api, Sec_Fetch_Site="cross-site").status == 403
    assert log_in(api, Origin="null").status == 403


def test_a_browser_without_a_session_is_sent_to_the_form(api: Api):
    response = api.get("/", Authorization="")
    assert (response.status, response.headers["Location"]) == (303, "/login")
    form = api.get("/login", Authorization="")
    assert (form.status, form.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b'action="/login"' in form.text
    assert api.get("/login/me", Authorization="").status == 401


def test_a_session_gets_the_dashboard_and_its_account(browser: Browser):
    assert browser.send("GET", "/").text == (dashboard.FOLDER / "index.html").read_bytes()
    response = browser.send("GET", "/login/me").json
    assert response["auth_id"] == "A"
    assert abs(response["now_ms"] - time.time() * 1000) < 5000


def test_the_dashboard_learns_if_transcription_is_available(browser: Browser, owner: Owner):
    """It cannot be if there are workers for it and none has an engine."""

    def offered() -> bool:
        return bool(browser.send("GET", "/login/me").json["transcribes"])

    assert offered(), "no worker has reported yet"
    transcribers.report(owner.redis, "w1", "")
    assert not offered()
    transcribers.report(owner.redis, "w2", "tiny.en")
    assert offered()
    owner.redis.zadd(transcribers.KEY, {"w2 tiny.en": 1})
    assert not offered(), "that worker is gone"


def test_logging_out_ends_it_at_the_server_too(browser: Browser, owner: Owner):
    response = browser.send("POST", "/logout")
    assert (response.status, response.headers["Location"], cookie_of(response)["max-age"]) == (303, "/login", "0")
    assert browser.send("GET", "Conference/").status == 401
    assert owner.redis.keys("ari_conf:session*") == []


# The permissions of the cookie.


def test_the_cookie_calls_the_api_of_its_account(browser: Browser, owner: Owner):
    owner.joins("ann")
    assert browser.send("GET", "Conference/").json["conferences"] == ["standup"]
    assert browser.send("POST", MUTE).status == 202
    assert browser.send("DELETE", MUTE).status == 204


NOT_OURS = (
    {"X_Requested_With": ""},
    {"X_Requested_With": "XMLHttpRequest"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "", "Sec_Fetch_Site": ""},
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_nothing_is_done_that_our_page_did_not_ask_for(browser: Browser, owner: Owner, method: str):
    owner.joins("ann")
    for headers in NOT_OURS:
        response = browser.send(method, MUTE, **headers)
        assert (response.status, set(response.json)) == (403, {"api_id", "error"}), headers
    assert not owner.commands


def test_nor_can_another_site_read(browser: Browser):
    assert browser.send("GET", "Conference/", Sec_Fetch_Site="cross-site").status == 403
    assert browser.send("GET", "Conference/", Origin="https://evil.example").status == 403
    assert browser.send("GET", "Conference/", Sec_Fetch_Site="none").status == 200


def test_behind_a_proxy_the_origin_is_that_of_public_url(owner: Owner):
    given = {"ARI_CONF_REDIS_URL": owner.url, "ARI_CONF_PUBLIC_URL": "https://conference.example/"}
    with Served(from_environment(given), owner) as served:
        browser = Browser(account(served, "A"))
        owner.joins("ann")
        assert browser.send("POST", MUTE, Origin="https://conference.example").status == 202
        assert browser.send("POST", MUTE, Origin="http://conference.example").status == 403


def test_no_answer_lets_another_site_ask(browser: Browser):
    response = browser.send("OPTIONS", MUTE, Origin="https://evil.example", Access_Control_Request_Method="POST")
    assert response.status == 405
    assert not [name for name in response.headers if name.lower().startswith("access-control")]


def test_a_cookie_that_nobody_was_given_is_none(api: Api):
    for cookie in ("", "ari_conf=", "ari_conf=x", "ari_conf=" + "x" * 4000, "ari_conf=%00"):
        assert api.get("Conference/", Authorization="", Cookie=cookie).status == 401


def rotated(redis: Redis) -> None:
    accounts.rotate_token(redis, "A", 1000, keep_ms=0)


@pytest.mark.parametrize("end", [rotated, lambda redis: redis.hdel(accounts.KEY, "A")], ids=["token", "account"])
def test_it_ends_with_the_token_and_with_the_account(browser: Browser, owner: Owner, end: Any):
    assert browser.send("GET", "Conference/").status == 200
    end(owner.redis)
    assert browser.send("GET", "Conference/").status == 401
    assert browser.send("GET", "/").status == 303


def test_it_ends_by_itself(owner: Owner):
    given = {"ARI_CONF_REDIS_URL": owner.url, "ARI_CONF_LOGIN_HOURS": "0.0003"}
    with Served(from_environment(given), owner) as served:
        browser = Browser(account(served, "A"))
        assert browser.send("GET", "Conference/").status == 200
        patience = Patience(5)
        while browser.send("GET", "Conference/").status == 200:
            assert not patience.over


def test_the_dashboard_causes_no_login_prompt_of_the_browser(api: Api):
    """Otherwise the browser would show its own login window and not the page's form."""
    assert api.get("Conference/", Authorization="").headers["WWW-Authenticate"]
    for header in (BY_PAGE, {"Accept": "text/event-stream"}, {"Sec-Fetch-Mode": "no-cors"}):
        response = api.get("Conference/", Authorization="", **header)
        assert (response.status, response.headers["WWW-Authenticate"]) == (401, None)


# The files.


def test_the_policy_lets_nothing_run_that_is_not_ours(browser: Browser):
    for path in ("/", "/login", "/static/css/base.css"):
        headers = browser.send("GET", path).headers
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"


INLINE = re.compile(r"<style|<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|javascript:", re.IGNORECASE)


@pytest.mark.parametrize("name", [name for name in dashboard.files() if name.endswith(".html")])
def test_no_page_has_a_script_or_a_style_in_it(name: str):
    assert not INLINE.search(dashboard.files()[name].content.decode())


@pytest.mark.parametrize(
    ("settings", "allowed"),
    [
        ({}, "https://s3.us-east-1.amazonaws.com https://recordings.s3.us-east-1.amazonaws.com"),
        ({"S3_ENDPOINT": "http://10.0.0.5:8333"}, "http://10.0.0.5:8333"),
        ({"S3_ENDPOINT": "http://10.0.0.5:8333", "S3_PUBLIC_ENDPOINT": "https://s3.example"}, "https://s3.example"),
        ({"S3_ENDPOINT": "https://s3.example", "S3_PATH_STYLE": "false"}, "https://recordings.s3.example"),
    ],
)
def test_recordings_may_be_heard_from_where_they_are(settings: dict[str, str], allowed: str):
    response = dashboard.content_security_policy(
        from_environment({f"ARI_CONF_{name}": value for name, value in settings.items()})
    )
    assert f"media-src 'self' {allowed};" in response


def test_each_file_is_sent_as_what_it_is_and_again_only_if_it_is_another(api: Api):
    kinds = {"text/html", "text/css", "text/javascript", "text/plain", "image/svg+xml", "image/png"}
    for name, file in dashboard.files().items():
        response = api.get(f"/static/{name}", Authorization="")
        assert (response.status, response.text) == (200, file.content)
        kind = response.headers["Content-Type"].partition(";")[0]
        assert kind in kinds, name
        assert (kind == "text/javascript") == name.endswith(("js", "mjs"))
        again = api.get(f"/static/{name}", Authorization="", If_None_Match=f'"other", W/{response.headers["ETag"]}')
        assert (again.status, again.text) == (304, b"")


def test_nothing_else_is_to_be_had(api: Api):
    for path in (
        "..%2fpage.py",
        "../page.py",
        "%2e%2e/page.py",
        "/etc/passwd",
        "css",
        "",
        "css/../login.html",
        "x.css",
    ):
        assert api.get(f"/static/{path}", Authorization="").status == 404, path
