# make app    install what the dashboard needs (once) and open it on 127.0.0.1:8501
# make test   install what tests need (once), then lint, types and tests
# make quick  lint, types and the tests of values: what to run while you work
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread a process, as the tests run in two; compiled modules are kept for the many processes that they start.
RUN := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1
.DEFAULT_GOAL := help
.PHONY: help app test quick slow hostile soak check lint types tests browser clean

help:
	@sed -n '1,3s/^# //p' Makefile

$(VENV)/.app: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Strata needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.app
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/.slow: requirements-slow.txt $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-slow.txt
	@touch $@

app: $(VENV)/.app
	$(BIN)/python -m vlm_analysis app

# The tests drive a real Chromium; where it is missing and this is root on a Debian machine, it is installed.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
	  [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium; } || { \
	  echo "The browser tests need Chromium: install it, or point CHROMIUM at one."; exit 1; }

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/pyrefly check

tests: $(VENV)/.dev browser
	$(RUN) $(BIN)/python -m pytest -n 2 --dist loadfile

quick: lint types
	$(RUN) $(BIN)/python -m pytest -n 2 --dist loadfile -m 'values and not slow'

slow: $(VENV)/.slow
	$(RUN) $(BIN)/python -m pytest -n 2 --dist loadfile -m slow
	$(RUN) $(BIN)/python -m pytest -n 2 --dist loadfile -m "hypothesis and not slow" --hypothesis-profile many

# Hostile files, made by a script, and kills of a real server and its workers; both print what they tried.
hostile: $(VENV)/.dev browser
	$(RUN) $(BIN)/python -m tests.hostile
	$(RUN) $(BIN)/python -m tests.hostile.kills

# Two browsers use one server for an hour; it must end with the memory it began with.
soak: $(VENV)/.dev browser
	$(RUN) $(BIN)/python -m tools.soak

test: lint types tests
check: test

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
