"""The manual pages: one of each command, without a warning of groff, with what the command's own help says."""

from __future__ import annotations

import subprocess

import pytest
from typer.main import get_command

from ari_conf.cli.main import app
from ari_conf.common.version import VERSION
from ari_conf.settings import settings_table
from tools import man
from tools.reference.cli import commands


def groff(*options: str, source: str) -> subprocess.CompletedProcess[str]:
    """Format for a terminal without bold and italics, with all warnings."""
    command = ["groff", "-man", "-ww", "-K", "utf8", "-T", "utf8", "-P", "-cbou", *options]
    return subprocess.run(command, input=source, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def shown() -> dict[str, str]:
    """Return each page as a reader sees it, by its name, in long lines. Fails if groff warns."""
    found = {}
    for name, source in man.pages().items():
        ran = groff("-r", "LL=900n", source=source)
        assert (ran.returncode, ran.stderr) == (0, ""), name
        found[name.removesuffix(".1")] = ran.stdout
    return found


def test_each_command_has_a_page_which_names_what_is_around_it(shown):
    paths = {path.replace(" ", "-"): command for path, command in commands(get_command(app))}
    assert set(shown) == set(paths)
    for name, command in paths.items():
        inner = [f"{name}-{word}(1)" for word in getattr(command, "commands", {})]
        above = [f"{other}(1)" for other in paths if name.startswith(f"{other}-")]
        assert all(other in shown[name] for other in [*inner, *above])


def test_a_page_says_what_the_help_says(shown):
    page = shown["ari-conf-account-add"]
    assert "ari-conf-account-add - Create an account and print its token\n" in page
    assert "ari-conf account add [OPTIONS] [ACCOUNT]\n" in page
    assert "--max-members N\n" in page and "Maximum and default of maxMembers of a conference. Default: 20." in page
    assert "--answer-method GET|POST\n" in page
    assert f"ari_conf {VERSION}" in page


def test_the_pages_of_what_reads_settings_list_them(shown):
    assert all(variable in shown["ari-conf-serve"] for variable, _, _ in settings_table())
    assert "ARI_CONF_TRUNK_HOST" in shown["ari-conf-asterisk-configure"]
    assert "ari-conf-serve(1) lists them" in shown["ari-conf-worker"]


def test_the_date_is_that_of_the_source(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert '"1970-01-02"' in man.pages()["ari-conf.1"].splitlines()[0]


def test_text_that_roff_would_take_for_a_request_is_shown():
    lines = "\n".join(man.text(line) for line in (".so /etc/passwd", "'in 5", r"a \fB `\d-'\`'"))
    said = groff(source=f".TH X 1\n.nf\n{lines}\n")
    # Some versions of groff print a typographic apostrophe.
    shown = [line.strip().replace("’", "'") for line in said.stdout.splitlines() if line]
    assert shown[1:4] == [".so /etc/passwd", "'in 5", r"a \fB \d-'\'"] and not said.stderr
