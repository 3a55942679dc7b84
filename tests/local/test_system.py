"""Tests of the components that need no telephone: started together, stopped together, killed and restarted."""

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import AuthenticationError, Redis

from ari_conf.cli.up import _describe_token, _introduce_numbers, until_stopped
from ari_conf.errors import SetupFailed
from ari_conf.local import processes
from ari_conf.local.system import COMPONENTS, LocalSystem, settings_from_environment
from ari_conf.recordings.bucket import Bucket
from ari_conf.settings import VALUES
from ari_conf.store import accounts
from tests import lateness
from tests.lateness import SOON_S


def client(system: LocalSystem) -> Redis:
    return Redis.from_url(system.settings.redis_url.get_secret_value())


def has_ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def test_the_components_find_each_other_and_end_together(tmp_path):
    async with LocalSystem(tmp_path, components=("redis", "s3", "worker", "web")) as system:
        pids = [system.process(part).pid for part in system.components]
        assert client(system).ping()
        assert processes.port_answers("127.0.0.1", int(system.settings.public_url.rpartition(":")[2]))
        assert '"event":"' in system.log("worker").read_text()
    assert all(has_ended(pid) for pid in pids)


async def test_other_users_of_the_machine_read_nothing_of_it(tmp_path):
    """They can read neither its files, which contain tokens and recordings, nor its Redis."""
    (tmp_path / "system").mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    async with LocalSystem(tmp_path / "system", components=("redis", "s3")) as system:
        assert stat.S_IMODE(system.folder.stat().st_mode) == 0o700
        url = urlsplit(system.settings.redis_url.get_secret_value())
        with pytest.raises(AuthenticationError):
            Redis(host="127.0.0.1", port=url.port).hgetall(accounts.KEY)
        command = Path(f"/proc/{system.process('redis').pid}/cmdline").read_text()
        assert url.password and url.password not in command
        assert stat.S_IMODE((system.folder / "redis" / "redis.conf").stat().st_mode) == 0o600


READS = """
import os, sys, urllib.error, urllib.request
from pathlib import Path
def tried(what):
    try:
        return what()
    except (OSError, urllib.error.URLError) as error:
        return f"{type(error).__name__} {getattr(error, 'code', '')}"
def all_of_it():
    for path in PATHS:
        print(path, tried(lambda: list(Path(path).iterdir())), tried(lambda: Path(path).read_bytes()))
    for url in URLS:
        print(url, tried(lambda: urllib.request.urlopen(url, timeout=10).read()))
# Once as root, silently: later, nothing of Python itself can be loaded where that is root's alone.
with open(os.devnull, "w") as sys.stdout:
    all_of_it()
sys.stdout = sys.__stdout__
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
all_of_it()
"""


def another_user_reads(paths: list[str], urls: list[str]) -> str:
    command = [sys.executable, "-c", f"PATHS = {paths!r}\nURLS = {urls!r}\n{READS}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/")
    return ran.stdout + ran.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run a program as another user")
async def test_another_user_of_the_machine_reads_nothing():
    with tempfile.TemporaryDirectory() as folder:
        # The tests' own umask would not let other users through.
        Path(folder).chmod(0o755)
        await another_user_finds_nothing(Path(folder) / "system")


async def another_user_finds_nothing(folder: Path) -> None:
    async with LocalSystem(folder, components=("redis", "s3")) as system:
        token = accounts.get(client(system), "demo").token
        bucket = Bucket(system.settings)
        bucket.put_json("recordings/demo/secret.json", {"said": "SECRET"})
        files = [path for path in system.folder.rglob("*") if path.is_file()]
        assert any(token.encode() in path.read_bytes() for path in files), "Redis has written the token to its file"
        command = Path(f"/proc/{system.process('s3').pid}/cmdline").read_text().split("\0")
        ports = dict(re.findall(r"-(\w+)\.port=(\d+)", "\n".join(command)))
        assert ports.keys() >= {"master", "volume", "filer"}
        place = f"http://127.0.0.1:{ports['filer']}/buckets/{system.settings.s3_bucket}/"
        urls = [place, f"{place}recordings/demo/secret.json", f"{system.settings.s3_endpoint}/recordings/"]
        paths = [str(path) for path in (system.folder, *files)]
        said = another_user_reads(paths, urls)
        assert said.count("PermissionError") == 2 * len(paths), said
        assert said.count("HTTPError 40") == len(urls), said
        assert "SECRET" not in said and token not in said
        assert bucket.get_json("recordings/demo/secret.json") == {"said": "SECRET"}, "the recording is in the bucket"


async def test_it_says_how_a_number_is_answered(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(LocalSystem, "sip_address", "127.0.0.1:5060")
    async with LocalSystem(tmp_path, components=("redis",)) as system:
        _introduce_numbers(system)
    assert '\n           `make up UP="--answer-url URL"`, or `ari-conf up' in capsys.readouterr().out


async def test_a_folder_of_other_things_is_not_closed_to_others(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    (shared / "others.txt").touch()
    with pytest.raises(SetupFailed, match="choose a folder for this system alone, by `--folder`"):
        await LocalSystem(shared, components=("redis",)).__aenter__()
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755
    shared.chmod(0o700)
    async with LocalSystem(shared, components=("redis",)) as system:
        assert client(system).ping()
    # A folder of the system that an older version created.
    shared.chmod(0o755)
    async with LocalSystem(shared, components=("redis",)):
        assert stat.S_IMODE(shared.stat().st_mode) == 0o700


async def test_it_makes_an_account_if_there_is_none(tmp_path):
    async with LocalSystem(tmp_path, components=("redis",)) as system:
        assert system.account == "demo"
        assert [record.auth_id for record in accounts.list_all(client(system))] == ["demo"]


async def test_calls_stay_with_the_account_demo(tmp_path):
    async with LocalSystem(tmp_path, components=("redis",)) as system:
        accounts.add(client(system), 0, "acme")
    async with LocalSystem(tmp_path, components=("redis",)) as system:
        assert system.account == "demo"
        client(system).hdel(accounts.KEY, "demo")
    async with LocalSystem(tmp_path, components=("redis",)) as system:
        assert system.account == "acme"


async def test_an_answer_url_is_stored_in_the_account_and_allowed(tmp_path):
    url = "http://127.0.0.1:5000/answer"
    async with LocalSystem(tmp_path, components=("redis",), answer_url=url) as system:
        assert accounts.get(client(system), "demo").answer_url == url
        assert ip_address("127.0.0.1") in system.settings.allowed_networks[0]
    more = {"ARI_CONF_ALLOWED_NETWORKS": "10.0.0.0/8"}
    system = LocalSystem(tmp_path, more, ("redis",), answer_url="http://localhost:5000/")
    assert {str(network) for network in system.settings.allowed_networks} >= {"10.0.0.0/8", "127.0.0.0/8"}
    assert (
        LocalSystem(tmp_path, components=("redis",), answer_url="http://93.184.216.34/").settings.allowed_networks == ()
    )
    with pytest.raises(SetupFailed, match=r"the host of the answer URL, nowhere.invalid, could not be resolved"):
        LocalSystem(tmp_path, components=("redis",), answer_url="http://nowhere.invalid/")
    with pytest.raises(SetupFailed, match=r"could not be resolved: it is not a valid name"):
        LocalSystem(tmp_path, components=("redis",), answer_url=f"http://{'x' * 64}/")


@pytest.mark.parametrize(
    "url", ["localhost:5000/answer", "foo", "ftp://127.0.0.1/", "http:///answer", "http://[::1/", ""]
)
def test_an_invalid_answer_url_is_refused(tmp_path, url):
    with pytest.raises(
        SetupFailed, match=r"the answer URL is not valid: expected an http or https URL, such as http://127\.0\.0"
    ):
        LocalSystem(tmp_path, components=("redis",), answer_url=url)


async def test_an_answer_url_of_an_earlier_start_is_still_allowed(tmp_path):
    async with LocalSystem(tmp_path, components=("redis",), answer_url="http://127.0.0.1:5000/answer"):
        pass
    async with LocalSystem(tmp_path, components=("redis",)) as system:
        assert ip_address("127.0.0.1") in system.settings.allowed_networks[0]
        assert "127.0.0.0/8" in (tmp_path / VALUES).read_text(), "the commands read the same values as `serve`"
        accounts.update(client(system), "demo", answer_url="http://nowhere.invalid/")
    async with LocalSystem(tmp_path, components=("redis",)) as system:
        assert system.settings.allowed_networks == (), "a name that no longer resolves must not prevent the start"


async def test_commands_of_another_terminal_find_the_system_that_runs_now(tmp_path):
    """This holds for a system that was restarted, on other ports, after the shell read the file."""
    system = LocalSystem(tmp_path, components=("redis",))
    async with system:
        read = f". {system.environment_file}; command -v ari-conf || echo none; "
    async with LocalSystem(tmp_path, components=("redis",)) as system:
        accounts.add(client(system), 0, "acme")
        # The command as a user would type it in a shell that does not know the virtual environment.
        words = ["sh", "-c", read + f"{sys.executable} -m ari_conf account list"]
        bare = {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        said = await asyncio.to_thread(subprocess.run, words, env=bare, capture_output=True, text=True, timeout=60)
        assert "acme" in said.stdout, said.stderr
        beside = str(Path(sys.executable).parent)
        assert f"export PATH={beside}:$PATH" in system.environment_file.read_text()


async def test_a_terminal_in_which_it_was_read_can_start_it(tmp_path, monkeypatch):
    monkeypatch.setenv("ARI_CONF_UP_FOLDER", str(tmp_path))
    assert "ARI_CONF_UP_FOLDER" not in settings_from_environment()


def test_commands_for_a_system_that_is_not_there(tmp_path):
    command = [sys.executable, "-m", "ari_conf", "account", "list"]
    ran = subprocess.run(
        command, env=os.environ | {"ARI_CONF_UP_FOLDER": str(tmp_path)}, capture_output=True, text=True
    )
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1
    assert f"no system was started in {tmp_path}" in ran.stderr


@pytest.mark.parametrize("folder", ["/proc/x", "/dev/null/x"])
def test_a_folder_that_can_t_be_written_is_one_sentence(folder):
    command = [sys.executable, "-m", "ari_conf", "up", "--folder", folder]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert f"ari-conf: {folder} could not be used (" in ran.stderr


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.1", "nowhere", "::1"])
def test_an_address_that_phones_can_not_reach_is_refused(address, tmp_path):
    with pytest.raises(SetupFailed, match="is not an IPv4 address of this machine"):
        LocalSystem(tmp_path, components=("redis",), listen=address)


def test_a_caller_from_another_machine_does_not_choose_the_account(tmp_path):
    here, elsewhere = LocalSystem(tmp_path), LocalSystem(tmp_path, listen="127.0.0.2")
    assert here._asterisk.trust_callers and elsewhere.sip_address.startswith("127.0.0.2:")
    assert elsewhere.settings.web_listen.startswith("127.0.0.2:")
    assert elsewhere.settings.ari_url.startswith("http://127.0.0.1:"), "Asterisk's own interface stays on this machine"


@pytest.mark.parametrize("local", [True, False])
async def test_it_says_who_can_call_and_what_answers(tmp_path, monkeypatch, capsys, local):
    monkeypatch.setattr(LocalSystem, "is_local", local)
    monkeypatch.setattr(LocalSystem, "sip_address", "192.168.1.20:5060")
    async with LocalSystem(tmp_path, components=("redis",), answer_url="http://127.0.0.1:5000/answer") as system:
        _introduce_numbers(system)
        said = capsys.readouterr().out
        assert "sip:conference@192.168.1.20:5060" in said and "answered by http://127.0.0.1:5000/answer" in said
        assert "sip:pin@" not in said, "that document needs a program at example.com"
        assert ("that reaches it, without a password" in said) != local
        assert ("Do not use an address that is reachable from the Internet" in said) != local
        assert ("sip:ACCOUNT*15550100@" in said) == local, "callers from elsewhere must not choose the account"
        assert accounts.get(client(system), "demo").token not in _describe_token(system), (
            "a token is shown only on a terminal"
        )


@pytest.mark.parametrize("told", [True, False])
def test_a_component_that_fails_during_the_stop_is_no_error(told):
    async def work() -> None:
        try:
            if told:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(60)
        finally:
            raise SetupFailed("its port was taken")

    with nullcontext() if told else pytest.raises(SetupFailed):
        until_stopped(work)


async def test_data_is_kept_for_the_next_start(tmp_path):
    async with LocalSystem(tmp_path, components=("redis",)) as system:
        token = accounts.get(client(system), "demo").token
    async with LocalSystem(tmp_path, components=("redis",)) as system:
        assert accounts.get(client(system), "demo").token == token


async def test_two_systems_run_side_by_side_but_not_in_one_folder(tmp_path):
    async with (
        LocalSystem(tmp_path / "one", components=("redis",)) as one,
        LocalSystem(tmp_path / "two", components=("redis",)) as two,
    ):
        client(one).set("whose", "one")
        assert client(two).get("whose") is None
        with pytest.raises(SetupFailed, match="another system is running in"):
            await LocalSystem(tmp_path / "one", components=("redis",)).__aenter__()
        assert client(one).get("whose") == b"one", "the failed attempt changed nothing"


async def test_component_configured_elsewhere_is_neither_started_nor_stopped(tmp_path, redis_server):
    async with LocalSystem(tmp_path, {"ARI_CONF_REDIS_URL": redis_server.url}, ("redis", "web")) as system:
        assert system.components == ("web",)
        assert system.settings.redis_url.get_secret_value() == redis_server.url
    assert redis_server.client.ping()


async def test_settings_of_the_environment_do_not_reach_the_components(tmp_path, monkeypatch):
    monkeypatch.setenv("ARI_CONF_REDIS_URL", "redis://127.0.0.1:1/0")
    async with LocalSystem(tmp_path, components=("redis",)) as system:
        assert client(system).ping()


async def test_a_killed_component_can_be_started_again(tmp_path):
    async with LocalSystem(tmp_path, components=("redis", "web")) as system:
        accounts.add(client(system), 0, "acme")
        await system.kill("redis")
        assert not processes.port_answers("127.0.0.1", client(system).connection_pool.connection_kwargs["port"])
        await system.start("redis")
        assert accounts.get(client(system), "acme")


async def test_a_component_that_ends_on_its_own_is_noticed(tmp_path):
    async with LocalSystem(tmp_path, components=("redis", "web")) as system:
        assert system.exited_processes() == []
        os.kill(system.process("web").pid, signal.SIGTERM)
        assert await processes.wait_ended(system.process("web"), within=SOON_S)
        assert [process.name for process in system.exited_processes()] == ["web"]


async def test_if_a_component_can_not_be_started_the_others_are_stopped(tmp_path):
    # Another program already uses the port given for web.
    with pytest.raises(SetupFailed, match="web ended with code"):
        async with lateness.timeout():
            taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
            listen = f"127.0.0.1:{taken.sockets[0].getsockname()[1]}"
            async with taken:
                system = LocalSystem(tmp_path, {"ARI_CONF_WEB_LISTEN": listen}, ("redis", "s3", "web"))
                await system.__aenter__()
    assert not processes.port_answers("127.0.0.1", client(system).connection_pool.connection_kwargs["port"])


def test_the_components_stop_in_the_reverse_order():
    assert COMPONENTS.index("redis") < COMPONENTS.index("worker") and COMPONENTS.index("asterisk") < COMPONENTS.index(
        "serve"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_stops_all_that_it_started_and_succeeds(tmp_path, redis_server, number):
    """Start everything but Asterisk, which the settings say is elsewhere."""
    elsewhere = {
        "ARI_CONF_ARI_URL": "http://127.0.0.1:1/ari",
        "ARI_CONF_REDIS_URL": redis_server.url,
        "ARI_CONF_S3_ENDPOINT": "http://127.0.0.1:1",
        "ARI_CONF_ARI_LISTEN": f"127.0.0.1:{processes.free_port()}",
    }
    command = [sys.executable, "-m", "ari_conf", "up", "--folder", str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=os.environ | elsewhere, stdout=pipe, stderr=pipe, text=True) as up:
        try:
            for line in up.stdout:
                if "Ctrl-C" in line:
                    break
            children = Path(f"/proc/{up.pid}/task/{up.pid}/children").read_text().split()
            assert len(children) == 3, "worker, serve and web"
            up.send_signal(number)
            _, errors = up.communicate(timeout=120)
            assert (up.returncode, errors) == (0, "")
            assert all(has_ended(int(child)) for child in children)
        finally:
            up.kill()
    assert redis_server.client.ping()
