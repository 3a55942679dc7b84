# `make` alone says what there is. Everything lands in .venv, .tox and .local here, except what apt-get installs.
PYTHON ?= python3
VENV := .venv
LOCAL := .local

.DEFAULT_GOAL := help
.PHONY: help demo up test conformance lint format bench-callbacks bench-recordings chaos soak bench bench-core fuzz asterisk clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## */  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

demo: $(VENV)/.installed asterisk  ## a conference of three callers on this machine, from nothing
	@$(VENV)/bin/python -m demo

up: $(VENV)/.installed asterisk  ## the whole system in the foreground, to call with a softphone; UP="--answer-url URL", --help
	@$(VENV)/bin/ari-conf up $(UP)

test: $(VENV)/.tox asterisk $(LOCAL)/packages-of-tests  ## everything that CI runs
	@$(VENV)/bin/tox run

conformance: $(VENV)/.tox asterisk  ## the specification, row by row, with callers on a real Asterisk: docs/conformance.md
	@CONFORMANCE_TABLE=docs/conformance.md $(VENV)/bin/tox run -e py -- -q tests/integration/conformance; \
	    held=$$?; cat docs/conformance.md; exit $$held

fuzz: $(VENV)/.tox  ## bad input by the million, guided by what code it reaches: docs/fuzzing.md; FUZZ="--seconds 600 document"
	@$(VENV)/bin/tox run -q -e fuzz -- $(FUZZ)

lint: $(VENV)/.tox  ## the checks of the code, without the tests
	@$(VENV)/bin/tox run -e lint

format: $(VENV)/.tox  ## the code in its one format
	@$(VENV)/bin/tox exec -q -e lint -- sh -c 'ruff format . && ruff check --fix .'

bench: $(VENV)/.tox asterisk  ## what ours costs beside ConfBridge() and a bare Stasis application; BENCH="--quick", "--help"
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.bench $(BENCH)

bench-core: $(VENV)/.tox  ## the core alone, and the whole application without Asterisk, at up to 100,000 members; BENCH="--help"
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.bench.application $(BENCH)

bench-callbacks: $(VENV)/.tox  ## how fast, how soon and how fairly callbacks are delivered, beside a bare loop of requests
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.bench.callbacks $(BENCH)

bench-recordings: $(VENV)/.tox asterisk  ## how fast recordings are stored, beside the encoder and boto3 by hand, and in how much memory
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.bench.recordings

chaos: $(VENV)/.tox asterisk  ## everything is killed while callers talk, and nobody may notice; CHAOS="--seed 7 --minutes 5", --help
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.chaos $(CHAOS)

soak: $(VENV)/.tox asterisk  ## thousands of short calls, and what is left of them in memory; SOAK="--calls 5000", --help
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.bench.soak $(SOAK)

clean:  ## removes the virtual environments and what `up` and `demo` keep; not Asterisk, which takes a minute to get
	rm -rf $(VENV) .tox $(LOCAL)/up $(LOCAL)/demo

asterisk: $(LOCAL)/packages
	@asterisk/get $(LOCAL)/asterisk >/dev/null

# The programs, from the distribution; again only if the list of them has changed.
$(LOCAL)/packages: .ci/packages
	@.ci/packages
	@mkdir -p $(LOCAL) && touch $@

$(LOCAL)/packages-of-tests: .ci/packages
	@.ci/packages tests
	@mkdir -p $(LOCAL) && touch $@

$(VENV)/bin/pip: | $(LOCAL)/packages
	@echo "ari_conf: making a virtual environment in $(VENV)" >&2
	@$(PYTHON) -c 'import sys; sys.exit("ari_conf needs Python 3.11 or newer; this is %s. `make PYTHON=python3.11` takes another." % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/pip
	@echo "ari_conf: installing it and what it needs into $(VENV)" >&2
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[speech,embedded,phones,example]'
	@touch $@

$(VENV)/.tox: | $(VENV)/bin/pip
	@echo "ari_conf: installing tox into $(VENV)" >&2
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check 'tox>=4.30,<5'
	@touch $@
