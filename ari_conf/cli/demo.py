"""Commands `ari-conf demo` and `ari-conf example`: programs in the folder demo/, which is no part of this package."""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec

from ari_conf.cli.terminal import say
from ari_conf.common.extras import extra
from ari_conf.common.installation import bundled_folder
from ari_conf.errors import SetupFailed


def run_demo() -> None:
    _require("numpy", of="phones")
    _run("demo")


def run_example(port: int) -> None:
    _require("plivo", of="example")
    say(f"source: {bundled_folder('demo') / 'example.py'}", soft_wrap=True)
    _run("demo.example", "--port", str(port))


def _require(package: str, of: str) -> None:
    """Raise SetupFailed unless the package of that extra is installed."""
    if find_spec(package) is None:
        raise SetupFailed(f"{package} is not installed: run {extra(of)}")


def _run(module: str, *arguments: str) -> None:
    """Run the module as `python -m` would, whatever other `demo` the working directory or PYTHONPATH contains."""
    sys.path.insert(0, str(bundled_folder("demo").parent))
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
