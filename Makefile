# moveout. `make` alone lists the targets. Everything happens in .venv; nothing outside the checkout is touched except
# the cache of built servers (~/.cache/moveout).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CASE ?= moveout.toml
FROM ?=
ARGS ?=
VENV := .venv
PY := $(VENV)/bin/python
MUTANTS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/moveout/mutants/venv
CORE := $(wildcard exporters/_rows/*.c exporters/_rows/*.h migrate/storage/*.c)
MOVEOUT := $(VENV)/bin/moveout
# Tests and demo start the program hundreds of times: it is compiled once, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(PY) -m pip --disable-pip-version-check --no-input

.PHONY: help discover doctor plan evacuate status export transfer verify restore clean setup demo handover servers test
.PHONY: torture pure sanitize mutants outsiders scoreboard check bench docs

help:
	@awk -F ':.*## ' '/^##@ / { print substr($$0, 5) ":" } \
	  /^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "CASE=FILE names the case file (default moveout.toml), ARGS='…' adds options:"
	@echo "  make plan CASE=my.toml ARGS=--json"
	@echo "Where a command fails, make says its exit code ('Error 3'; see README.md)"
	@echo "and ends with 2 itself."

##@ A move, in this order

discover: .servers-named $(VENV)/.ready ## list what FROM='URL …' has, and write the case file
	@$(MOVEOUT) discover $(if $(FROM),--to,-c) '$(CASE)' $(FROM) $(ARGS)

.servers-named: # before a setup of minutes
	@$(if $(FROM),,[ -e '$(CASE)' ] || { echo "→ name the servers: make discover FROM='postgresql://me@old s3://?profile=old'" >&2; exit 2; })

doctor: $(VENV)/.ready ## say what would go wrong, and how to repair it
	@$(MOVEOUT) doctor -c '$(CASE)' $(ARGS)

plan: $(VENV)/.ready ## what is there, and how long it will take
	@$(MOVEOUT) plan -c '$(CASE)' $(ARGS)

evacuate: $(VENV)/.ready ## the whole move, skipping what is done
	@$(MOVEOUT) run -c '$(CASE)' $(ARGS)

status: $(VENV)/.ready ## what is done and what is left
	@$(MOVEOUT) status -c '$(CASE)' $(ARGS)

##@ Its steps, one by one

export: $(VENV)/.ready ## write the bundle
	@$(MOVEOUT) export -c '$(CASE)' $(ARGS)

transfer: $(VENV)/.ready ## copy the bundle to another location
	@$(MOVEOUT) transfer -c '$(CASE)' $(ARGS)

verify: $(VENV)/.ready ## check the bundle
	@$(MOVEOUT) verify -c '$(CASE)' $(ARGS)

restore: $(VENV)/.ready ## restore databases and buckets on the new host
	@$(MOVEOUT) restore -c '$(CASE)' $(ARGS)

clean: $(VENV)/.ready ## remove what interrupted runs left behind (asks first)
	@$(MOVEOUT) clean -c '$(CASE)' $(ARGS)

##@ This checkout

setup: $(VENV)/.ready ## make the environment in .venv (done by itself where needed)

$(VENV)/.ready: requirements/dev.txt requirements/readers.txt pyproject.toml scripts/make_venv.sh $(CORE)
	@scripts/make_venv.sh $(VENV)
	@echo "setup: fetching and installing $$(grep -c == requirements/dev.txt) locked packages into $(VENV) (minutes) ..."
	@$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	@echo "setup: fetching pandas, by which tests read bundles, into $(VENV)/readers ..."
	@$(PIP) install --quiet --upgrade --no-deps --require-hashes --target $(VENV)/readers -r requirements/readers.txt
	@echo "setup: compiling the core, and installing moveout itself ..."
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@$(PY) -c 'from exporters import _rows; print(f"setup: rows are read by {_rows.row_path()} code")'
	@echo "setup: '. $(VENV)/bin/activate' lets your shell find the command moveout"
	@touch $@

$(VENV)/.bench: $(VENV)/.ready requirements/bench.txt requirements/peers.txt requirements/runtime.txt
	@echo "setup: installing the locked packages for benchmarks into $(VENV) ..."
	@$(PIP) install --quiet --require-hashes -r requirements/bench.txt
	@$(PIP) install --quiet --upgrade --require-hashes --target $(VENV)/peers -r requirements/peers.txt
	@scripts/make_venv.sh $(VENV)/user
	@$(VENV)/user/bin/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes -r requirements/runtime.txt
	@touch $@

$(VENV)/.docs: requirements/docs.txt scripts/make_venv.sh
	@scripts/make_venv.sh $(VENV)/site
	@echo "setup: installing the locked packages for the documentation into $(VENV)/site ..."
	@$(VENV)/site/bin/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes -r $<
	@touch $@

demo: $(VENV)/.ready ## a whole move on this machine, with a kill half-way and proof
	@$(PY) -m scripts.demo $(ARGS)

handover: $(VENV)/.ready ## a host's promise on this machine, from hold to erasure, signed
	@$(PY) -m scripts.handover $(ARGS)

servers: $(VENV)/.ready ## two MinIOs and two PostgreSQLs to play with, until Ctrl-C
	@$(PY) -m scripts.servers up $(ARGS)

test: $(VENV)/.ready ## run the tests against real servers (built once, cached)
	@$(PY) -m scripts.servers get > /dev/null
	@$(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

torture: $(VENV)/.ready ## long tests: kills at random moments, faults on the wire
	@$(PY) -m scripts.servers get > /dev/null
	@$(PY) -m pytest -m torture --timeout=0 $(ARGS)

pure: $(VENV)/.ready ## run the tests of tables without the compiled core
	@$(PY) -m scripts.servers get > /dev/null
	@MOVEOUT_PURE_PYTHON=1 $(PY) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
	  tests/exporters tests/restore tests/verify $(ARGS)

sanitize: $(VENV)/.ready ## run the tests of the compiled core under the address sanitizer
	@scripts/sanitize.sh $(VENV) $(ARGS)

$(MUTANTS)/.ready: requirements/mutants.txt scripts/make_venv.sh
	@scripts/make_venv.sh $(MUTANTS)
	@echo "setup: installing the locked packages for mutants into $(MUTANTS) ..."
	@$(MUTANTS)/bin/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes -r $<
	@touch $@

mutants: $(VENV)/.ready $(MUTANTS)/.ready ## change code in one place at a time; list what no test notices
	@$(PY) -m scripts.servers get > /dev/null
	@PYTHONPATH=. nice -n 15 $(MUTANTS)/bin/python -m scripts.mutants $(ARGS)

outsiders: $(VENV)/.ready ## run test suites that others wrote against moveout
	@$(PY) -m scripts.outsiders $(ARGS)

scoreboard: $(VENV)/.ready ## count how often each promise was tried, and write a page
	@$(PY) -m scripts.scoreboard $(ARGS)

check: $(VENV)/.ready ## lint, format, types, layers, structure
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports
	@$(PY) -m pytest --quiet --numprocesses 0 tests/test_structure.py

bench: $(VENV)/.bench ## measure against other tools
	@$(PY) -m scripts.bench $(ARGS)

docs: $(VENV)/.ready $(VENV)/.docs ## build documentation (build/site) and man pages (build/man)
	@$(PY) -m scripts.docs reference
	@$(PY) -m scripts.docs man
	@$(PY) -m scripts.docs stage
	@NO_MKDOCS_2_WARNING=1 $(VENV)/site/bin/mkdocs build --strict --quiet
	@echo "docs: build/site/index.html, build/man/moveout.1"
