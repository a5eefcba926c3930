# Two commands do everything on a machine with Python 3.11+ and a C compiler: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Says by its status whether a Python is of the range, and can be installed into.
IS_USABLE := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
COMPILED := $(shell find san_core -name "*.pyx" -o -name "*.pxi")

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-docker images push s3 lint format bench bench-gpu reproduce golden clean

help:  ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(INSTALLED): pyproject.toml constraints.txt $(COMPILED)
	@$(BIN)/python -c 'import pip; $(IS_USABLE)' 2>/dev/null || { \
		$(PYTHON) -c '$(IS_USABLE)' 2>/dev/null || { \
			echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1); needed is Python 3.11 to 3.14 with venv: make PYTHON=..." >&2; \
			exit 1; }; \
		$(PYTHON) -m venv --clear $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt cython setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation \
		-e '.[torch,pipeline,dev]'
	@touch $@

install: $(INSTALLED)  ## make .venv with everything in it

demo: $(INSTALLED)  ## the whole pipeline at small scale, no server and no GPU: a report in a few minutes
	@$(BIN)/python pipeline.py run --preset demo

test: $(INSTALLED)  ## the everyday tests (minutes)
	@$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

test-slow: $(INSTALLED)  ## tests of restarts and of scale
	@$(BIN)/python -m pytest -q -m slow -n auto --dist loadfile --no-loadscope-reorder

test-docker: $(INSTALLED)  ## tests in containers, where a docker engine answers
	@BIN=$(BIN) docker/test.sh

images:  ## build the images of this commit
	@docker/images.sh build

REGISTRY ?=
push:  ## build and push them: make push REGISTRY=registry.example/project
	@docker/images.sh push "$(REGISTRY)"

S3_PORT ?= 8333
s3: $(INSTALLED)  ## an S3 server on 127.0.0.1 to try things with, until Ctrl-C
	@S3_PORT=$(S3_PORT) $(BIN)/python -m tests.servers.seaweedfs

lint: $(INSTALLED)  ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(INSTALLED)  ## put the code into the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

GROUP ?=
bench: $(INSTALLED)  ## measure the project's figures: make bench, or make bench GROUP=pipeline
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation \
		-e '.[bench]'
	@$(BIN)/python -m tests.benchmarks $(GROUP)

bench-gpu: $(INSTALLED)  ## the tests and figures that need a GPU, in under eight minutes
	@$(BIN)/python -m tests.benchmarks.gpu

ARGS ?=
reproduce: $(INSTALLED)  ## measure whether texture supervision pays, or go on with it: make reproduce ARGS=--quick
	@$(BIN)/python -m tests.benchmarks.evidence.reproduce $(ARGS)

golden: $(INSTALLED)  ## write the generated files anew: compiled pipelines, tables of the README files
	@$(BIN)/python -m tests.write_golden
	@$(BIN)/python -m tools.readme

clean:  ## remove runs and everything built
	rm -rf runs build .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find san_core -name '*.so' -delete -o -name '*.c' -delete
