"""Tests of settings: their sources and precedence, mistakes in them, and the command that shows them."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ari_conf import settings as settings_module
from ari_conf import settings_warnings
from ari_conf.cli.main import app
from ari_conf.cli.settings import HIDDEN, print_example
from ari_conf.common import setting_sources
from ari_conf.errors import SettingsError
from ari_conf.local.system import settings_from_environment
from ari_conf.settings import SECRETS, Settings, from_environment, given, validate

SECRET = "secret-of-the-test"


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell would, without this machine's own settings."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("ARI_CONF_")}
    command = [sys.executable, "-m", "ari_conf", *words]
    environment = others | {"ARI_CONF_CONFIG": ""} | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def config(tmp_path):
    """Write a TOML file, and return the variable that names it."""

    def write(text: str) -> dict[str, str]:
        path = tmp_path / "ari_conf.toml"
        path.write_text(text)
        return {"ARI_CONF_CONFIG": str(path)}

    return write


@pytest.fixture
def here(monkeypatch):
    """Give settings to this process, by variables."""
    for name in [name for name in os.environ if name.startswith("ARI_CONF_")]:
        monkeypatch.delenv(name)

    def give(**environment: str) -> None:
        for name, value in ({"ARI_CONF_CONFIG": ""} | environment).items():
            monkeypatch.setenv(name, value)
        settings_module.settings.cache_clear()

    yield give
    settings_module.settings.cache_clear()


def write(path: Path, text: str, mode: int = 0o600) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def every_source(folder: Path, config) -> dict[str, str]:
    """Return variables by which each source gives ari_password another value; the key is the source."""
    write(folder / "credentials" / "ari_conf_ari_password", "credential\n")
    config(f'ari_password_file = "{write(folder / "in-config", "secret file of the file")}"')
    return {
        "environment": {"ARI_CONF_ARI_PASSWORD": "environment"},
        "secret file": {"ARI_CONF_ARI_PASSWORD_FILE": write(folder / "secret", "secret file\n")},
        "credential": {"CREDENTIALS_DIRECTORY": str(folder / "credentials")},
        "file": config('ari_password = "file"'),
    }


# Precedence.


def test_the_first_source_that_has_a_setting_counts(tmp_path, config):
    sources = every_source(tmp_path, config)
    order = ["environment", "credential", "file"]
    for first in range(len(order)):
        environment = {}
        for source in order[first:]:
            environment |= sources[source]
        found = given(environment)["ari_password"]
        assert (found.value, found.source) == (order[first],) * 2
        assert from_environment(environment).ari_password.get_secret_value() == order[first]
    with_file = sources["secret file"] | sources["credential"] | sources["file"]
    assert from_environment(with_file).ari_password.get_secret_value() == "secret file"
    assert from_environment({}).ari_password.get_secret_value() == "", "the default"


def test_a_setting_is_given_once_by_each_source(tmp_path, config):
    secret = write(tmp_path / "secret", "x")
    with pytest.raises(SettingsError, match="ARI_CONF_ARI_PASSWORD and ARI_CONF_ARI_PASSWORD_FILE are both set"):
        from_environment({"ARI_CONF_ARI_PASSWORD": "x", "ARI_CONF_ARI_PASSWORD_FILE": secret})
    with pytest.raises(SettingsError, match=r"ari_conf.toml: ari_password and ari_password_file are both set"):
        from_environment(config(f'ari_password = "x"\nari_password_file = "{secret}"'))


def test_the_default_file_is_read_if_it_exists_and_no_other_is_named(tmp_path, config, here, monkeypatch):
    default = tmp_path / "default.toml"
    monkeypatch.setattr(setting_sources, "DEFAULT_CONFIG", default)
    here()
    monkeypatch.delenv("ARI_CONF_CONFIG")
    assert settings_module.settings().ari_user == "ari_conf"
    default.write_text('ari_user = "default"')
    settings_module.settings.cache_clear()
    assert settings_module.settings().ari_user == "default"
    here(**config('ari_user = "named"'))
    assert settings_module.settings().ari_user == "named"
    here()  # the variable is empty: no file
    assert settings_module.settings().ari_user == "ari_conf"


def test_a_toml_file_has_typed_values(config):
    settings = from_environment(
        config(
            """
            asterisk_name = "pbx"
            api_rate = 7
            ari_deadline = 2.5
            s3_path_style = false
            allowed_networks = ["10.0.0.0/8", "fd00::/8"]
            trusted_proxies = ["127.0.0.1", "10.0.0.2"]
            sip_bind = "0.0.0.0:5060"  # asterisk/configure reads it
            """
        )
    )
    assert (settings.asterisk_name, settings.api_rate, settings.ari_deadline) == ("pbx", 7, 2.5)
    assert settings.s3_path_style is False and settings.trusted_proxies == "127.0.0.1,10.0.0.2"
    assert [str(network) for network in settings.allowed_networks] == ["10.0.0.0/8", "fd00::/8"]


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_each_secret_can_be_in_a_file_of_its_own(name, tmp_path, config):
    value = "redis://u:p@127.0.0.1/0" if name.endswith("_url") else SECRET * 3
    value = "postgresql://u:p@127.0.0.1/history" if name == "database_url" else value
    file = write(tmp_path / "secret", value + "\n")
    for environment in (
        {f"ARI_CONF_{name.upper()}_FILE": file},
        config(f'{name}_file = "{file}"'),
        config(f'{name}_file = "secret"'),  # relative to the folder of the TOML file
    ):
        assert getattr(from_environment(environment), name).get_secret_value() == value


def test_credentials_of_systemd_give_any_setting(tmp_path):
    write(tmp_path / "ARI_CONF_S3_SECRET_KEY", SECRET)
    write(tmp_path / "ari_conf_api_rate", "7\n")
    write(tmp_path / "ca.pem", "of another program")
    settings = from_environment({"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert settings.s3_secret_key.get_secret_value() == SECRET and settings.api_rate == 7
    assert from_environment({"CREDENTIALS_DIRECTORY": str(tmp_path / "nowhere")}).api_rate == 100


# Mistakes.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("api_rate = -1", "ari_conf.toml: api_rate: must be greater than or equal to 0"),
        ('api_rate = "many"', "ari_conf.toml: api_rate: must be a valid integer"),
        ("api_rate = true", "ari_conf.toml: api_rate: must not be true or false"),
        ("ari_deadline = inf", "ari_conf.toml: ari_deadline: must be a finite number"),
        ('ari_socket = "both"', "ari_conf.toml: ari_socket: must be 'inbound' or 'outbound'"),
        ("web_listen = 8080", "ari_conf.toml: web_listen: must be a valid string"),
        ("documents = 2020-01-01", "ari_conf.toml: documents: is not a valid path"),
        ('allowed_networks = ["10.0.0.1/8"]', "ari_conf.toml: allowed_networks: "),
        ("ari_password = 12345", "ari_conf.toml: ari_password: must be a valid string"),
        ("redis_url_file = 1", "ari_conf.toml: redis_url_file: must be the path of a file, in quotes"),
        ('[redis_url]\nhost = "x"', "ari_conf.toml: redis_url: a table is not allowed"),
        (f"ari_password = {SECRET}", "ari_conf.toml is not valid TOML: Invalid value (at line 1, column 16)"),
        (f'redis_url = "http://:{SECRET}@h/"', "ari_conf.toml: redis_url: must begin with one of redis://"),
        ('ari_password_file = "none"', "none, which "),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence_with_its_place(text, said, config):
    environment = config(text)
    with pytest.raises(SettingsError) as raised:
        from_environment(environment)
    assert said in str(raised.value) and str(Path(environment["ARI_CONF_CONFIG"]).parent) in str(raised.value)
    assert "\n" not in str(raised.value) and SECRET not in str(raised.value) and "12345" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (f"{SECRET}\n{SECRET}\n".encode(), "has several lines"),
        (b"\xff" + SECRET.encode(), "is not UTF-8 text"),
        (b"x" * (setting_sources.MAX_BYTES + 1), "is longer than 1000000 bytes"),
        (None, "could not be read: No such file or directory"),
    ],
)
def test_a_mistake_in_a_secret_file_is_one_sentence_with_its_place(content, said, tmp_path):
    secret = tmp_path / "ari_conf_ari_password"
    if content is not None:
        secret.write_bytes(content)
    with pytest.raises(SettingsError) as raised:
        from_environment({"ARI_CONF_ARI_PASSWORD_FILE": str(secret)})
    assert str(raised.value).startswith(f"{secret}, which ARI_CONF_ARI_PASSWORD_FILE names, {said}")
    assert SECRET not in str(raised.value)
    if content is not None:
        with pytest.raises(SettingsError) as raised:
            from_environment({"CREDENTIALS_DIRECTORY": str(tmp_path)})
        assert str(raised.value).startswith(f"{secret} {said}") and SECRET not in str(raised.value)


def test_a_named_file_that_can_t_be_read_is_an_error(tmp_path):
    for words, path, why in (
        (("web",), tmp_path / "none.toml", "No such file or directory"),
        (("serve",), tmp_path, "Is a directory"),
        (("account", "list"), tmp_path, "Is a directory"),
    ):
        result = run(*words, ARI_CONF_CONFIG=str(path))
        assert result.returncode == 1 and result.stderr == f"ari-conf: {path} could not be read: {why}\n"


def test_a_file_that_is_closed_to_this_user_is_an_error(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    root = os.geteuid() == 0
    if root:  # who can read every file
        os.seteuid(65534)
    try:
        with pytest.raises(SettingsError, match=r"closed/ari_conf.toml could not be read: Permission denied"):
            given({}, closed / "ari_conf.toml")
    finally:
        if root:
            os.seteuid(0)


def test_a_worker_reports_a_mistake_in_one_sentence(config):
    result = run("worker", **config("callback_threads = 0"))
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert "ari_conf.toml: callback_threads: must be greater than or equal to 1" in result.stderr


def test_no_mistake_shows_a_secret():
    for name in SECRETS:
        for bad in (SECRET, f"redis://{SECRET}:x@y:z:0/{SECRET}", f"redis+sentinel://:{SECRET}@", f"unix://{SECRET}"):
            try:
                from_environment({f"ARI_CONF_{name.upper()}": bad})
            except SettingsError as error:
                assert SECRET not in str(error) and str(error).startswith(f"settings: ARI_CONF_{name.upper()}: ")


# Warnings.


def test_a_misspelled_name_is_reported_with_a_suggestion(tmp_path, config):
    write(tmp_path / "credentials" / "ari_conf_redis_ulr", "x")
    write(tmp_path / "credentials" / "ari_password", "x")
    write(tmp_path / "credentials" / "ca.pem", "x")
    file = config('ARI_CONF_API_RATE = 1\nari_pasword = "x"\ns3_secret_key_fil = "x"\nsip_bind = "x"\n[redis]\nurl = 1')
    environment = file | {
        "ARI_CONF_REDIS_ULR": "x",
        "ARI_CONF_ZZZ": "x",
        "ARI_CONF_S3_BUCKET_FILE": "x",  # only secrets have files
        "ari_conf_web_listen": "x",
        "ARI_CONF_SIP_BIND": "x",
        "PATH": "x",
        "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"),
    }
    name, said = file["ARI_CONF_CONFIG"], settings_warnings.find(environment).unknown
    none = "`ari-conf serve --help` lists all settings"
    assert said == [
        f"{place} is not a setting and has no effect: {hint}"
        for place, hint in (
            ("ARI_CONF_REDIS_ULR", "did you mean ARI_CONF_REDIS_URL?"),
            ("ARI_CONF_S3_BUCKET_FILE", "did you mean ARI_CONF_S3_BUCKET?"),
            ("ARI_CONF_ZZZ", none),
            ("ari_conf_web_listen", "did you mean ARI_CONF_WEB_LISTEN?"),
            (f"credential {tmp_path}/credentials/ari_conf_redis_ulr", "did you mean ari_conf_redis_url?"),
            (f"credential {tmp_path}/credentials/ari_password", "did you mean ari_conf_ari_password?"),
            (f"{name}: ARI_CONF_API_RATE", "did you mean api_rate?"),
            (f"{name}: ari_pasword", "did you mean ari_password?"),
            (f"{name}: s3_secret_key_fil", "did you mean s3_secret_key_file?"),
            (f"{name}: redis", none),
        )
    ]


def test_a_secret_that_all_users_can_read_is_reported(tmp_path, config):
    def exposed(environment: dict[str, str]) -> list[str]:
        return [text.partition(" contains ")[0] for text in settings_warnings.find(environment).exposed]

    open_folder = tmp_path / "open"
    open_folder.mkdir()
    for folder in (open_folder, *open_folder.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    secret = write(open_folder / "secret", SECRET, 0o644)
    by_variable = {"ARI_CONF_ARI_PASSWORD_FILE": secret}
    assert exposed(by_variable) == [secret]
    Path(secret).chmod(0o640)
    assert exposed(by_variable) == []
    for text, expected in (
        ('ari_password = "x"', True),
        ('trunk_password = "x"', True),
        ('redis_url = "redis://:x@127.0.0.1/0"', True),
        ('redis_url = "redis://127.0.0.1/0"', False),
        ('ari_user = "x"', False),
    ):
        file = write(open_folder / "ari_conf.toml", text, 0o644)
        assert exposed({"ARI_CONF_CONFIG": file}) == ([file] if expected else []), text
    file = write(open_folder / "ari_conf.toml", 'ari_password = "x"', 0o644)
    open_folder.chmod(0o750)
    assert exposed({"ARI_CONF_CONFIG": file}) == [], "its folder is closed to other users"


def test_commands_and_processes_warn(redis_server):
    nowhere = {"ARI_CONF_REDIS_URL": redis_server.url, "ARI_CONF_REDIS_ULR": "x"}
    said = "ARI_CONF_REDIS_ULR is not a setting and has no effect: did you mean ARI_CONF_REDIS_URL?"
    result = run("account", "list", **nowhere)
    assert (result.returncode, result.stderr) == (0, f"ari-conf: warning: {said}\n")
    # Each process ends because its address is taken, after its log has begun.
    taken = f"127.0.0.1:{redis_server.port}"
    result = run("web", **nowhere, ARI_CONF_WEB_LISTEN=taken)
    assert said in [json.loads(line).get("reason") for line in result.stderr.splitlines() if line.startswith("{")]


# `ari-conf settings`.


def test_settings_shows_values_and_their_sources(tmp_path, config):
    secret = write(tmp_path / "secret", SECRET)
    write(tmp_path / "credentials" / "ari_conf_redis_url", f"redis://:{SECRET}@10.0.0.1:6379/0")
    environment = config(f'ari_password_file = "{secret}"\napi_rate = 7\ntranscription_key = "{SECRET}"') | {
        "ARI_CONF_SOUNDS_URL": "http://user:pass@10.0.0.5:8090/sounds",
        "ARI_CONF_ALLOWED_NETWORKS": "10.0.0.0/8,192.168.0.0/16",
        "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"),
    }
    result = run("settings", **environment)
    assert result.returncode == 0 and SECRET not in result.stdout + result.stderr
    rows = {line.split("\t")[0]: tuple(line.split("\t")[1:]) for line in result.stdout.splitlines()}
    assert set(rows) == {f"ARI_CONF_{name.upper()}" for name in Settings.model_fields}
    file = environment["ARI_CONF_CONFIG"]
    given_rows = {
        "ARI_CONF_REDIS_URL": (
            "redis://10.0.0.1:6379/0 (login hidden)",
            f"credential {tmp_path}/credentials/ari_conf_redis_url",
        ),
        "ARI_CONF_ARI_PASSWORD": (HIDDEN, f"secret file {secret}"),
        "ARI_CONF_TRANSCRIPTION_KEY": (HIDDEN, f"file {file}"),
        "ARI_CONF_API_RATE": ("7", f"file {file}"),
        "ARI_CONF_SOUNDS_URL": ("http://***@10.0.0.5:8090/sounds", "environment"),
        "ARI_CONF_ALLOWED_NETWORKS": ("10.0.0.0/8,192.168.0.0/16", "environment"),
    }
    assert given_rows.items() <= rows.items()
    assert rows["ARI_CONF_ARI_USER"] == ("ari_conf", "default") and rows["ARI_CONF_S3_ENDPOINT"] == ("", "default")
    changed = run("settings", "--changed", **environment).stdout
    assert {line.split("\t")[0] for line in changed.splitlines()} == set(given_rows)
    report = json.loads(run("settings", "--json", "--changed", **environment).stdout)
    assert report["config"] == file and SECRET not in str(report)
    by_name = {row["name"]: row for row in report["settings"]}
    assert by_name["api_rate"] == {
        "name": "api_rate",
        "variable": "ARI_CONF_API_RATE",
        "value": 7,
        "secret": False,
        "source": "file",
        "place": f"{file}: api_rate",
    }
    assert by_name["ari_password"]["value"] == HIDDEN and by_name["ari_password"]["secret"]


def test_the_example_has_each_setting_with_its_default(capsys):
    print_example()
    text = capsys.readouterr().out
    assert tomllib.loads(text) == {}, "all of it is comments"
    lines = [line[1:] for line in text.splitlines() if line.startswith("#") and not line.startswith("# ")]
    written = tomllib.loads("\n".join(lines))
    assert list(written) == list(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if field.default is None:
            assert written[name] == "..."
        else:
            found = {name: setting_sources.Given(written[name], "file", name)}
            assert getattr(validate(found), name) == field.default


# `ari-conf up`.


def test_up_takes_settings_of_all_sources_but_the_default_file(tmp_path, config, here, monkeypatch):
    default = tmp_path / "default.toml"
    default.write_text('s3_bucket = "production"')
    monkeypatch.setattr(setting_sources, "DEFAULT_CONFIG", default)
    secret = write(tmp_path / "secret", f"redis://:{SECRET}@127.0.0.1/0")
    here(**config("s3_path_style = false"), ARI_CONF_REDIS_URL_FILE=secret, ARI_CONF_SIP_BIND="127.0.0.1:5060")
    assert settings_from_environment() == {
        "ARI_CONF_REDIS_URL": f"redis://:{SECRET}@127.0.0.1/0",
        "ARI_CONF_S3_PATH_STYLE": "false",
        "ARI_CONF_SIP_BIND": "127.0.0.1:5060",
    }
    monkeypatch.delenv("ARI_CONF_CONFIG")
    assert "ARI_CONF_S3_BUCKET" not in settings_from_environment()


def test_commands_show_that_a_setting_is_of_a_started_system(tmp_path, here):
    (tmp_path / "values.json").write_text('{"ARI_CONF_S3_BUCKET": "of-up", "ARI_CONF_ARI_USER": "of-up"}')
    here(ARI_CONF_UP_FOLDER=str(tmp_path), ARI_CONF_ARI_USER="mine")
    result = CliRunner().invoke(app, ["settings", "--changed"])
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "ARI_CONF_ARI_USER\tmine\tenvironment",
        f"ARI_CONF_S3_BUCKET\tof-up\tup {tmp_path / 'values.json'}",
    ]
