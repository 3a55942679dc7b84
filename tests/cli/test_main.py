"""Tests of the commands as a user types them: their output and exit codes."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from msgspec import structs
from redis import Redis
from typer.testing import CliRunner

from ari_conf import settings as settings_module
from ari_conf.administration import removal
from ari_conf.cli.main import app
from ari_conf.core.effects import ReportProblem
from ari_conf.core.problem_kinds import ProblemKind
from ari_conf.errors import AccountError, SetupFailed
from ari_conf.queues import outbox, partitioned_queue
from ari_conf.queues.partitioned_queue import prefix
from ari_conf.recordings import jobs
from ari_conf.settings import from_environment, settings_table
from ari_conf.store import accounts, removals
from ari_conf.store.accounts import get
from ari_conf.store.problems import problems_key
from ari_conf.store.state_store import StateStore, Step, connect, state_key


def run(*words: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell would."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("ARI_CONF_")}
    command = [sys.executable, "-m", "ari_conf", *words]
    return subprocess.run(command, env=others | environment, input=given, capture_output=True, text=True, timeout=60)


@pytest.fixture
def typed(redis_server, monkeypatch):
    """Run a command within this process, which is faster, and return (exit code, output)."""
    monkeypatch.setenv("ARI_CONF_REDIS_URL", redis_server.url)
    settings_module.settings.cache_clear()

    def type_(*words: str, input: str | None = None) -> str:
        result = CliRunner().invoke(app, words, input=input)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    yield type_
    settings_module.settings.cache_clear()


# Failures.


def test_without_a_command_the_help_is_printed():
    said = run().stdout
    assert all(
        command in said for command in ("serve", "web", "worker", "up", "doctor", "account", "problems", "lanes")
    )


def test_an_error_is_one_sentence_on_stderr_and_exit_code_1():
    result = run("account", "list", ARI_CONF_REDIS_URL="redis://127.0.0.1:1/0")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("ari-conf: Redis is unavailable") and result.stderr.count("\n") == 1


def test_a_setting_that_is_wrong_is_named():
    result = run("serve", ARI_CONF_ARI_LISTEN="8089")
    assert result.returncode == 1
    assert "ARI_CONF_ARI_LISTEN" in result.stderr and "host:port" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("words", [["nonsense"], ["account", "show"], ["serve", "--nonsense"], ["problems"]])
def test_wrong_usage_is_exit_code_2(words):
    assert run(*words).returncode == 2


def test_the_help_of_serve_lists_every_setting():
    said = run("serve", "--help").stdout
    assert all(variable in said for variable, _, _ in settings_table())


# Accounts.


def test_a_token_is_shown_only_at_its_creation(typed, redis_server):
    made = typed("account", "add", "acme", "--answer-url", "https://acme.example/answer")
    token = get(redis_server.client, "acme").token
    assert token in made
    assert token not in typed("account", "show", "acme") + typed("account", "list")
    assert "https://acme.example/answer" in typed("account", "show", "acme")


def test_a_rotated_token_is_a_new_one_and_the_old_one_is_kept_for_a_while(typed, redis_server):
    typed("account", "add", "acme")
    old = get(redis_server.client, "acme").token
    said = typed("account", "rotate-token", "acme", "--keep", "1")
    record = get(redis_server.client, "acme")
    assert record.token in said and record.token != old and old not in said
    assert [kept.token for kept in record.old_tokens] == [old]
    assert "an older token signs until" in typed("account", "show", "acme")


def test_account_set_changes_only_the_given_fields(typed, redis_server):
    typed("account", "add", "acme", "--answer-url", "https://acme.example/a", "--hangup-url", "https://acme.example/h")
    token = get(redis_server.client, "acme").token
    assert "de" in typed("account", "set", "acme", "--transcription-language", "de-DE")
    assert "50" in typed("account", "set", "acme", "--max-members", "50")
    assert "90" in typed("account", "set", "acme", "--recordings-days", "90")
    assert get(redis_server.client, "acme").recordings_days == 90
    said = typed("account", "set", "acme", "--answer-url", "https://acme.example/b", "--hangup-method", "GET")
    record = get(redis_server.client, "acme")
    assert (record.answer_url, record.hangup_url) == ("https://acme.example/b", "https://acme.example/h")
    assert (record.answer_method, record.hangup_method, record.token) == ("POST", "GET", token)
    assert "https://acme.example/b" in said and token not in said
    typed("account", "set", "acme", "--hangup-url", "")
    assert get(redis_server.client, "acme").hangup_url is None


def test_a_token_is_given_by_a_file_or_standard_input_and_not_shown(typed, redis_server, tmp_path):
    file = tmp_path / "token"
    file.write_text("a" * 40 + "\n")
    assert "a" * 40 not in typed("account", "add", "acme", "--token-file", str(file))
    assert get(redis_server.client, "acme").token == "a" * 40
    assert "b" * 40 not in typed("account", "set", "acme", "--token-file", "-", input="b" * 40)
    record = get(redis_server.client, "acme")
    assert record.token == "b" * 40 and [old.token for old in record.old_tokens] == ["a" * 40]
    assert typed("account", "show", "acme", "--token") == "b" * 40 + "\n"


def test_accounts_are_exported_and_imported_with_their_tokens(typed, redis_server, tmp_path):
    typed("account", "add", "acme", "--answer-url", "https://acme.example/a")
    typed("account", "rotate-token", "acme")
    typed("account", "add", "other")
    before = {name: get(redis_server.client, name) for name in ("acme", "other")}
    file = tmp_path / "accounts"
    file.write_text(typed("account", "export"))
    redis_server.client.delete(accounts.KEY)
    assert "2 accounts were created" in typed("account", "import", str(file))
    assert {name: get(redis_server.client, name) for name in before} == before
    file.write_text('{"auth_id": "a,b", "token": "' + "x" * 40 + '", "created_ms": 0}\nnonsense\n' + file.read_text())
    result = run("account", "import", str(file), ARI_CONF_REDIS_URL=redis_server.url)
    assert result.returncode == 1 and "x" * 40 not in result.stderr
    assert re.findall(r"line (\d): (\w+)", result.stderr) == [
        ("1", "Auth"),
        ("2", "not"),
        ("3", "account"),
        ("4", "account"),
    ]


def test_a_forbidden_address_is_reported_when_it_is_set(typed):
    said = typed("account", "add", "acme", "--answer-url", "http://192.168.1.7:5000/answer")
    assert "requests to 192.168.1.7 are not allowed" in said and "ARI_CONF_ALLOWED_NETWORKS" in said
    said = typed("account", "set", "acme", "--hangup-url", "http://localhost/h")
    assert "requests to localhost are not allowed" in said
    assert "not allowed" not in typed("account", "set", "acme", "--answer-url", "https://acme.example/answer")


def test_the_samples_are_documents_that_run():
    samples = run("documents", "samples").stdout.split()
    assert len(samples) > 3 and run("documents", "check", *samples).returncode == 0


def test_asterisk_is_configured_as_by_the_script(tmp_path):
    script = Path(run("asterisk", "folder").stdout.strip()) / "configure"
    settings = os.environ | {"ARI_CONF_ARI_PASSWORD": "secret", "ARI_CONF_ANONYMOUS": "yes"}
    by_script = subprocess.run([script, tmp_path / "a"], env=settings, capture_output=True, text=True, check=True)
    said = run("asterisk", "configure", str(tmp_path / "b"), ARI_CONF_ARI_PASSWORD="secret", ARI_CONF_ANONYMOUS="yes")
    assert said.stderr == by_script.stderr.replace("asterisk/configure: ", "ari-conf asterisk configure: ")
    for path in (tmp_path / "a").iterdir():
        expected = path.read_text().replace(str(tmp_path / "a"), str(tmp_path / "b"))
        assert (tmp_path / "b" / path.name).read_text() == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["FOLDER"], "FOLDER/ari.conf exists, so nothing was written"),
        (["--merge", "--force", "FOLDER"], "`--force` is not allowed with `--merge`"),
        (["--print", "nothing.conf"], "nothing.conf does not exist; the files are: ari.conf"),
        (["/proc/x"], "/proc/x: No such file or directory"),
    ],
)
def test_what_asterisk_configure_refuses_is_one_sentence(tmp_path, words, said):
    (tmp_path / "ari.conf").touch()
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    result = run("asterisk", "configure", *words, ARI_CONF_ARI_PASSWORD="secret")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith(f"ari-conf: {said.replace('FOLDER', str(tmp_path))}")


def test_the_options_of_asterisk_configure_are_those_of_the_script(tmp_path):
    printed = run("asterisk", "configure", "--print", "http.conf", ARI_CONF_ARI_PASSWORD="secret").stdout
    assert "the whole file" in printed and "sessionlimit" in printed
    shown = run("asterisk", "configure", "--diff", str(tmp_path), "http.conf", ARI_CONF_ARI_PASSWORD="secret").stdout
    assert "+sessionlimit" in shown and not [*tmp_path.iterdir()]
    run("asterisk", "configure", "--force", str(tmp_path), "http.conf", ARI_CONF_ARI_PASSWORD="secret")
    assert [path.name for path in tmp_path.iterdir()] == ["http.conf"]
    assert "ARI_CONF_TRUNK_HOST" in run("asterisk", "configure", "--help").stdout


@pytest.mark.parametrize(("command", "package"), [("demo", "numpy"), ("example", "plivo")])
def test_without_the_packages_of_an_extra_its_programs_name_it(monkeypatch, command, package):
    monkeypatch.setattr("ari_conf.cli.demo.find_spec", lambda name: None)
    result = CliRunner().invoke(app, [command])
    assert isinstance(result.exception, SetupFailed)
    assert re.match(rf"{package} is not installed: run `\S+ -m pip install '\S+\[\w+\]'`$", str(result.exception))


def test_version_is_printed():
    assert re.fullmatch(r"ari-conf \d+\.\d+\S*\n", run("--version").stdout)


@pytest.mark.parametrize(
    ("begun", "offered"),
    [("acc", ["account"]), ("account ro", ["rotate-token"]), ("account set --answer-u", ["--answer-url"])],
)
def test_shell_completion_works(begun, offered):
    words = f"ari-conf {begun}"
    asked = {"_ARI_CONF_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    assert run(**asked).stdout.split() == offered


@pytest.fixture
def working(redis_server):
    """Let a worker make one attempt after another at the removal of an account, without its delays."""
    stopping = threading.Event()

    def work() -> None:
        settings = from_environment({"ARI_CONF_REDIS_URL": redis_server.url})
        client = Redis.from_url(redis_server.url)
        while not stopping.wait(0.01):
            client.zadd("ari_conf:removals:workers", {"w": 2**50})
            removals.change(client, "acme", lambda now: structs.replace(now, phase_ms=1), None)
            removal.advance(client, settings, "acme", lambda: True)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stopping.set()
    thread.join()


def live_call(redis_server) -> None:
    call = json.dumps({"type": "Call", "auth_id": "acme"})
    redis_server.client.hset(state_key("pbx"), "u1", call)


def test_an_account_with_live_calls_is_not_removed_without_a_choice(typed, redis_server):
    typed("account", "add", "acme")
    live_call(redis_server)
    result = run("account", "remove", "acme", ARI_CONF_REDIS_URL=redis_server.url)
    assert result.returncode == 1 and "has live calls (1) in 0 conferences" in result.stderr
    assert "`--hang-up`" in result.stderr and get(redis_server.client, "acme") is not None
    result = run("account", "remove", "acme", "--hang-up", "--keep-calls", ARI_CONF_REDIS_URL=redis_server.url)
    assert result.returncode == 1 and "exclude each other" in result.stderr


def test_kept_calls_are_named_and_the_command_does_not_wait_for_them(typed, redis_server):
    typed("account", "add", "acme")
    live_call(redis_server)
    said = typed("account", "remove", "acme", "--keep-calls")
    assert "Left now: 1 call." in said and "Its calls continue." in said
    assert get(redis_server.client, "acme") is None
    assert "waiting until its calls have ended; left: 1 call" in typed("account", "show", "acme")
    assert "acme\t\tbeing removed" in typed("account", "list")


def test_what_is_left_of_a_removed_account_is_named_and_purged_later(typed, redis_server, working):
    typed("account", "add", "acme")
    redis_server.client.lpush("ari_conf:callbacks:delivered:acme", "{}")
    said = " ".join(typed("account", "remove", "acme").split())
    assert "Account acme was removed. Left: 1 delivered callback; its Auth ID remains in use." in said
    assert "removed; left: 1 delivered callback" in typed("account", "show", "acme")
    result = run("account", "add", "acme", ARI_CONF_REDIS_URL=redis_server.url)
    assert result.returncode == 1 and "1 delivered callback of a removed account acme" in result.stderr
    assert typed("account", "remove", "acme", "--purge").endswith("Account acme was removed.\n")
    typed("account", "add", "acme")


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_import_without_accounts_is_an_error(content, redis_server, tmp_path):
    file = tmp_path / "accounts"
    file.write_text(content)
    result = run("account", "import", str(file), ARI_CONF_REDIS_URL=redis_server.url)
    assert result.returncode == 1 and f"{file} has no accounts" in result.stderr
    assert "created" not in result.stdout + result.stderr


def test_an_import_gives_no_data_of_a_removed_account_away(typed, redis_server, tmp_path):
    typed("account", "add", "acme")
    file = tmp_path / "accounts"
    file.write_text(typed("account", "export"))
    redis_server.client.delete(accounts.KEY)
    redis_server.client.zadd("ari_conf:recording-index:acme:all:", {"r1": 1})
    result = run("account", "import", str(file), ARI_CONF_REDIS_URL=redis_server.url)
    assert result.returncode == 1 and "line 1: 1 recording of a removed account acme" in result.stderr
    assert "1 accounts were created" in typed("account", "import", str(file), "--with-its-data")


def test_a_removed_account_no_longer_exists(typed, redis_server, working):
    typed("account", "add", "acme")
    said = typed("account", "remove", "acme")
    assert "its calls are refused from now on" in said and said.endswith("Account acme was removed.\n")
    assert get(redis_server.client, "acme") is None
    assert run("account", "show", "acme", ARI_CONF_REDIS_URL=redis_server.url).returncode == 1


def test_without_a_worker_the_command_says_that_nothing_happens(typed, redis_server, monkeypatch):
    monkeypatch.setattr("ari_conf.cli.accounts.NO_WORKER_S", 0.1)
    typed("account", "add", "acme")
    with pytest.raises(AccountError, match="no worker removes accounts now: start `ari-conf worker`"):
        typed("account", "remove", "acme")
    assert get(redis_server.client, "acme") is None
    assert "is being removed" in typed("account", "remove", "acme", "--no-wait")


def test_a_purge_asks_on_a_terminal(redis_server, monkeypatch, typed):
    typed("account", "add", "acme")
    redis_server.client.lpush("ari_conf:callbacks:delivered:acme", "{}")
    master, terminal = pty.openpty()
    environment = {**os.environ, "ARI_CONF_REDIS_URL": redis_server.url}
    command = [sys.executable, "-m", "ari_conf", "account", "remove", "acme", "--purge", "--no-wait"]
    process = subprocess.Popen(command, env=environment, stdin=terminal, stdout=subprocess.PIPE, text=True)
    os.write(master, b"n\n")
    assert process.stdout is not None and "Delete 1 delivered callback of account acme?" in process.stdout.read()
    assert process.wait(30) == 1 and get(redis_server.client, "acme") is not None
    os.close(master)
    os.close(terminal)


def test_the_audit_log_names_the_user_of_each_command(typed, redis_server, monkeypatch):
    monkeypatch.setenv("SUDO_USER", "bob")
    typed("account", "add", "acme", "--answer-url", "https://u:pw@a.example/?key=secret")
    typed("account", "set", "acme", "--max-members", "50")
    typed("account", "rotate-token", "acme")
    typed("account", "add", "other")
    said = typed("audit", "acme")
    rows = [line.split("\t") for line in said.splitlines()]
    assert [row[3:5] for row in rows] == [["token rotated", "acme"], ["changed", "acme"], ["created", "acme"]]
    assert all(row[1].startswith("bob@") and row[2] == "cli" for row in rows)
    assert rows[1][5] == "max_members: 20 → 50" and "pw" not in said and "secret" not in said
    assert len(typed("audit").splitlines()) == 4 and len(typed("audit", "--limit", "1").splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "nobody"], "account nobody does not exist"),
        (["remove", "nobody"], "account nobody does not exist"),
        (["rotate-token", "nobody"], "account nobody does not exist"),
        (["set", "nobody", "--answer-url", "https://acme.example/"], "account nobody does not exist"),
        (["set", "nobody"], "nothing to change: no option was set"),
        (["add", "acme", "--token-file", "/nowhere/token"], "could not be read from /nowhere/token: No such file"),
        (["add", "acme", "--token-file", "/etc/hostname"], "16 to 100 letters and digits"),
        (["add", "a,b"], "expected 1 to 40 letters and digits"),
        (["add", "acme", "--answer-url", "ftp://acme"], "absolute http or https URL"),
        (["add", "acme", "--answer-method", "PUT"], "GET or POST"),
        (["add", "acme", "--recordings-days", "-1"], "recordings_days: -1 is not allowed; expected"),
    ],
)
def test_invalid_account_fields_are_refused(redis_server, words, says):
    result = run("account", *words, ARI_CONF_REDIS_URL=redis_server.url)
    assert result.returncode == 1 and says in result.stderr


# Problems and callbacks.


@pytest.mark.parametrize(
    "words",
    [
        ("account", "show", "acme"),
        ("account", "set", "acme", "--hangup-url", ""),
        ("problems", "acme"),
        ("account", "rotate-token", "acme"),
    ],
)
def test_a_damaged_account_record_is_reported_in_a_sentence(redis_server, words):
    redis_server.client.hset(accounts.KEY, "acme", b'{"auth_id": 7')
    result = run(*words, ARI_CONF_REDIS_URL=redis_server.url)
    assert result.returncode == 1 and result.stderr.startswith(
        "ari-conf: the record of account acme in Redis could not be read"
    )
    assert "ari-conf account remove" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("words", [["problems"], ["dead-letters", "list"]])
def test_an_account_that_does_not_exist_has_no_problems_and_dead_letters(redis_server, words):
    result = run(*words, "nobody", ARI_CONF_REDIS_URL=redis_server.url)
    assert (result.returncode, result.stderr) == (1, "ari-conf: account nobody does not exist\n")


async def test_the_problems_of_an_account(typed, redis_server):
    client = connect(redis_server.url)
    report = ReportProblem("acme", "call-1", ProblemKind.DOCUMENT_INVALID, 8011, "the document is no XML")
    await StateStore(client, "here").write([Step(1_700_000_000_000, problems=[report])])
    await client.aclose()
    assert "2023-11-14 22:13:20 UTC\tdocument_invalid\t8011\tcall-1\tthe document is no XML" in typed(
        "problems", "acme"
    )
    typed("account", "add", "other")
    assert typed("problems", "other") == ""


def test_empty_lists_say_so(typed):
    typed("account", "add", "acme")
    assert typed("lanes") == typed("dead-letters", "list", "acme") == ""
    assert "0 callbacks will be resent" in typed("dead-letters", "resend", "acme")


def test_a_dead_letter_that_does_not_exist_is_an_error(redis_server):
    result = run("dead-letters", "show", "acme", "1-1", ARI_CONF_REDIS_URL=redis_server.url)
    assert result.returncode == 1 and "no dead letter 1-1" in result.stderr


# Documents.


def test_a_document_that_can_be_run(tmp_path):
    (tmp_path / "good.xml").write_text("<Response><Speak>Hi</Speak><Conference>demo</Conference></Response>")
    result = run("documents", "check", str(tmp_path / "good.xml"))
    assert result.returncode == 0 and "Speak, Conference" in result.stdout


def test_a_document_s_warning_is_printed_and_is_no_failure(tmp_path):
    (tmp_path / "odd.xml").write_text('<Response><Conference muted="on">demo</Conference></Response>')
    result = run("documents", "check", str(tmp_path / "odd.xml"))
    assert result.returncode == 0 and "muted" in result.stdout and "true or false" in result.stdout


@pytest.mark.parametrize(
    ("inside", "told"),
    [
        ("", "nothing: the call is hung up"),
        ("<Dial><Sip>1</Sip></Dial>", "Dial: it has no Number or User"),
        ("<Conferense>demo</Conferense><Wait/>", "did you mean Conference?"),
        ("<GetDigits><Message/></GetDigits>", "Message is not supported"),
        ("<Speak> </Speak><Wait/>", "it has no text; it is skipped"),
        ("<Play>hello.wav</Play><Wait/>", "must be an absolute http or https URL: it is skipped"),
    ],
)
def test_a_document_with_a_skipped_element_is_a_failure(tmp_path, inside, told):
    (tmp_path / "odd.xml").write_text(f"<Response>{inside}</Response>")
    result = CliRunner().invoke(app, ["documents", "check", str(tmp_path / "odd.xml")])
    assert result.exit_code == 1 and told in result.output


def test_a_document_from_standard_input():
    result = run("documents", "check", "-", given="<Response><Wait/></Response>")
    assert (result.returncode, result.stdout) == (0, "standard input: Wait\n")
    result = run("documents", "check", "-", given="<Response>" + " " * 200_000)
    assert result.returncode == 1 and "at most 102400 (100 KB) are allowed" in result.stdout


def test_max_members_above_the_default_limit_is_reported(tmp_path):
    (tmp_path / "large.xml").write_text('<Response><Conference maxMembers="21">all</Conference></Response>')
    result = CliRunner().invoke(app, ["documents", "check", str(tmp_path / "large.xml")])
    assert result.exit_code == 0 and 'maxMembers="21" is not allowed' in result.output
    assert "--max-members" in result.output


def test_documents_are_checked_with_the_voices_of_this_machine(tmp_path):
    (tmp_path / "klingon.xml").write_text('<Response><Speak language="tlh">nuqneH</Speak></Response>')
    result = CliRunner().invoke(app, ["documents", "check", str(tmp_path / "klingon.xml")])
    assert result.exit_code == 0
    assert 'no installed voice speaks language="tlh"; en-US is used' in result.output


def test_documents_that_can_not_be_run(tmp_path):
    (tmp_path / "bad.xml").write_text("<Response><Conference>")
    result = run("documents", "check", str(tmp_path / "bad.xml"), str(tmp_path / "none.xml"))
    assert result.returncode == 1
    assert "bad.xml: can't be run" in result.stdout and "none.xml: could not be read" in result.stdout


# Text of callers, tenants and servers on a terminal.

HOSTILE = "\x1b]0;PWNED\x07\x9b31m\u202e[/evil][link=http://evil.example][bold]x"
OBEYED = re.compile("\x1b(?!\\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u202e]")
"""Control characters, except the styles of the command's own tables, and line ends."""


def on_a_terminal(*words: str, **environment: str) -> str:
    """Return the output of the command on a terminal of its own."""
    ours, its = pty.openpty()
    others = {name: value for name, value in os.environ.items() if not name.startswith("ARI_CONF_")}
    others |= {"TERM": "xterm-256color", "COLUMNS": "400"}
    command = [sys.executable, "-m", "ari_conf", *words]
    process = subprocess.Popen(command, env=others | environment, stdin=its, stdout=its, stderr=its)
    os.close(its)
    said = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal, suppress(OSError):  # the end of a terminal is an OSError
        while chunk := terminal.read(65536):
            said += chunk
    assert process.wait(60) in (0, 1)
    return said.decode(errors="backslashreplace")


@pytest.fixture
def hostile(redis_server, tmp_path):
    """Write data of every kind that a command prints, as an older version may have written it. Return the commands that
    print it."""
    redis = redis_server.client
    accounts.add(redis, 0, "acme")
    redis.lpush(
        problems_key("acme"), json.dumps({"at_ms": 1, "call_uuid": HOSTILE, "kind": "account_unknown", "text": HOSTILE})
    )
    tries = (outbox.Attempt(1, 1, error=HOSTILE),)
    entry = outbox.CallbackEntry(
        "acme", f"http://example.com/{HOSTILE}", "POST", ((HOSTILE, HOSTILE),), 1, tries, HOSTILE
    )
    partitioned_queue.enqueue(redis, [("acme:o:l", outbox.encode(entry))])
    fields = {"partition": "acme:o:l", "entry": outbox.encode(entry)}
    letter = redis.xadd(f"{prefix(outbox.QUEUE)}dead-letters:acme", fields).decode()
    job = jobs.TranscriptionJob(recording_id=HOSTILE, auth_id="acme", at_ms=1, error=HOSTILE)
    partitioned_queue.enqueue(redis, [("acme:o:r", msgspec.json.encode(job))], jobs.TRANSCRIPTION_QUEUE)
    fields = {"partition": "acme:o:r", "entry": msgspec.json.encode(job)}
    redis.xadd(f"{prefix(jobs.TRANSCRIPTION_QUEUE)}dead-letters:acme", fields)
    document = tmp_path / "hostile.xml"
    document.write_text("<Response><Conference muted='&#x9b;31m\u202e[/evil]PWNED'>demo</Conference></Response>")
    return [
        ("problems", "acme"),
        ("lanes",),
        ("dead-letters", "list", "acme"),
        ("dead-letters", "show", "acme", letter),
        ("recordings", "pending"),
        ("recordings", "lost"),
        ("documents", "check", str(document)),
        ("account", "show", HOSTILE.replace("\x00", "")),
        ("problems", HOSTILE),
    ]


def test_control_characters_are_escaped_on_a_terminal(hostile, redis_server):
    for words in hostile:
        said = on_a_terminal(*words, ARI_CONF_REDIS_URL=redis_server.url)
        assert "PWNED" in said, words
        assert "[/evil]" in said, f"{words}: markup in the data must not style the output"
        assert not OBEYED.search(said), words
        assert "\x1b]8;" not in said


def test_control_characters_are_escaped_in_lines_for_programs(hostile, redis_server):
    for words in hostile[:-1]:  # a command that finds nothing prints nothing there
        said = run(*words, ARI_CONF_REDIS_URL=redis_server.url)
        assert "PWNED" in said.stdout + said.stderr, words
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", said.stdout + said.stderr), words
