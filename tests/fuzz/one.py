"""One target under libFuzzer: `python -m tests.fuzz.one TARGET [libFuzzer's options]`; `tests.fuzz` runs it."""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["ari_conf"]):
    from tests.fuzz.targets import TARGETS

import structlog

if __name__ == "__main__":
    # What is logged of a bad input is its reader's; millions of them are nobody's.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    target = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[target])
    atheris.Fuzz()
