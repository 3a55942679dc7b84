"""One target under libFuzzer: `python -m tests.fuzz.one TARGET [libFuzzer options]`, started by `tests.fuzz`."""

from __future__ import annotations

import argparse
import logging
import sys

import atheris

with atheris.instrument_imports(include=["ari_conf"]):
    from tests.fuzz.targets import TARGETS

import structlog

if __name__ == "__main__":
    # Log entries about bad inputs are not needed for millions of inputs.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    given, options = parser.parse_known_args()
    atheris.Setup([sys.argv[0], *options], TARGETS[given.target])
    atheris.Fuzz()
