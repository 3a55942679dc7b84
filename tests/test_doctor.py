"""What the doctor says of parts that are well, and of each that isn't. Redis and S3 are real, Asterisk is pretended."""

import asyncio
import contextlib
import os
import socket
from email.utils import formatdate
from time import time
from types import SimpleNamespace

import pytest
import redis
from pytest_httpserver import HTTPServer

from ari_conf import doctor, lease, store
from ari_conf.doctor import asterisk, machine
from ari_conf.media.voices import Flite
from ari_conf.parts import processes
from ari_conf.settings import Settings, from_environment
from ari_conf.up import System
from tasks import engines
from tests.tasks.whisper_server import WhisperServer

NOTHING_THERE = "127.0.0.1:1"


def found(settings: Settings, part: str) -> doctor.Finding:
    return doctor.examined(part, settings)


def told(settings: Settings, part: str) -> str:
    """What is wrong with it."""
    finding = found(settings, part)
    assert not finding.good, finding.text
    return finding.text


def settings_of(**values: str) -> Settings:
    nowhere = {"ari_url": f"http://{NOTHING_THERE}/ari", "redis_url": f"redis://{NOTHING_THERE}/0"}
    nowhere |= {"s3_endpoint": f"http://{NOTHING_THERE}", "s3_access_key": "k", "s3_secret_key": "s"}
    return from_environment({f"ARI_CONF_{name.upper()}": value for name, value in (nowhere | values).items()})


@pytest.fixture
def pretended(httpserver: HTTPServer):
    """An Asterisk that says what the test wants; returns the settings that lead to it."""

    def pretend(
        version="22.10.1", modules=(*asterisk.MODULES, "res_websocket_client"), most_calls=0, **values
    ) -> Settings:
        running = [{"name": f"{name}.so", "status": "Running"} for name in modules]
        info = {"system": {"version": version}, "config": {"max_channels": most_calls} if most_calls else {}}
        httpserver.expect_request("/ari/asterisk/info").respond_with_json(info)
        httpserver.expect_request("/ari/asterisk/modules").respond_with_json(running)
        httpserver.expect_request("/ari/asterisk/ping").respond_with_json({})
        return settings_of(ari_url=httpserver.url_for("/ari"), **values)

    return pretend


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The settings of a real Redis and S3."""

    async def start(system: System) -> None:
        await system.__aenter__()

    with asyncio.Runner() as runner:
        system = System(tmp_path_factory.mktemp("stores"), parts=("redis", "s3"))
        runner.run(start(system))
        yield system.settings
        runner.run(system.stop_all())


# Asterisk.


def test_an_asterisk_that_is_new_enough(pretended):
    assert "Asterisk 22.10.1" in found(pretended(), "Asterisk").text


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("18.26.4", "too old: 20 or newer is needed"),
        ("20.14.1", "set ARI_CONF_ARI_SOCKET=inbound"),
        ("21.9.0", "set ARI_CONF_ARI_SOCKET=inbound"),
        ("22.4.1~dfsg", "set ARI_CONF_ARI_SOCKET=inbound"),
    ],
)
def test_an_asterisk_that_is_too_old(pretended, version, says):
    assert says in told(pretended(version, ari_socket="outbound"), "Asterisk")


@pytest.mark.parametrize(
    "version", ["20.15.0", "21.10.0", "22.5.0", "23.0.0", "certified/20.17-cert1", "GIT-master-1a2b"]
)
def test_versions_that_open_the_websocket(pretended, version):
    assert found(pretended(version, ari_socket="outbound"), "Asterisk").good


def test_an_older_one_is_good_enough_for_an_inbound_websocket(pretended):
    assert found(pretended("20.5.2"), "Asterisk").good


def test_an_asterisk_that_takes_any_number_of_calls(pretended):
    assert "set maxcalls in its asterisk.conf" in told(pretended(), "its limits")


def test_an_asterisk_that_knows_when_it_has_enough(pretended):
    assert found(pretended(most_calls=1000), "its limits").text == "at most 1000 calls at once"


def test_a_websocket_that_may_cost_asterisk_s_life(pretended):
    assert "may crash" in told(pretended(ari_socket="outbound"), "its WebSocket")
    assert found(pretended(), "its WebSocket").good


def test_an_asterisk_that_is_not_there():
    said = told(settings_of(), "Asterisk")
    assert (
        f"does not answer at http://{NOTHING_THERE}/ari (" in said and "refused" in said and "ARI_CONF_ARI_URL" in said
    )


def test_an_asterisk_that_refuses_the_user(httpserver):
    httpserver.expect_request("/ari/asterisk/info").respond_with_data(status=401)
    said = told(settings_of(ari_url=httpserver.url_for("/ari"), ari_user="joe", ari_password="hush"), "Asterisk")
    assert "refuses ARI's user joe" in said and "hush" not in said


def test_each_module_that_is_missing_is_named(pretended):
    said = told(pretended(modules=set(asterisk.MODULES) - {"bridge_softmix"}, ari_socket="outbound"), "its modules")
    assert (
        "bridge_softmix" in said
        and "res_websocket_client" in said
        and "`module load" in said
        and "chan_pjsip" not in said
    )


def test_all_modules(pretended):
    assert found(pretended(), "its modules").good


def test_nobody_listens_for_asterisk(pretended):
    port = processes.free_port()
    said = told(pretended(ari_socket="outbound", ari_listen=f"127.0.0.1:{port}"), "application")
    assert said == f"nothing listens on 127.0.0.1:{port}: start `ari-conf serve` on this machine"


async def test_asterisk_has_not_connected_and_then_it_has(pretended):
    server = await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", 0)
    listen = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    settings = pretended(ari_socket="outbound", ari_listen=listen)

    async with server:
        with pytest.raises(doctor.Wrong, match=f"Asterisk has not connected to `ari-conf serve` on {listen}"):
            await asyncio.to_thread(asterisk.application, settings)
        _, writer = await asyncio.open_connection(*listen.split(":"))
        assert await asyncio.to_thread(asterisk.application, settings) == f"Asterisk is connected to {listen}"
        writer.close()


def test_a_recording_folder_that_is_missing(tmp_path):
    assert "doesn't exist" in told(settings_of(recording_folder=str(tmp_path / "none")), "recording folder")
    assert found(settings_of(recording_folder=str(tmp_path)), "recording folder").good


# Redis and S3.


def test_a_redis_and_a_bucket_that_are_well(stores):
    assert [found(stores, part).good for part in ("Redis", "broker", "bucket")] == [True] * 3


def test_a_redis_that_is_not_there():
    assert "start it, or correct ARI_CONF_REDIS_URL" in told(settings_of(), "Redis")


@contextlib.contextmanager
def configured(settings: Settings, name: str, value: str):
    import redis

    client = redis.Redis.from_url(settings.redis_url.get_secret_value())
    before = client.config_get(name)[name]
    client.config_set(name, value)
    yield
    client.config_set(name, before)


def test_a_redis_that_evicts(stores):
    with configured(stores, "maxmemory-policy", "allkeys-lru"):
        assert "set it to noeviction" in told(stores, "Redis")


def test_a_redis_that_forgets(stores):
    with configured(stores, "appendonly", "no"):
        assert "set appendonly to yes" in told(stores, "Redis")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("s3_bucket", "nobodys", "correct ARI_CONF_S3_BUCKET"),
        ("s3_access_key", "nobody", "correct ARI_CONF_S3_ACCESS_KEY"),
        ("s3_secret_key", "wrong-secret", "correct ARI_CONF_S3_SECRET_KEY"),
        ("s3_endpoint", f"http://{NOTHING_THERE}", "correct ARI_CONF_S3_ENDPOINT"),
    ],
)
def test_a_bucket_that_refuses(stores, name, value, says):
    values = {"s3_endpoint": stores.s3_endpoint, "s3_access_key": "ari_conf"}
    values["s3_secret_key"] = stores.s3_secret_key.get_secret_value()
    said = told(settings_of(**(values | {name: value})), "bucket")
    assert says in said and "wrong-secret" not in said


# This machine.


def test_an_ffmpeg_that_is_missing():
    assert "apt-get install ffmpeg" in told(settings_of(ffmpeg="/nowhere/ffmpeg"), "ffmpeg")


def test_without_an_engine_speak_is_silent(monkeypatch):
    monkeypatch.setattr(machine, "installed", lambda wish: {"WOMAN": [], "MAN": []})
    assert "no WOMAN and no MAN voice" in told(settings_of(), "speech")


def test_a_voice_that_is_wished_but_not_installed(monkeypatch):
    flite = {"WOMAN": [Flite("slt")], "MAN": [Flite("rms")]}
    monkeypatch.setattr(machine, "installed", lambda wish: flite)
    assert found(settings_of(), "speech").text == "WOMAN: flite slt, MAN: flite rms"
    assert "festival, which ARI_CONF_VOICE names, is not installed" in told(settings_of(voice="festival"), "speech")


def test_clocks_that_agree(pretended, stores):
    assert found(pretended(), "clock").text == "as that of Asterisk"
    assert found(stores, "clock").text == "as that of Redis, S3"


@pytest.mark.parametrize(("seconds", "says"), [(60, "s ahead"), (-60, "s behind")])
def test_a_clock_that_is_wrong(monkeypatch, seconds, says):
    answer = SimpleNamespace(headers={"Date": formatdate(time() + seconds, usegmt=True)})
    monkeypatch.setattr(asterisk, "ask", lambda *_: answer)
    with pytest.raises(doctor.Wrong, match=f"Asterisk's is (59|60|61) {says}; run an NTP client"):
        machine.clock(settings_of())


def test_a_check_that_breaks_leaves_the_others_alone(httpserver):
    httpserver.expect_request("/ari/asterisk/info").respond_with_json(["nonsense"])
    findings = asyncio.run(doctor.examine(settings_of(ari_url=httpserver.url_for("/ari"))))
    assert len(findings) == len(doctor.CHECKS)
    assert "could not be examined: TypeError" in findings[0].text


# Whose the calls are.


async def _owned(url: str, name: str) -> None:
    client = store.connect(url)
    await lease.Lease(client, name).acquire()
    await client.aclose()


def test_who_has_the_calls(stores):
    settings = stores.model_copy(update={"asterisk_name": "pbx7"})
    assert "nobody has the calls of pbx7: start `ari-conf serve`" in told(settings, "owner")
    asyncio.run(_owned(settings.redis_url.get_secret_value(), "pbx7"))
    said = found(settings, "owner").text
    assert f"pid {os.getpid()} has the calls of pbx7; nobody stands by" in said


def test_an_owner_who_was_not_heard_of_for_long(stores):
    settings = stores.model_copy(update={"asterisk_name": "pbx8"})
    asyncio.run(_owned(settings.redis_url.get_secret_value(), "pbx8"))
    client = redis.Redis.from_url(settings.redis_url.get_secret_value())
    client.hincrby(lease.lease_key("pbx8"), "at", -60_000)
    assert "last heard of 60 s ago: start `ari-conf serve`, which takes over" in told(settings, "owner")
    client.close()


# Who stores and transcribes recordings.


def worker_on(stores: Settings, *hosts: str) -> None:
    client = redis.Redis.from_url(stores.redis_url.get_secret_value())
    client.delete("ari_conf:recordings:workers")
    for host in hosts:
        client.zadd("ari_conf:recordings:workers", {f"{host}-12-ab34": 1})
    client.close()


def test_a_worker_elsewhere_must_reach_asterisk(stores, pretended):
    url = stores.redis_url.get_secret_value()
    here = pretended(redis_url=url)
    worker_on(stores)
    assert "nobody stores recordings now" in found(here, "storing workers").text
    worker_on(stores, "box-3")
    assert "set ARI_CONF_ARI_URL_FOR_WORKERS" in told(here, "storing workers")
    assert "box-3" in told(here, "storing workers")
    reached = here.model_copy(update={"ari_url_for_workers": here.ari_url})
    assert "box-3 store recordings" in found(reached, "storing workers").text
    nowhere = here.model_copy(update={"ari_url_for_workers": f"http://{NOTHING_THERE}/ari"})
    assert "or correct ARI_CONF_ARI_URL_FOR_WORKERS" in told(nowhere, "storing workers")
    worker_on(stores, socket.gethostname())
    assert found(here, "storing workers").good, "here 127.0.0.1 is the same for all"


def test_workers_are_led_to_another_asterisk(stores, httpserver):
    for path, entity in (("/a", "02:01"), ("/b", "02:02")):
        info = {"system": {"version": "22.10.1", "entity_id": entity}}
        httpserver.expect_request(f"{path}/asterisk/info").respond_with_json(info)
    given = settings_of(
        redis_url=stores.redis_url.get_secret_value(),
        ari_url=httpserver.url_for("/a"),
        ari_url_for_workers=httpserver.url_for("/b"),
    )
    assert "leads to another Asterisk" in told(given, "storing workers")


def test_several_asterisks_share_a_redis(stores, pretended):
    client = redis.Redis.from_url(stores.redis_url.get_secret_value())
    client.hset("ari_conf:state:other-box", "x", "y")
    try:
        worker_on(stores, socket.gethostname())
        here = pretended(redis_url=stores.redis_url.get_secret_value())
        assert "other-box" in told(here, "storing workers")
    finally:
        client.delete("ari_conf:state:other-box")
        client.close()


def test_what_transcribes(monkeypatch, tmp_path):
    assert "faster-whisper tiny.en" in found(settings_of(), "transcription").text
    assert "can't be loaded" in told(settings_of(transcription_model=str(tmp_path)), "transcription")
    monkeypatch.setattr(engines, "MODEL_SHA256", "0" * 64)
    engines._local.cache_clear()
    assert "install it anew" in told(settings_of(), "transcription")


def test_a_server_that_transcribes():
    with WhisperServer(understand=lambda _: []) as server:
        values = {"transcription_engine": "http", "transcription_url": server.url}
        assert found(settings_of(**values, transcription_key="sk-test"), "transcription").text == "whisper-1"
        assert "status 401" in told(settings_of(**values, transcription_key="wrong"), "transcription")
    assert "did not answer" in told(settings_of(**values, transcription_key="sk-test"), "transcription")
