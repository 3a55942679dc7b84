# `make` alone lists the targets. Everything is installed in .venv, .tox and .local here, except apt-get's packages.
PYTHON ?= python3
VENV := .venv
LOCAL := .local
CONFORMANCE := tests/integration/conformance $(addprefix tests/integration/test_,$(addsuffix .py,calling_out call_parameters machine_detection dial_element member_calls call_recordings))

.DEFAULT_GOAL := help
.PHONY: help demo up test conformance lint format bench-callbacks bench-recordings chaos soak bench bench-core bench-placing fuzz docs dist deb deb-test containers-test deployment-test sizing machine-detection asterisk clean

help:  ## this list of targets
	@sed -n 's/^\([a-z-]*\):[^#]*## */  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

demo: $(VENV)/.installed asterisk  ## run a conference of three callers on this machine, without any setup
	@$(VENV)/bin/python -m demo

up: $(VENV)/.installed asterisk  ## run the whole system in the foreground, to call with a softphone; UP="--answer-url URL", --help
	@$(VENV)/bin/ari-conf up $(UP)

test: $(VENV)/.tox asterisk $(LOCAL)/packages-of-tests  ## run everything that CI runs
	@$(VENV)/bin/tox run

conformance: $(VENV)/.tox asterisk  ## test each row of the specification, with callers on a real Asterisk: docs/development/conformance.md
	@CONFORMANCE_TABLE=docs/development/conformance.md $(VENV)/bin/tox run -e py -- -q $(CONFORMANCE); \
	    held=$$?; cat docs/development/conformance.md; exit $$held

fuzz: $(VENV)/.tox  ## send millions of bad inputs, guided by code coverage: docs/development/fuzzing.md; FUZZ="--seconds 600 document"
	@$(VENV)/bin/tox run -q -e fuzz -- $(FUZZ)

lint: $(VENV)/.tox  ## run the code checks, without the tests
	@$(VENV)/bin/tox run -e lint

format: .tox/lint/.installed  ## format the code
	@$(VENV)/bin/tox exec -q -e lint -- sh -c 'ruff format . && ruff check --fix .'

docs: $(VENV)/.tox  ## build docs/ as a site in build/site, and check its links
	@$(VENV)/bin/tox run -q -e docs

dist: $(VENV)/.tox  ## build the sdist and the wheel in dist/, with manual pages and the completion of shells
	@$(VENV)/bin/tox run -q -e dist -- $(DIST)

deb: $(LOCAL)/packages-of-deb  ## build the Debian package in dist/, for the release of this machine; RELEASE=trixie, WITH=transcription
	@WITH=$(WITH) debian/build dist $(RELEASE)

deb-test: $(VENV)/.tox asterisk $(LOCAL)/packages-of-deb  ## build the Debian package for Debian 12 and 13, and try it in clean systems; RELEASE="trixie"
	@DEB_RELEASES="$(or $(RELEASE),bookworm trixie)" $(VENV)/bin/tox run -q -e py -- --numprocesses 0 -q tests/deb

bench: .tox/py/.installed asterisk  ## compare the cost with ConfBridge() and a bare Stasis application; BENCH="--quick", "--help"
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.bench $(BENCH)

bench-placing: .tox/py/.installed asterisk  ## compare the way from a request to its INVITE with a bare originate, and place calls while others arrive; BENCH="--help"
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.bench.placing $(BENCH)

bench-core: .tox/py/.installed  ## measure the core alone, and the whole server without Asterisk, at up to 100,000 members; BENCH="--help"
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.bench.application $(BENCH)

bench-callbacks: .tox/py/.installed  ## measure callback throughput, latency and fairness, compared with a bare loop of requests
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.bench.callbacks $(BENCH)

bench-recordings: .tox/py/.installed asterisk  ## measure the speed and memory of storing recordings, compared with the encoder and boto3 by hand
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.bench.recordings

chaos: .tox/py/.installed asterisk  ## kill every component while callers talk, and check that no caller notices; CHAOS="--seed 7 --minutes 5", --help
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.chaos $(CHAOS)

soak: .tox/py/.installed asterisk  ## make thousands of short calls, and measure what they leave in memory; SOAK="--calls 5000", --help
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.bench.soak $(SOAK)

sizing: .tox/py/.installed asterisk  ## measure what this machine carries: members, joins, callbacks, recordings; SIZING="--quick", "--help"
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.bench.sizing $(SIZING)

machine-detection: .tox/py/.installed asterisk  ## measure how often answering machines are recognized: docs/guide/machine-detection.md; MACHINES="--each", "--help"
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.machine_detection $(MACHINES)

containers-test: .tox/py/.installed $(LOCAL)/packages-of-containers  ## build the containers and run compose.yaml, as root and without a registry; CONTAINERS="--fresh"
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.containers $(CONTAINERS)

deployment-test: .tox/py/.installed asterisk $(LOCAL)/packages-of-containers  ## run the steps of docs/operations/deployment.md in an empty Debian 12, as root
	@$(VENV)/bin/tox exec -q -e py -- python -m tests.deployment

clean:  ## remove the virtual environments and the data of `up` and `demo`, but not Asterisk, which takes a minute to install
	rm -rf $(VENV) .tox $(LOCAL)/up $(LOCAL)/demo

asterisk: $(LOCAL)/packages
	@asterisk/get $(LOCAL)/asterisk >/dev/null

# The distribution's programs; they are installed again only if the list of them has changed.
$(LOCAL)/packages: .ci/packages
	@.ci/packages
	@mkdir -p $(LOCAL) && touch $@

$(LOCAL)/packages-of-tests: .ci/packages
	@.ci/packages tests
	@mkdir -p $(LOCAL) && touch $@

$(LOCAL)/packages-of-deb: .ci/packages
	@.ci/packages deb
	@mkdir -p $(LOCAL) && touch $@

$(LOCAL)/packages-of-containers: .ci/packages
	@.ci/packages containers
	@mkdir -p $(LOCAL) && touch $@

$(VENV)/bin/pip: | $(LOCAL)/packages
	@echo "ari_conf: making a virtual environment in $(VENV)" >&2
	@$(PYTHON) -c 'import sys; sys.exit("ari_conf needs Python 3.11 or newer; this is %s. `make PYTHON=python3.11` takes another." % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/pip
	@echo "ari_conf: installing it and what it needs into $(VENV)" >&2
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -e '.[speech,embedded,phones,example]'
	@touch $@

# What `tox run` installs, for `tox exec`, which does not.
.tox/%/.installed: setup.cfg tox.ini | $(VENV)/.tox
	@$(VENV)/bin/tox run -q -e $* --notest
	@touch $@

$(VENV)/.tox: | $(VENV)/bin/pip
	@echo "ari_conf: installing tox into $(VENV)" >&2
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check 'tox>=4.30,<5'
	@touch $@
