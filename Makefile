# `make run` chats, `make test` tests; both set everything up first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
UV_VERSION := 0.13.8
AUDIT_VERSION := 2.10.1
VENV := .venv
BIN := $(VENV)/bin
RUNS ?= runs
RECIPES := $(filter-out %-routed.yaml,$(sort $(wildcard train/recipes/tiny-*.yaml)))
export UV_HTTP_TIMEOUT ?= 300
export DEBIAN_FRONTEND := noninteractive

.PHONY: help setup packages run test soak lint lock audit bench small tiny browser

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort

# uv makes repeated set-ups cheap; where it is missing it lives in a small environment of its own
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)

# Debian packages: installed where that is allowed, else the one line to run is printed
define debian
	@missing=""; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ]; then as=""; else as="sudo -n"; fi; \
	  { $$as apt-get update -qq && $$as apt-get install -y -qq --no-install-recommends $$missing; } >/dev/null 2>&1 \
	    || echo "Please run once: sudo apt-get install -y$$missing"; \
	fi
endef

.uv/bin/uv:
	$(call debian,python3-venv)
	@$(PYTHON) -m venv .uv && .uv/bin/pip install --quiet uv==$(UV_VERSION)

$(VENV)/.ready: requirements.lock $(filter .uv/bin/uv,$(UV))
	@test -d $(VENV) || $(UV) venv --quiet --python '>=3.11,<3.14' $(VENV)
	$(UV) pip install --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	@touch $@

packages:
	$(call debian,$(shell cat packages.txt))

browser:
	$(call debian,chromium fonts-noto-color-emoji fonts-wqy-microhei nginx-light caddy)

setup: packages $(VENV)/.ready ## make a working .venv

run: setup ## open the chat at http://127.0.0.1:7860
	$(BIN)/python app.py

# two files of tests at a time, each with one thread for its arithmetic; browsers have the machine for themselves
test: setup browser ## run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not browser" -n 2 --dist loadfile
	$(BIN)/python -m pytest -m browser

soak: setup browser ## run the long form of the tests of hostile files, many users and kills
	SOAK=1 $(BIN)/python -m pytest tests/safety -s

lint: setup ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# what is locked stays where it still fits; `make lock RENEW=--upgrade` takes the newest of everything
lock: $(filter .uv/bin/uv,$(UV)) ## choose the exact packages, with their hashes, for requirements*.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes $(RENEW) \
	  --custom-compile-command 'make lock' -o requirements.lock requirements.txt requirements-dev.txt

audit: $(filter .uv/bin/uv,$(UV)) ## look the locked packages up in the list of known vulnerabilities
	$(UV) tool run pip-audit==$(AUDIT_VERSION) --strict --disable-pip --require-hashes -r requirements.lock

bench: setup ## measure load, first token, tokens a second, memory
	$(BIN)/python -m onellm bench

small: setup ## build the corpus and train onellm-small's perception from nothing
	$(BIN)/python -m train corpus
	$(BIN)/python -m train $(sort $(wildcard train/recipes/small-*.yaml)) --runs $(RUNS)
	$(BIN)/python -m onellm convert --checkpoint $(RUNS)/small-3-depth-normal-imu-fmri --llm qwen2.5-coder-1.5b-instruct --out $(RUNS)/onellm-small

tiny: setup ## build the corpus and train onellm-tiny from nothing
	$(BIN)/python -m train corpus
	$(BIN)/python -m train $(RECIPES) --runs $(RUNS)
	$(BIN)/python -m train evaluate --model $(RUNS)/tiny-4-instruct
	$(BIN)/python -m train evaluate --model $(RUNS)/tiny-4-instruct --following
