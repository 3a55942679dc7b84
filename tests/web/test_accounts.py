"""The administrator's API: who may use it, and what it does. `tests/administration` tests what lies behind it."""

from __future__ import annotations

import logging
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from ari_conf.administration import audit
from ari_conf.errors import SettingsError
from ari_conf.settings import from_environment
from ari_conf.store import accounts, removals
from ari_conf.store.accounts import EDITABLE_FIELDS
from ari_conf.web.routes.accounts import AccountChange, NewAccount
from tests.web.conftest import Answered, Api, Owner, Served, account
from tests.web.test_description import CHECKS

KEY = "k" * 31 + "1"
OTHER_KEY = "alice-" + "o" * 40
KEYS = f"{KEY},alice:{OTHER_KEY}"
ALL, AUDIT = "/v1/Account/", "/v1/Audit/"


@pytest.fixture
def variables() -> dict[str, str]:
    return {"ARI_CONF_ADMIN_KEY": KEYS}


class Admin:
    """An administrator's client."""

    def __init__(self, api: Api, key: str = KEY) -> None:
        self.api, self.key = api, key

    def send(self, method: str, path: str, body: Any = None, **headers: Any) -> Answered:
        return self.api.send(method, path, body, **{"Authorization": f"Bearer {self.key}", **headers})


@pytest.fixture
def admin(api: Api) -> Admin:
    return Admin(api)


# Who may use it.


@pytest.mark.parametrize("variables", [{}, {"ARI_CONF_ADMIN_KEY": ""}], ids=["not set", "empty"])
def test_without_a_key_it_is_off(api: Api, variables: dict[str, str]):
    for key in (KEY, "", "x"):
        response = Admin(api, key).send("GET", ALL)
        assert response.status == 404 and "set ARI_CONF_ADMIN_KEY of the web process" in response.json["error"]
    for method, path in (("GET", "/admin/login"), ("POST", "/admin/login")):
        assert "ARI_CONF_ADMIN_KEY" in api.send(method, path, Authorization="").json["error"]
    response = api.send("GET", "/admin", Authorization="")
    assert (response.status, response.headers["Location"]) == (303, "/admin/login")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("short", "key 1 must have 32 to 200"),
        (f"{KEY},bob:{'x' * 31}", "key 2 must have"),
        (f"{KEY},admin:{'y' * 32}", "key 2: its name, or the key itself, is there twice"),
        (f"a:{KEY},b:{KEY}", "is there twice"),
        (f"a b:{KEY}", "its name must have"),
        ("ü" * 40, "key 1 must have"),
    ],
)
def test_a_key_that_is_not_allowed_is_refused_and_not_shown(value: str, says: str):
    with pytest.raises(SettingsError, match="ARI_CONF_ADMIN_KEY") as refused:
        from_environment({"ARI_CONF_ADMIN_KEY": value})
    assert says in str(refused.value) and value.rpartition(":")[2] not in str(refused.value)


def test_wrong_keys_are_refused_and_counted_and_the_right_one_is_taken(admin: Admin, served: Served):
    wrong = Admin(admin.api, KEY[:-1] + "2")
    answers = [wrong.send("GET", ALL) for _ in range(served.settings.auth_failures + 2)]
    assert [response.status for response in answers] == [401] * 10 + [429] * 2
    assert answers[0].headers["WWW-Authenticate"].startswith("Bearer") and int(answers[-1].headers["Retry-After"]) > 0
    assert admin.send("GET", ALL).status == 200 and Admin(admin.api, OTHER_KEY).send("GET", ALL).status == 200
    assert admin.send("GET", ALL, Authorization="").status == 401
    assert wrong.send("GET", ALL).status == 429
    # The failures of the administrator's key are not those of an account.
    assert admin.api.get("Conference/").status == 200


def test_an_account_s_token_and_the_administrator_s_key_are_not_taken_for_each_other(api: Api, admin: Admin):
    plivos = api.get("")
    assert (plivos.status, "Plivo's call for the account itself" in plivos.json["error"]) == (404, True)
    assert plivos.json["objects"] == []
    for method in ("GET", "POST", "PATCH", "DELETE"):
        assert api.send(method, "").status == 404
    assert api.send("GET", ALL).status == api.send("POST", ALL).status == api.send("GET", AUDIT).status == 404
    assert Admin(api, api.token).send("GET", ALL).status == 401
    assert admin.send("GET", "/v1/Account/A/Conference/").status == 401
    assert api.get("Conference/", Authorization=f"Bearer {KEY}").status == 401


def test_keys_and_tokens_are_in_no_log(admin: Admin, caplog: pytest.LogCaptureFixture, capsys: Any):
    with caplog.at_level(logging.DEBUG):
        made = admin.send("POST", ALL, {"auth_id": "acme", "auth_token": "t" * 40}).json
        Admin(admin.api, "w" * 40).send("GET", ALL)
        admin.send("PATCH", ALL + "acme/", {"rotate_token": True})
    said = caplog.text + "".join(capsys.readouterr())
    assert made["auth_token"] == "t" * 40 and "account administered" in said
    assert not [secret for secret in (KEY, "t" * 40, "w" * 40) if secret in said]


# What it does.


def test_an_account_is_created_with_generated_or_own_id_and_token(admin: Admin, owner: Owner):
    response = admin.send("POST", ALL, {"answer_url": "https://a.example/", "max_members": 50})
    assert response.status == 201
    made = response.json
    record = accounts.get(owner.redis, made["account"]["auth_id"])
    assert record.token == made["auth_token"] and (record.answer_url, record.max_members) == ("https://a.example/", 50)
    assert len(record.auth_id) == 20 and made["account"]["state"] == "active"
    own = {"auth_id": "acme", "auth_token": "t" * 40}
    assert admin.send("POST", ALL, own).json["auth_token"] == "t" * 40
    assert Api(admin.api.port, "acme", "t" * 40).get("Conference/").status == 200
    again = admin.send("POST", ALL, own)
    assert again.status == 409 and "account acme already exists" in again.json["error"]


def test_a_form_works_like_json(admin: Admin, owner: Owner):
    form = urlencode({"auth_id": "acme", "max_members": "7", "answer_url": "https://a.example/"}).encode()
    made = admin.api.send(
        "POST", ALL, raw=form, Authorization=f"Bearer {KEY}", Content_Type="application/x-www-form-urlencoded"
    )
    assert made.status == 201 and accounts.get(owner.redis, "acme").max_members == 7


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"answer_ulr": "https://a.example/"}, "answer_ulr: there is no such parameter"),
        ({"auth_id": "a b"}, "expected 1 to 40 letters and digits"),
        ({"auth_token": "short"}, "16 to 100 letters and digits"),
        ({"answer_url": "ftp://a.example"}, "answer_url: 'ftp://a.example' is not allowed"),
        ({"max_members": 0}, "max_members"),
        ({"max_members": "many"}, "max_members"),
        ({"answer_url": 7}, "answer_url"),
        ({"removed": True}, "removed: there is no such parameter"),
        ([], "the body must be a JSON object"),
    ],
)
def test_what_is_not_allowed_is_named_and_nothing_is_created(admin: Admin, owner: Owner, body: Any, says: str):
    response = admin.send("POST", ALL, body)
    assert response.status == 400 and says in response.json["error"]
    assert accounts.ids(owner.redis) == ["A"]


def test_every_field_of_an_account_can_be_given_and_read(admin: Admin):
    assert set(EDITABLE_FIELDS) < set(NewAccount.model_fields) and set(EDITABLE_FIELDS) < set(
        AccountChange.model_fields
    )
    read = admin.send("GET", ALL + "A/").json["account"]
    assert set(EDITABLE_FIELDS) < set(read)


def test_no_reply_but_those_of_creation_and_rotation_has_a_token(admin: Admin, api: Api):
    texts = [admin.send("GET", path).text for path in (ALL, ALL + "A/", AUDIT)]
    texts.append(admin.send("PATCH", ALL + "A/", {"max_members": 30}).text)
    rotated = admin.send("PATCH", ALL + "A/", {"rotate_token": True}).json
    texts += [admin.send("GET", path).text for path in (ALL, ALL + "A/", AUDIT)]
    texts.append(admin.send("DELETE", ALL + "A/").text)
    texts.append(admin.send("GET", ALL + "A/").text)
    assert not [text for text in texts if api.token.encode() in text or rotated["auth_token"].encode() in text]


def test_fields_change_and_a_url_is_removed(admin: Admin, owner: Owner):
    for method in ("PATCH", "POST"):
        given = {"answer_url": "https://a.example/", "hangup_url": "https://a.example/h", "max_members": None}
        assert admin.send(method, ALL + "A/", given).json["account"]["answer_url"] == "https://a.example/"
        assert "auth_token" not in admin.send(method, ALL + "A/", {"answer_url": ""}).json
        record = accounts.get(owner.redis, "A")
        assert (record.answer_url, record.hangup_url, record.max_members) == (None, "https://a.example/h", 20)
    nothing = admin.send("PATCH", ALL + "A/", {})
    assert nothing.status == 400 and "nothing to change" in nothing.json["error"]
    assert admin.send("PATCH", ALL + "nobody/", {"max_members": 5}).status == 404


def test_a_token_is_rotated_and_the_old_one_is_kept_as_asked(admin: Admin, api: Api):
    rotated = admin.send("PATCH", ALL + "A/", {"rotate_token": True, "old_token_hours": 1}).json
    assert len(rotated["auth_token"]) == 40 and len(rotated["account"]["old_tokens_until"]) == 1
    assert api.get("Conference/").status == Api(api.port, "A", rotated["auth_token"]).get("Conference/").status == 200
    own = admin.send("PATCH", ALL + "A/", {"auth_token": "n" * 40, "old_token_hours": 0}).json
    assert own["auth_token"] == "n" * 40 and own["account"]["old_tokens_until"] == []
    assert api.get("Conference/").status == 401
    assert Api(api.port, "A", "n" * 40).get("Conference/").status == 200


def test_accounts_are_listed_page_by_page(admin: Admin, served: Served):
    for n in range(5):
        account(served, f"B{n}")
    first = admin.send("GET", ALL + "?limit=4").json
    assert [one["auth_id"] for one in first["objects"]] == ["A", "B0", "B1", "B2"]
    assert first["meta"]["total_count"] == 6 and first["meta"]["next"] == "/v1/Account/?limit=4&offset=4"
    assert [one["auth_id"] for one in admin.send("GET", first["meta"]["next"]).json["objects"]] == ["B3", "B4"]
    assert admin.send("GET", ALL + "?search=b3").json["meta"]["total_count"] == 1
    for query in ("limit=0", "limit=101", "offset=-1", "page=2"):
        assert admin.send("GET", f"{ALL}?{query}").status == 400


def test_an_account_with_calls_is_removed_only_with_a_choice(admin: Admin, owner: Owner, api: Api):
    owner.joins("ann")
    refused = admin.send("DELETE", ALL + "A/")
    assert refused.status == 409 and "calls=end" in refused.json["error"] and api.get("Conference/").status == 200
    assert admin.send("DELETE", ALL + "A/?calls=maybe").status == 400
    begun = admin.send("DELETE", ALL + "A/?calls=keep")
    assert begun.status == 202
    found = begun.json["account"]
    assert (found["state"], found["removal"]["phase"], found["removal"]["left"]) == (
        "being removed",
        "calls",
        {"calls": 1, "conferences": 1},
    )
    # From now on it exists for nobody, and its progress is read.
    assert api.get("Conference/").status == 401
    assert admin.send("GET", ALL + "A/").json["account"]["removal"]["calls"] == "keep"
    assert admin.send("GET", ALL).json["objects"][0]["state"] == "being removed"
    assert admin.send("PATCH", ALL + "A/", {"max_members": 5}).status == 404
    again = admin.send("DELETE", ALL + "A/", {"calls": "end", "purge": True}).json["account"]["removal"]
    assert (again["calls"], again["purge"]) == ("end", True)
    assert removals.get(owner.redis, "A").purge
    assert admin.send("DELETE", ALL + "nobody/").status == admin.send("GET", ALL + "nobody/").status == 404


def test_each_change_is_in_the_audit_log_with_the_key_s_name(admin: Admin, api: Api):
    Admin(api, OTHER_KEY).send("POST", ALL, {"auth_id": "acme"})
    admin.send("PATCH", ALL + "acme/", {"max_members": 5})
    admin.send("DELETE", ALL + "A/")
    found = admin.send("GET", AUDIT).json
    told = [(one["who"], one["via"], one["action"], one["auth_id"]) for one in found["objects"]]
    assert told == [
        ("admin", "api", "removal begun", "A"),
        ("admin", "api", "changed", "acme"),
        ("alice", "api", "created", "acme"),
    ]
    assert found["objects"][1]["details"] == {"max_members": "20 → 5"} and found["meta"]["total_count"] == 3
    assert admin.send("GET", AUDIT + "?auth_id=acme&limit=1&offset=1").json["objects"][0]["action"] == "created"


def test_calls_generated_from_the_description_are_answered_as_it_says(admin: Admin):
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{admin.api.port}/openapi.json")
    schema = schema.include(path_regex="^/v1/(Account/({auth_id}/)?|Audit/)$")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 6
    for operation in operations:

        @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy())
        def holds(case: schemathesis.Case) -> None:
            if "auth_id" in case.path_parameters:
                case.path_parameters["auth_id"] = "A"
            case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"}, checks=CHECKS)

        holds()


# The page.


def log_in(api: Api, key: str = KEY, **headers: str) -> Answered:
    form = urlencode({"key": key}).encode()
    kind = "application/x-www-form-urlencoded"
    return api.send("POST", "/admin/login", raw=form, Authorization="", Content_Type=kind, **headers)


class Page:
    """A browser that is logged in as an administrator."""

    def __init__(self, api: Api, key: str = KEY) -> None:
        self.api = api
        self.morsel = SimpleCookie(log_in(api, key).headers["Set-Cookie"])["ari_conf_admin"]

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answered:
        ours = {"Sec-Fetch-Site": "same-origin", "X-Requested-With": "ari_conf"}
        ours |= {"Origin": f"http://127.0.0.1:{self.api.port}"} if method != "GET" else {}
        cookie = f"ari_conf_admin={self.morsel.value}"
        given = ours | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.api.send(method, path, body, Cookie=cookie, Authorization="", **given)


@pytest.fixture
def page(api: Api) -> Page:
    return Page(api)


def test_a_login_leads_to_the_page_and_its_cookie_is_of_use_for_nothing_else(page: Page, api: Api, owner: Owner):
    morsel = page.morsel
    assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "strict", "/")
    assert page.send("GET", "/admin").status == page.send("GET", "/admin/").status == 200
    assert page.send("GET", "/admin/me").json["name"] == "admin"
    assert page.send("GET", ALL).status == 200
    assert page.send("POST", ALL, {"auth_id": "acme"}).status == 201
    assert audit.read(owner.redis)[1][0].via == "page"
    assert page.send("GET", "Conference/").status == 401 and page.send("GET", "/").status == 303
    kept = b"".join(owner.redis.get(key) for key in owner.redis.scan_iter("ari_conf:admin-session:*"))
    assert KEY.encode() not in kept and morsel.value.encode() not in kept
    # A session of an account is none of an administrator.
    assert api.send("GET", ALL, Authorization="", Cookie=f"ari_conf={morsel.value}").status == 401


def test_another_site_can_send_nothing(page: Page, owner: Owner):
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Origin": "https://evil.example"},
        {"X_Requested_With": "", "Origin": ""},
    ):
        assert page.send("POST", ALL, {"auth_id": "acme"}, **headers).status == 403
    assert log_in(page.api, Sec_Fetch_Site="cross-site").status == 403
    assert accounts.ids(owner.redis) == ["A"]


def test_wrong_keys_lead_back_to_the_form_until_there_are_too_many(api: Api, served: Served):
    places = [log_in(api, "wrong").headers["Location"] for _ in range(served.settings.auth_failures + 1)]
    assert places == ["/admin/login?error=wrong"] * 10 + ["/admin/login?error=often"]


def test_a_session_ends_with_logout_and_with_its_key(page: Page, api: Api, owner: Owner):
    other = Page(api, OTHER_KEY)
    assert other.send("GET", "/admin/me").json["name"] == "alice"
    assert other.send("POST", "/admin/logout").status == 303
    assert other.send("GET", ALL).status == 401 and other.send("GET", "/admin").status == 303
    assert page.send("GET", ALL).status == 200
    given = {"ARI_CONF_REDIS_URL": owner.url, "ARI_CONF_ADMIN_KEY": "n" * 40}
    with Served(from_environment(given), owner) as changed:
        page.api = Api(changed.port, "A", api.token)
        assert page.send("GET", ALL).status == 401


def test_the_page_causes_no_login_prompt_of_the_browser(api: Api):
    response = api.send("GET", ALL, Authorization="", X_Requested_With="ari_conf")
    assert (response.status, response.headers["WWW-Authenticate"]) == (401, None)
