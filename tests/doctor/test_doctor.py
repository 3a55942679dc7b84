"""Tests of the doctor's findings about each part, healthy or broken. Redis and S3 are real; Asterisk is a fake."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from email.utils import formatdate
from pathlib import Path
from time import time
from types import SimpleNamespace

import msgspec
import pytest
import redis
from pytest_httpserver import HTTPServer

from ari_conf import doctor
from ari_conf.common import process_identity, state_version
from ari_conf.common.redis_client import connect_in_threads
from ari_conf.common.redis_keys import STATE_VERSION_KEY
from ari_conf.core.effects import PostCallback, ReportProblem
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.doctor import asterisk
from ari_conf.doctor import host as machine
from ari_conf.doctor.check import CheckFailed
from ari_conf.local import processes
from ari_conf.local.system import LocalSystem
from ari_conf.media.voices import Flite
from ari_conf.ownership import lease
from ari_conf.queues import partitioned_queue, queue_names
from ari_conf.recordings import jobs, transcribers
from ari_conf.settings import Settings, from_environment
from ari_conf.store import accounts, removals, state_store
from ari_conf.transcription import engines
from tests.lateness import took_s
from tests.tasks.whisper_server import WhisperServer

NOTHING_THERE = "127.0.0.1:1"
LEASED = 4_000_000_000_000
"""The end of a worker's lease, far in the future."""


def found(settings: Settings, part: str) -> doctor.Finding:
    return doctor.run_check(part, settings)


def problem_text(settings: Settings, part: str) -> str:
    """Return the doctor's problem with the part."""
    finding = found(settings, part)
    assert not finding.passed, finding.text
    return finding.text


def settings_of(**values: str) -> Settings:
    nowhere = {"ari_url": f"http://{NOTHING_THERE}/ari", "redis_url": f"redis://{NOTHING_THERE}/0"}
    nowhere |= {"s3_endpoint": f"http://{NOTHING_THERE}", "s3_access_key": "k", "s3_secret_key": "s"}
    return from_environment({f"ARI_CONF_{name.upper()}": value for name, value in (nowhere | values).items()})


@pytest.fixture
def pretended(httpserver: HTTPServer):
    """Yield a function that sets up a fake Asterisk with the test's answers, and returns the settings for it."""

    def pretend(
        version="22.10.1", modules=(*asterisk.MODULES, "res_websocket_client"), most_calls=0, mark="", **values
    ) -> Settings:
        running = [{"name": f"{name}.so", "status": "Running"} for name in modules]
        system = {"version": version, "entity_id": "02:00:00:00:00:07"}
        info = {"system": system, "config": {"max_channels": most_calls} if most_calls else {}}
        httpserver.expect_request("/ari/asterisk/info").respond_with_json(info)
        httpserver.expect_request("/ari/asterisk/modules").respond_with_json(running)
        httpserver.expect_request("/ari/asterisk/ping").respond_with_json({})
        httpserver.expect_request("/ari/asterisk/variable").respond_with_json({"value": mark})
        return settings_of(ari_url=httpserver.url_for("/ari"), **values)

    return pretend


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Return the settings of a real Redis and S3."""

    async def start(system: LocalSystem) -> None:
        await system.__aenter__()

    with asyncio.Runner() as runner:
        system = LocalSystem(tmp_path_factory.mktemp("stores"), components=("redis", "s3"))
        runner.run(start(system))
        yield system.settings
        runner.run(system.stop_all())


# Asterisk.


def test_an_asterisk_that_is_new_enough(pretended):
    assert "Asterisk 22.10.1" in found(pretended(), "Asterisk").text


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("18.26.4", "too old: install 20 or newer"),
        ("20.14.1", "set ARI_CONF_ARI_SOCKET=inbound"),
        ("21.9.0", "set ARI_CONF_ARI_SOCKET=inbound"),
        ("22.4.1~dfsg", "set ARI_CONF_ARI_SOCKET=inbound"),
    ],
)
def test_an_asterisk_that_is_too_old(pretended, version, says):
    assert says in problem_text(pretended(version, ari_socket="outbound"), "Asterisk")


@pytest.mark.parametrize(
    "version", ["20.15.0", "21.10.0", "22.5.0", "23.0.0", "certified/20.17-cert1", "GIT-master-1a2b"]
)
def test_versions_that_open_the_websocket(pretended, version):
    assert found(pretended(version, ari_socket="outbound"), "Asterisk").passed


def test_an_older_one_is_good_enough_for_an_inbound_websocket(pretended):
    assert found(pretended("20.5.2"), "Asterisk").passed


def test_an_asterisk_without_a_call_limit_is_a_warning(pretended):
    assert "set maxcalls in its asterisk.conf" in problem_text(pretended(), "its limits")


def test_an_asterisk_with_a_call_limit_passes(pretended):
    assert found(pretended(most_calls=1000), "its limits").text == "at most 1000 concurrent calls"


def test_an_outbound_websocket_is_a_warning(pretended):
    assert "may crash" in problem_text(pretended(ari_socket="outbound"), "its WebSocket")
    assert found(pretended(), "its WebSocket").passed


def test_an_unreachable_asterisk_fails():
    said = problem_text(settings_of(), "Asterisk")
    assert (
        f"does not respond at http://{NOTHING_THERE}/ari (" in said and "refused" in said and "ARI_CONF_ARI_URL" in said
    )


def test_an_asterisk_that_refuses_the_user(httpserver):
    httpserver.expect_request("/ari/asterisk/info").respond_with_data(status=401)
    said = problem_text(
        settings_of(ari_url=httpserver.url_for("/ari"), ari_user="joe", ari_password="hush"), "Asterisk"
    )
    assert "rejects ARI's user joe" in said and "hush" not in said


def test_each_module_that_is_missing_is_named(pretended):
    said = problem_text(
        pretended(modules=set(asterisk.MODULES) - {"bridge_softmix"}, ari_socket="outbound"), "its modules"
    )
    assert (
        "bridge_softmix" in said
        and "res_websocket_client" in said
        and "`module load" in said
        and "chan_pjsip" not in said
    )


def test_all_modules_running_passes(pretended):
    assert found(pretended(), "its modules").passed


def test_no_server_listening_for_the_websocket_fails(pretended):
    port = processes.free_port()
    said = problem_text(pretended(ari_socket="outbound", ari_listen=f"127.0.0.1:{port}"), "application")
    assert said == f"nothing listens on 127.0.0.1:{port}: start `ari-conf serve` on this machine"


async def test_asterisk_has_not_connected_and_then_it_has(pretended):
    server = await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", 0)
    listen = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    settings = pretended(ari_socket="outbound", ari_listen=listen)

    async with server:
        with pytest.raises(CheckFailed, match=f"Asterisk has not connected to `ari-conf serve` on {listen}"):
            await asyncio.to_thread(asterisk.application, settings)
        _, writer = await asyncio.open_connection(*listen.split(":"))
        assert await asyncio.to_thread(asterisk.application, settings) == f"Asterisk is connected to {listen}"
        writer.close()


def test_a_recording_folder_that_is_missing(tmp_path):
    assert "does not exist" in problem_text(settings_of(recording_folder=str(tmp_path / "none")), "recording folder")
    assert found(settings_of(recording_folder=str(tmp_path)), "recording folder").passed


def test_a_recording_folder_is_read_and_not_written(tmp_path, monkeypatch):
    settings = settings_of(recording_folder=str(tmp_path))
    allowed = os.R_OK | os.X_OK
    monkeypatch.setattr(os, "access", lambda _path, mode: mode & ~allowed == 0)
    assert found(settings, "recording folder").passed
    allowed = os.X_OK
    assert "can't read" in problem_text(settings, "recording folder")


# Redis and S3.


def test_a_good_redis_and_bucket_pass(stores):
    assert [found(stores, part).passed for part in ("Redis", "broker", "bucket")] == [True] * 3


def test_an_unreachable_redis_fails():
    assert "start it, or correct ARI_CONF_REDIS_URL" in problem_text(settings_of(), "Redis")


@contextlib.contextmanager
def configured(settings: Settings, name: str, value: str):
    import redis

    client = redis.Redis.from_url(settings.redis_url.get_secret_value())
    before = client.config_get(name)[name]
    client.config_set(name, value)
    yield
    client.config_set(name, before)


def test_a_redis_that_evicts_keys_fails(stores):
    with configured(stores, "maxmemory-policy", "allkeys-lru"):
        assert "set maxmemory-policy to noeviction" in problem_text(stores, "Redis")


def test_a_redis_without_appendonly_fails(stores):
    with configured(stores, "appendonly", "no"):
        assert "set appendonly to yes" in problem_text(stores, "Redis")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("s3_bucket", "nobodys", "correct ARI_CONF_S3_BUCKET"),
        ("s3_access_key", "nobody", "correct ARI_CONF_S3_ACCESS_KEY"),
        ("s3_secret_key", "wrong-secret", "correct ARI_CONF_S3_SECRET_KEY"),
        ("s3_endpoint", f"http://{NOTHING_THERE}", "correct ARI_CONF_S3_ENDPOINT"),
    ],
)
def test_a_bucket_that_denies_access_fails(stores, name, value, says):
    values = {"s3_endpoint": stores.s3_endpoint, "s3_access_key": "ari_conf"}
    values["s3_secret_key"] = stores.s3_secret_key.get_secret_value()
    said = problem_text(settings_of(**(values | {name: value})), "bucket")
    assert says in said and "wrong-secret" not in said


def test_an_installation_without_a_bucket_is_a_warning_and_a_bucket_without_a_key_fails(monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    said = found(from_environment({}), "bucket")
    assert said.state == "warning" and "recordings wait in Asterisk's folder: set ARI_CONF_S3_BUCKET" in said.text
    said = found(from_environment({"ARI_CONF_S3_BUCKET": "ours"}), "bucket")
    assert said.state == "failure" and "S3 needs an access key" in said.text


def test_the_transcription_engine_may_be_on_other_machines(stores, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    client = connect_in_threads(stores.redis_url.get_secret_value())
    assert "not installed here" in found(stores, "transcription").text
    transcribers.report(client, "w1", "")
    not_offered = "so the dashboard does not offer transcription: install it on the workers with"
    assert not_offered in found(stores, "transcription").text
    transcribers.report(client, "w2", "large-v3")
    assert found(stores, "transcription").text == "not installed here; workers have large-v3"
    client.delete(transcribers.KEY)
    client.close()


def test_transcriptions_given_up_for_want_of_an_engine_fail(stores, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    client = connect_in_threads(stores.redis_url.get_secret_value())
    transcribers.report(client, "w1", "")
    accounts.add(client, 0, "acme")
    for recording_id, error in (("r1", transcribers.MISSING), ("r2", "Recording duration too short")):
        job = jobs.TranscriptionJob(recording_id=recording_id, auth_id="acme", at_ms=1, error=error)
        entry = {"entry": msgspec.json.encode(job)}
        client.xadd(f"ari_conf:{jobs.TRANSCRIPTION_QUEUE}:dead-letters:acme", entry)
    said = problem_text(stores, "transcription")
    assert "no worker has a transcription engine, and 1 recording could not be transcribed: " in said
    assert "-m pip install" in said and "`ari-conf recordings retry`" in said
    client.delete(transcribers.KEY, f"ari_conf:{jobs.TRANSCRIPTION_QUEUE}:dead-letters:acme")
    client.hdel(accounts.KEY, "acme")
    client.close()


# This machine.


def test_an_ffmpeg_that_is_missing():
    assert "apt-get install ffmpeg" in problem_text(settings_of(ffmpeg="/nowhere/ffmpeg"), "ffmpeg")


def test_without_an_engine_speak_is_silent(monkeypatch):
    monkeypatch.setattr(machine, "installed_voices", lambda wish: {"WOMAN": [], "MAN": []})
    assert "no WOMAN and no MAN voice" in problem_text(settings_of(), "speech")


def test_a_configured_voice_that_is_not_installed_fails(monkeypatch):
    flite = {"WOMAN": [Flite("slt")], "MAN": [Flite("rms")]}
    monkeypatch.setattr(machine, "installed_voices", lambda wish: flite)
    assert found(settings_of(), "speech").text == "WOMAN: flite slt, MAN: flite rms"
    assert "festival, which ARI_CONF_VOICE names, is not installed" in problem_text(
        settings_of(voice="festival"), "speech"
    )


def test_clocks_that_agree(pretended, stores):
    assert found(pretended(), "clock").text == "agrees with Asterisk"
    assert found(stores, "clock").text == "agrees with Redis, S3"


@pytest.mark.parametrize(("seconds", "says"), [(60, "s ahead"), (-60, "s behind")])
def test_a_clock_that_differs_fails(monkeypatch, seconds, says):
    answer = SimpleNamespace(headers={"Date": formatdate(time() + seconds, usegmt=True)})
    monkeypatch.setattr(asterisk, "ask", lambda *_: answer)
    with pytest.raises(CheckFailed, match=f"Asterisk's is (59|60|61) {says}; run an NTP client"):
        machine.clock(settings_of())


def test_a_check_that_breaks_leaves_the_others_alone(httpserver):
    httpserver.expect_request("/ari/asterisk/info").respond_with_json(["nonsense"])
    findings = asyncio.run(doctor.run_checks(settings_of(ari_url=httpserver.url_for("/ari"))))
    assert len(findings) == len(doctor.CHECKS)
    assert "could not be checked: TypeError" in findings[0].text


# The owner of the calls.


async def _owned(url: str, name: str) -> None:
    client = state_store.connect(url)
    await lease.OwnershipLease(client, name).acquire()
    await client.aclose()


def test_the_owner_and_its_standbys_are_named(stores, pretended, httpserver):
    """The findings name the owner of this Asterisk's calls, by the name that Asterisk itself reports."""
    name = "02:00:00:00:00:07"
    settings = pretended(redis_url=stores.redis_url.get_secret_value())
    assert f"no server owns the calls of {name}: start `ari-conf serve`" in problem_text(settings, "owner")
    asyncio.run(_owned(settings.redis_url.get_secret_value(), name))
    said = found(settings, "owner")
    assert said.state == "warning" and "does not serve this Asterisk" in said.text, "Asterisk has no mark of the owner"
    client = redis.Redis.from_url(settings.redis_url.get_secret_value())
    token, realm = lease.read_status(client, name).token, lease.read_status(client, name).realm
    client.close()

    def marked(**fields: str) -> doctor.Finding:
        kept = {"fencing_token": token, "realm": realm, "name": name, "identity": process_identity.current()} | fields
        httpserver.clear()
        return found(pretended(redis_url=settings.redis_url.get_secret_value(), mark=json.dumps(kept)), "owner")

    assert f"pid {os.getpid()} owns the calls of {name}; no server stands by" in marked().text
    assert marked(fencing_token="0.before").state == "ok", "the mark of the previous owner, which used the same Redis"
    other = marked(fencing_token="1.other", realm="other")
    assert other.state == "failure"
    assert f"pid {os.getpid()} already serves this Asterisk, using another Redis" in other.text


def test_a_configured_name_replaces_the_entity_id(stores):
    settings = stores.model_copy(update={"asterisk_name": "pbx7"})
    assert "no server owns the calls of pbx7: start `ari-conf serve`" in problem_text(settings, "owner")
    asyncio.run(_owned(settings.redis_url.get_secret_value(), "pbx7"))
    said = found(settings, "owner").text
    assert f"pid {os.getpid()} owns the calls of pbx7; no server stands by" in said


def test_the_version_of_the_stored_state(stores):
    client = redis.Redis.from_url(stores.redis_url.get_secret_value())
    before = client.get(STATE_VERSION_KEY)
    try:
        client.delete(STATE_VERSION_KEY)
        assert found(stores, "stored state").text == "no process has written state yet"
        assert client.get(STATE_VERSION_KEY) is None, "the doctor writes no version"
        client.set(STATE_VERSION_KEY, state_version.VERSION)
        assert found(stores, "stored state").text == f"version {state_version.VERSION}"
        client.set(STATE_VERSION_KEY, state_version.VERSION + 1)
        said = found(stores, "stored state")
        assert said.state == "failure" and "upgrade this process" in said.text
    finally:
        client.set(STATE_VERSION_KEY, before) if before else client.delete(STATE_VERSION_KEY)


def test_an_owner_without_a_recent_heartbeat_fails(stores):
    settings = stores.model_copy(update={"asterisk_name": "pbx8"})
    asyncio.run(_owned(settings.redis_url.get_secret_value(), "pbx8"))
    client = redis.Redis.from_url(settings.redis_url.get_secret_value())
    client.hincrby(lease.lease_key("pbx8"), "renewed_ms", -60_000)
    assert "its last heartbeat was 60 s ago: start `ari-conf serve`, which takes over" in problem_text(
        settings, "owner"
    )
    client.close()


# Workers that store and transcribe recordings.


def worker_on(stores: Settings, *hosts: str) -> None:
    client = redis.Redis.from_url(stores.redis_url.get_secret_value())
    client.delete("ari_conf:recordings:workers")
    for host in hosts:
        client.zadd("ari_conf:recordings:workers", {f"{host}-12-ab34": LEASED})
    client.close()


def test_a_worker_elsewhere_must_reach_asterisk(stores, pretended):
    url = stores.redis_url.get_secret_value()
    here = pretended(redis_url=url)
    worker_on(stores)
    assert "no worker stores recordings now" in found(here, "storing workers").text
    worker_on(stores, "box-3")
    assert "set ARI_CONF_ARI_URL_FOR_WORKERS" in problem_text(here, "storing workers")
    assert "box-3" in problem_text(here, "storing workers")
    reached = here.model_copy(update={"ari_url_for_workers": here.ari_url})
    assert "box-3 store recordings" in found(reached, "storing workers").text
    nowhere = here.model_copy(update={"ari_url_for_workers": f"http://{NOTHING_THERE}/ari"})
    assert "or correct ARI_CONF_ARI_URL_FOR_WORKERS" in problem_text(nowhere, "storing workers")
    worker_on(stores, socket.gethostname())
    assert found(here, "storing workers").passed, "here 127.0.0.1 is the same machine for all of them"


def test_a_url_for_workers_of_another_asterisk_fails(stores, httpserver):
    for path, entity in (("/a", "02:01"), ("/b", "02:02")):
        info = {"system": {"version": "22.10.1", "entity_id": entity}}
        httpserver.expect_request(f"{path}/asterisk/info").respond_with_json(info)
    given = settings_of(
        redis_url=stores.redis_url.get_secret_value(),
        ari_url=httpserver.url_for("/a"),
        ari_url_for_workers=httpserver.url_for("/b"),
    )
    assert "leads to another Asterisk" in problem_text(given, "storing workers")


def test_several_asterisks_share_a_redis(stores, pretended):
    client = redis.Redis.from_url(stores.redis_url.get_secret_value())
    client.hset("ari_conf:state:other-box", "x", "y")
    try:
        worker_on(stores, socket.gethostname())
        here = pretended(redis_url=stores.redis_url.get_secret_value())
        assert "other-box" in problem_text(here, "storing workers")
    finally:
        client.delete("ari_conf:state:other-box")
        client.close()


def test_the_transcription_engine_is_named(monkeypatch, tmp_path):
    assert "faster-whisper tiny.en" in found(settings_of(), "transcription").text
    assert "could not be loaded" in problem_text(settings_of(transcription_model=str(tmp_path)), "transcription")
    monkeypatch.setattr(engines, "MODEL_SHA256", "0" * 64)
    engines._local.cache_clear()
    assert "reinstall it" in problem_text(settings_of(), "transcription")


def test_a_transcription_server_is_checked():
    with WhisperServer(understand=lambda _: []) as server:
        values = {"transcription_engine": "http", "transcription_url": server.url}
        assert found(settings_of(**values, transcription_key="sk-test"), "transcription").text == "whisper-1"
        assert "status 401" in problem_text(settings_of(**values, transcription_key="wrong"), "transcription")
    assert "did not answer" in problem_text(settings_of(**values, transcription_key="sk-test"), "transcription")


# Problems without visible symptoms.


@pytest.fixture
def empty(redis_server, monkeypatch, tmp_path):
    """Return the settings of an empty Redis, and its client."""
    client = redis.Redis.from_url(redis_server.url)
    client.flushall()
    monkeypatch.setattr("ari_conf.doctor.accounts.ETC", tmp_path)
    yield settings_of(redis_url=redis_server.url), client
    client.close()


def test_a_redis_without_an_account_refuses_every_call(empty):
    settings, client = empty
    assert "so every call is refused: run `ari-conf account add" in problem_text(settings, "accounts")
    accounts.add(client, 0, "acme")
    assert found(settings, "accounts").text == "1: acme"


def test_calls_for_an_account_that_does_not_exist_fail(empty, redis_server):
    settings, client = empty
    accounts.add(client, 0, "acme")

    async def refused() -> None:
        kept = state_store.connect(redis_server.url)
        await state_store.StateStore(kept, "pbx", 100).write(
            [
                state_store.Step(
                    0, problems=[ReportProblem("acmee", "call-1", ProblemKind.ACCOUNT_UNKNOWN, None, "no such")]
                )
            ]
        )
        await kept.aclose()

    asyncio.run(refused())
    assert "calls for accounts that do not exist (acmee) were refused in the last day" in problem_text(
        settings, "dialplan"
    )
    accounts.add(client, 0, "acmee")
    assert found(settings, "dialplan").passed


@pytest.mark.parametrize(
    ("line", "account"),
    [
        ("exten => _X.,1,Stasis(ari_conf,acmee)", "acmee"),
        (" same => n(enter),Stasis(ari_conf,acmee,menu,GET)", "acmee"),
        (' same => n,ExecIf($[1]?Set(ACCOUNT=acmee))\n same => n,Stasis(ari_conf,${ACCOUNT},"x")', "acmee"),
        ("exten => _X.,1,Stasis(other,acmee)", None),
        ("; Stasis(ari_conf,acmee)", None),
        ("exten => _X.,1,Stasis(ari_conf,acme)", None),
    ],
)
def test_an_account_in_the_dialplan_that_does_not_exist_fails(empty, tmp_path, line, account):
    settings, client = empty
    accounts.add(client, 0, "acme")
    (tmp_path / "extensions.conf").write_text(f"[default]\n{line}\n")
    if account:
        assert f"extensions.conf names the account {account}, which does not exist" in problem_text(
            settings, "dialplan"
        )
    else:
        assert found(settings, "dialplan").passed


def test_no_callback_worker_with_and_without_waiting_callbacks(empty, redis_server):
    settings, client = empty
    assert found(settings, "callback workers").state == "warning"
    assert found(settings, "storing workers").state == "warning"
    post = PostCallback("acme", "https://acme.example/x", "POST", (("a", "b"),), "lane")

    async def waits() -> None:
        kept = state_store.connect(redis_server.url)
        await state_store.StateStore(kept, "pbx", 100).write([state_store.Step(0, callbacks=[post])])
        await kept.aclose()

    asyncio.run(waits())
    said = found(settings, "callback workers")
    assert said.state == "failure"
    assert "no worker delivers callbacks now, and 1 wait: start `ari-conf worker`" in said.text
    worker = {"box-12-ab": 4}
    client.zadd("ari_conf:callbacks:workers", {"box-12-ab": 1})
    client.hset("ari_conf:callbacks:threads", mapping=worker)
    assert "no worker delivers callbacks now" in found(settings, "callback workers").text, "its lease has expired"
    client.zadd("ari_conf:callbacks:workers", {"box-12-ab": LEASED})
    client.hset("ari_conf:transcriptions:health", "box-12-cd", '{"at_ms":4000000000000,"fault":"a thread is stuck"}')
    client.zadd("ari_conf:transcriptions:workers", {"box-12-cd": LEASED})
    assert problem_text(settings, "callback workers") == (
        "the worker 12 on box does not work off the queue transcriptions: a thread is stuck: restart it"
    )
    client.delete("ari_conf:transcriptions:health")
    for queue in queue_names.ALL:
        client.hset(f"ari_conf:{queue}:health", "box-12-ef", '{"at_ms":4000000000000,"fault":"a thread is stuck"}')
        client.zadd(f"ari_conf:{queue}:workers", {"box-12-ef": LEASED})
        assert f"the queue {queue}: a thread is stuck" in problem_text(settings, "callback workers")
        client.delete(f"ari_conf:{queue}:health")
        client.zrem(f"ari_conf:{queue}:workers", "box-12-ef")
    said = found(settings, "callback workers")
    assert said.state == "warning" and "start more workers" in said.text, "the entry was created in 1970"


def test_no_worker_removes_accounts_with_and_without_one_that_waits(empty):
    settings, client = empty
    assert found(settings, "removal workers").state == "warning"
    partitioned_queue.enqueue(client, [(removals.partition("acme"), b'{"auth_id": "acme", "at_ms": 1}')], "removals")
    said = found(settings, "removal workers")
    assert said.state == "failure" and "no worker removes accounts now, and 1 wait" in said.text
    client.zadd("ari_conf:removals:workers", {"box-12-ab": LEASED})
    client.hset("ari_conf:removals:threads", "box-12-ab", 1)
    assert found(settings, "removal workers").text == "1; 1 accounts are being removed"


@pytest.mark.parametrize("part", ["sounds", "documents"])
def test_folders_that_can_t_be_used(part, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    name = {"sounds": "sounds_folder", "documents": "documents"}[part]
    assert f"{file / 'x'}" in problem_text(settings_of(**{name: str(file / "x")}), f"{part} folder")
    assert found(settings_of(**{name: str(file / "x")}), f"{part} folder").state == "failure"


def test_usable_folders_pass(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "menu.xml").write_text("<Response/>")
    settings = settings_of(sounds_folder=str(tmp_path / "sounds"), documents=str(tmp_path))
    assert found(settings, "documents folder").text == f"{tmp_path}: menu"
    assert found(settings, "sounds folder").passed
    assert not list((tmp_path / "sounds" / "parts").iterdir()), "the probe has been removed"


def test_a_sounds_folder_that_asterisk_can_not_enter(pretended, httpserver, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    info = {"system": {"version": "22.10.1"}, "config": {"setid": {"user": "asterisk", "group": "asterisk"}}}
    httpserver.expect_request("/pbx/asterisk/info").respond_with_json(info)
    settings = settings_of(ari_url=httpserver.url_for("/pbx"), sounds_folder=str(closed / "sounds"))
    assert "is closed to other users, and Asterisk runs as asterisk" in problem_text(settings, "sounds folder")
    assert found(pretended(sounds_folder=str(closed / "sounds")), "sounds folder").passed, "it runs as this user"


def test_checks_that_need_redis_report_its_outage(pretended):
    settings = pretended()
    backends = ("Redis", "stored state", "owner", "broker")
    queues = ("callback workers", "removal workers", "storing workers")
    for part in (*backends, "accounts", "dialplan", *queues):
        assert "does not respond" in problem_text(settings, part), part
    assert found(settings_of(s3_endpoint=f"http://{NOTHING_THERE}"), "clock").state == "warning"


def test_a_build_that_drops_packets_is_named(pretended):
    said = found(pretended("22.10.1+dfsg+~cs6.17.60671434-1"), "Asterisk")
    assert said.passed and "Debian's or Ubuntu's build" in said.text


def test_a_build_of_the_unchanged_sources(pretended):
    assert "Debian" not in found(pretended("22.10.1"), "Asterisk").text


def test_a_misspelled_setting_is_a_warning(monkeypatch):
    for name in [name for name in os.environ if name.startswith("ARI_CONF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ARI_CONF_CONFIG", "")
    monkeypatch.setenv("ARI_CONF_REDIS_URL", "redis://127.0.0.1/0")
    assert found(settings_of(), "settings").text == "1 set, all of them known; `ari-conf settings` shows them"
    monkeypatch.setenv("ARI_CONF_REDIS_ULR", "x")
    told = found(settings_of(), "settings")
    assert told.state == "warning" and "did you mean ARI_CONF_REDIS_URL?" in told.text


async def test_a_check_that_never_ends_holds_nothing_up(monkeypatch):
    monkeypatch.setattr(doctor, "CHECK_TIMEOUT_S", 0.3)
    never = threading.Event()
    monkeypatch.setattr(doctor, "CHECKS", {"Asterisk": lambda _: str(never.wait()), "Redis": lambda _: "fine"})
    began = time()
    slow, quick = await doctor.run_checks(settings_of())
    assert quick.passed and slow.state == "failure" and "could not be checked within 0.3 s" in slow.text
    assert took_s(began) < 20
    never.set()


def test_the_worst_decides_the_exit_code():
    ok, warning, failure = (doctor.Finding("x", state, "") for state in ("ok", "warning", "failure"))
    codes = [doctor.EXIT_CODES[doctor.worst(found)] for found in ([ok], [ok, warning], [warning, failure, ok])]
    assert codes == [0, 3, 1]


def test_programs_get_the_same_as_json():
    command = [sys.executable, "-m", "ari_conf", "doctor", "--json"]
    nowhere = {"ARI_CONF_REDIS_URL": f"redis://{NOTHING_THERE}/0", "ARI_CONF_ARI_URL": f"http://{NOTHING_THERE}/ari"}
    nowhere |= {"ARI_CONF_S3_ENDPOINT": f"http://{NOTHING_THERE}", "ARI_CONF_SOUNDS_FOLDER": "/proc/x"}
    ran = subprocess.run(command, env=os.environ | nowhere, capture_output=True, text=True, timeout=120)
    report = json.loads(ran.stdout)
    assert ran.returncode == 1 and report["state"] == "failure"
    assert [check["id"] for check in report["checks"]] == [doctor.Finding(part, "ok", "").id for part in doctor.CHECKS]
    assert {tuple(sorted(check)) for check in report["checks"]} == {("id", "part", "state", "text")}


def test_the_page_of_the_doctor_has_each_check():
    page = (Path(__file__).parents[2] / "docs" / "operations" / "doctor.md").read_text()
    for part in doctor.CHECKS:
        assert f"| `{doctor.Finding(part, 'ok', '').id}` |" in page
