# Signalbox: everything a contributor or a newcomer runs. `make` alone lists the targets.
# Needs make, git and Python 3.11 or newer; all else comes from the lock files.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.signalbox-setup
PYTEST := $(BIN)/pytest
# Two targets at a time, and what each one says in one piece.
TWO := $(MAKE) --no-print-directory -j2 $(if $(filter output-sync,$(.FEATURES)),-Otarget)
CHECKS := unit contract types lint imports schemas golden-diff
LOCK := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	--no-annotate --quiet

# Which tests `unit`, `integration` and `faults` run: `make unit T="tests/unit/router -k offer"`.
T ?=
# What `demo` and `bench` are told besides: `make demo ARGS=--keep`.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types imports schemas unit contract openapi golden-diff \
	integration e2e browser faults bench promtool check-deploy check-dashboards check-image evidence golden docs \
	format lock clean

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' \
		$(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## Make .venv with the signalbox command (the other targets do it themselves)

# Where uv is not installed, the venv module and pip bring the one that the lock pins.
$(STAMP): requirements-dev.lock requirements-uv.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
		echo "Signalbox needs Python 3.11 or newer, and there is no '$(PYTHON)' here." \
			"Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Signalbox needs Python 3.11 or newer, and '$(PYTHON)' is" \
			"$$($(PYTHON) -V 2>&1). Name a newer one: make setup PYTHON=python3.12" >&2; exit 1; }
	@if [ -d $(VENV) ] && ! $(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		2>/dev/null; then rm -rf $(VENV); fi
	@set -e; \
	if command -v uv >/dev/null; then \
		uv=uv; \
		[ -d $(VENV) ] || uv venv --quiet --python "$$(command -v $(PYTHON))" $(VENV); \
	else \
		uv=$(BIN)/uv; \
		$$uv --version >/dev/null 2>&1 || { \
			rm -rf $(VENV); \
			$(PYTHON) -m venv $(VENV) || { \
				echo "Python's venv module does not work here; on Debian and Ubuntu:" \
					"apt-get install python3-venv. Or install uv." >&2; exit 1; }; \
			$(PY) -m pip install --quiet --disable-pip-version-check --no-deps \
				--require-hashes --requirement requirements-uv.lock; }; \
	fi; \
	$$uv pip sync --quiet --python $(PY) --require-hashes requirements-dev.lock; \
	$$uv pip install --quiet --python $(PY) --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## A shop's day, end to end, on a real Kafka and PostgreSQL (ARGS=--keep leaves it running)
	@$(BIN)/signalbox demo $(ARGS)

# Integration tests mostly wait for servers: what needs a processor runs beside them.
test: setup ## Every test but the fault tests: check, integration, e2e
	+@$(TWO) integration $(CHECKS)
	@$(MAKE) --no-print-directory e2e

check: setup ## Linters, types, contracts, unit tests
	+@$(TWO) $(CHECKS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports --no-logo

schemas: setup
	$(PY) -m schemas.check
	$(PY) -m cli.docs --check

unit: setup ## The rules, each side of each edge, in milliseconds
	$(PYTEST) $(or $(T),tests/unit)

contract: setup
	$(PYTEST) $(or $(T),tests/contract)

openapi: setup ## The gateway against its OpenAPI, with many more requests than `contract` sends (some minutes)
	SIGNALBOX_OPENAPI_EXAMPLES=400 $(PYTEST) --timeout=1800 tests/contract/test_openapi.py

golden-diff: setup
	$(PYTEST) $(or $(T),tests/golden)

integration: setup ## One service at a time on a real Kafka and PostgreSQL
	$(PYTEST) $(or $(T),tests/integration)

e2e: setup ## What the README promises, with every process
	$(PYTEST) $(or $(T),tests/e2e)

browser: ## Install Debian's Chromium for the web chat's tests, where no browser is found (needs root)
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v $$name >/dev/null && exit 0; done; \
	command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium \
		|| echo "No Chromium is here and none could be installed: the web chat's tests will be skipped." >&2

faults: setup ## Attacks on the running whole, seeded (SEED=… repeats one)
	$(PYTEST) --timeout=480 $(or $(T),tests/faults)

bench: setup ## Broker to broker, durable, against this machine's own limits
	@$(BIN)/signalbox bench hop $(ARGS)

promtool: ## Install Debian's Prometheus for the tests of the alerts, where no promtool is found (needs root)
	@command -v promtool >/dev/null && exit 0; \
	command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends prometheus \
		|| echo "No promtool is here and none could be installed: the alerts' cases will be skipped." >&2

check-deploy: setup promtool ## Rules, dashboards, image, chart: static, and on a real API server where one has been built
	$(PY) -m deploy.prometheus.slo --check
	$(PY) -m deploy.grafana.build --check
	$(PY) -m deploy.prometheus.lint
	$(PY) -m deploy.test.check_static
	$(PY) -m deploy.test.apiserver_check || [ $$? = 3 ]  # 3: no API server is built; it says how to.
	$(PYTEST) $(or $(T),tests/deploy)

check-dashboards: setup ## Every query of the dashboards on a real Prometheus that scrapes the demo (minutes)
	$(PY) -m deploy.test.check_dashboards $(ARGS)

check-image: setup ## Build the image and run every service of it, read-only, stopped by SIGTERM (needs root and podman; minutes)
	$(PY) -m deploy.test.check_image $(ARGS)

evidence: setup ## What the matcher does to waits, and how true promises are: docs/evidence/ (minutes)
	$(PY) -m bench.evidence_routing --write $(ARGS)
	$(PY) -m bench.promises --write

docs: setup ## Rewrite what is generated from code: schemas, docs/{events,metrics,settings,slo}.md, docs/openapi.json, rules, dashboards, chart
	$(PY) -m schemas.export
	$(PY) -m cli.docs
	$(PY) -m deploy.prometheus.slo
	$(PY) -m deploy.grafana.build
	$(PY) -m deploy.helm.topology --write

golden: docs ## Rewrite the golden files; read the diff like code
	SIGNALBOX_GOLDEN=write $(PYTEST) tests/golden

format: setup ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: setup ## Resolve the lock files anew (ARGS=--upgrade moves to the newest versions)
	$(BIN)/uv pip compile $(LOCK) $(ARGS) --extra local --extra dev \
		--output-file requirements-dev.lock pyproject.toml
	$(BIN)/uv pip compile $(LOCK) --extra local --constraint requirements-dev.lock \
		--output-file requirements.lock pyproject.toml
	echo uv | $(BIN)/uv pip compile $(LOCK) --constraint requirements-dev.lock \
		--output-file requirements-uv.lock -
	$(BIN)/uv pip compile $(LOCK) --constraint requirements.lock \
		--output-file deploy/docker/requirements.lock pyproject.toml
	printf 'hatchling\ncyclonedx-bom\n' | $(BIN)/uv pip compile $(LOCK) \
		--constraint requirements-dev.lock --output-file deploy/docker/requirements-build.lock -
	$(PY) -m chassis.local

clean: ## Remove .venv, caches and build products
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
