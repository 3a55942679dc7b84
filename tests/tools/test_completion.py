"""The completion scripts for packages, in real shells: the Tab key, as a user presses it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pexpect
import pytest

from tools import completion
from tools.links import PROJECT

STARTS = {
    "bash": (["--norc", "--noprofile"], "source {folder}/ari-conf.bash"),
    "zsh": (["-f"], "fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D"),
}
"""Shell -> its options, and the line that does what its package does for the scripts of others."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment with an `ari-conf` in PATH that completes, and otherwise prints its arguments."""
    folder = tmp_path_factory.mktemp("completion")
    completion.write(folder)
    program = folder / "ari-conf"
    program.write_text(
        f'#!/bin/sh\n[ -z "$_ARI_CONF_COMPLETE" ] || exec {sys.executable} -m ari_conf "$@"\necho "got <$*>"\n'
    )
    program.chmod(0o755)
    named = {"HOME": str(folder), "TERM": "dumb", "PS1": "$ ", "COLUMNS": "200", "PYTHONPATH": str(PROJECT)}
    return named | {"PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin"}


@pytest.fixture(params=STARTS)
def shell(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[pexpect.spawn]:
    options, first = STARTS[request.param]
    child = pexpect.spawn(request.param, [*options, "-i"], env=environment, encoding="utf-8", timeout=60)
    child.sendline(f"{first.format(folder=environment['HOME'])}; echo loa''ded")
    child.expect_exact("loaded")
    yield child
    child.close(force=True)


def test_the_tab_key_completes_commands_and_options(shell: pexpect.spawn) -> None:
    shell.send("ari-conf acc\t")
    shell.expect("account")
    shell.send("rot\t")
    shell.expect("rotate-token")
    shell.send("--ke\t")
    shell.expect("--keep")
    shell.sendline("")
    shell.expect(r"got <(.*?)>")
    assert shell.match[1].split() == ["account", "rotate-token", "--keep"]


def test_fish_completes_commands_and_options(environment: dict[str, str]) -> None:
    def offered(line: str) -> list[str]:
        command = f"source {environment['HOME']}/ari-conf.fish; complete --do-complete '{line}'"
        ran = subprocess.run(
            ["fish", "--no-config", "-c", command], env=environment, capture_output=True, text=True, timeout=60
        )
        return [row.partition("\t")[0] for row in ran.stdout.splitlines()]

    assert offered("ari-conf acc") == ["account"]
    assert offered("ari-conf account rot") == ["rotate-token"]
    assert offered("ari-conf account rotate-token --ke") == ["--keep"]
