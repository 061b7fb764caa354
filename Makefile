# `make help` lists what there is to do.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
EXTRA ?=
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# A user id without a name or home (a container's, a cluster's): DVC and MLflow ask for both.
export USER := $(or $(USER),$(shell getent passwd "$$(id -u)" >/dev/null && id -un || echo "uid-$$(id -u)"))
export LOGNAME := $(or $(LOGNAME),$(USER))
export HOME := $(or $(HOME),$(shell mkdir -p -m 700 "/tmp/plumbline-home-$$(id -u)" && echo "/tmp/plumbline-home-$$(id -u)"))
export DO_NOT_TRACK = 1
export DVC_NO_ANALYTICS = 1
export GX_ANALYTICS_ENABLED = false
export MLFLOW_DISABLE_TELEMETRY = true

.DEFAULT_GOAL := help
.PHONY: help env run run-detection pull serve serve-flows test test-fast coverage lint format deps lock sample clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

env: $(VENV)/.installed$(EXTRA) ## Make the environment in .venv from the hash-pinned lock (EXTRA=gpu: CUDA build)

run: env ## Environment, sample data, `dvc repro`, and where to look next
	@python -m flows.mend > /dev/null
	@$(MAKE) --no-print-directory pull
	@dvc repro $(if $(filter-out 0,$(PLUMBLINE_VERBOSE)),,--quiet)
	@python -m plumbline.commands.summary

run-detection: env ## Whole photographs: sample, `dvc repro` in detection/, and where to look next
	@dvc pull --quiet detection/data.dvc || { echo "error: detection/data/ can't be made what detection/data.dvc says it is:" \
	  "keep photographs that you added with \`dvc add data\` there, or drop them with \`dvc checkout --force data.dvc\`." >&2; exit 1; }
	@cd detection && dvc repro $(if $(filter-out 0,$(PLUMBLINE_VERBOSE)),,--quiet)
	@cd detection && python -m plumbline.commands.summary

serve: env ## Serve the champion: a page for people and an API, http://127.0.0.1:8080
	python -m plumbline.cli serve

serve-flows: env ## Prefect's server, UI and a worker on this machine, and the reports as pages
	@$(MAKE) --no-print-directory pull
	python -m flows.serve

pull: ## The pictures that data.dvc names; incoming/ grows by itself, so only where there is none yet
	@dvc pull --quiet data.dvc || { echo "error: data/ can't be made what data.dvc says it is (\`dvc pull data.dvc\` says why):" \
	  "keep pictures that you added with \`dvc add data\`, or drop them with \`dvc checkout --force data.dvc\`." >&2; exit 1; }
	@[ -n "$$(ls -A incoming 2>/dev/null)" ] || dvc pull --quiet incoming.dvc

test: env $(VENV)/.installed-test ## The whole test suite
	python -m pytest

test-fast: env $(VENV)/.installed-test ## The fast layer: no pipeline, server, browser or training
	python -m pytest -m "not slow and not browser"

coverage: env $(VENV)/.installed-test ## The lines that no test ran (TESTS=tests/stages: adds this part to those before)
	python -m pytest --cov $(if $(TESTS),--cov-append $(TESTS)) --cov-report=term-missing:skip-covered --cov-report=html

lint: env $(VENV)/.installed-test ## Ruff, mypy and the order of imports
	ruff check .
	ruff format --check .
	mypy plumbline stages monitoring serving flows samples benchmarks
	lint-imports --no-cache

format: $(VENV)/.installed-test ## Let ruff format and sort the code
	ruff check --fix .
	ruff format .

deps: env ## After a change of imports: name in each dvc.yaml the code that its stages run
	python -m plumbline.commands.deps

sample: env ## Draw the embedded samples anew into data/, incoming/ and detection/data/, and version them
	python -m samples.draw .
	mv truth.csv samples/truth.csv
	dvc add data incoming
	python -m samples.scenes detection
	mv detection/scenes.csv samples/scenes.csv
	cd detection && dvc add data
	dvc push data.dvc incoming.dvc detection/data.dvc
	@echo "To commit it: git add --force samples/remote (which Git ignores, for pictures of people may be pushed there)"

lock: ## Resolve pyproject.toml into the hash-pinned locks (needs uv)
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 \
		--custom-compile-command "make lock" pyproject.toml -o requirements.lock
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 \
		--custom-compile-command "make lock" --extra test -c requirements.lock pyproject.toml -o requirements-test.lock
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links --python-version 3.11 \
		--custom-compile-command "make lock" -c requirements.lock docker/serving.in -o requirements-serving.lock

clean: ## Remove results; data, the registry and the environment stay
	rm -rf build reports detection/build detection/reports

# The locks name every package with its hash, so pip has nothing to resolve: --no-deps.
$(VENV)/.installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Plumbline needs Python 3.11, 3.12 or 3.13: make env PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --no-index --editable .
	touch $@

$(VENV)/.installed-test: requirements-test.lock $(VENV)/.installed
	$(VENV)/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements-test.lock
	touch $@

$(VENV)/.installedgpu: $(VENV)/.installed
	$(VENV)/bin/python -m pip uninstall --yes --quiet tensorflow-cpu
	$(VENV)/bin/python -m pip install --quiet 'tensorflow[and-cuda]==2.21.0'
	touch $@
