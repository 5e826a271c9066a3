# One-liners; CI runs the same lines. Every target sets up what it needs.
PY := .venv/bin/python
SETUP := packaging/bootstrap.sh

.DEFAULT_GOAL := help
.PHONY: help setup infinity engines demo test check faults bench format clean

help: ## say what there is
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/.ready: pyproject.toml constraints.txt $(SETUP)
	@bash $(SETUP) main

.venv-infinity/.ready: msearchd/inference/constraints-infinity.txt $(SETUP) | .venv/.ready
	@bash $(SETUP) infinity

.venv-colpali/.ready: msearchd/inference/constraints-colpali.txt $(SETUP) | .venv/.ready
	@bash $(SETUP) colpali

setup: .venv/.ready ## make .venv with everything but infinity-emb

infinity: .venv/.ready .venv-infinity/.ready ## make infinity-emb's own environment (it needs numpy<2)

engines: infinity .venv-colpali/.ready ## make the environments of all engines that need their own

demo: .venv/.ready ## index a folder of real files, search it, show the hits, stop cleanly
	@$(PY) -m bench.demo

check: .venv/.ready ## lint, types, floors, unit tests: under a minute
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) -m pytest -q tests/unit

test: .venv/.ready .venv-infinity/.ready .venv-colpali/.ready ## all tests but the long rounds
	$(PY) -m pytest -q -m "not slow" tests

faults: .venv/.ready ## kill, fill, break: the long rounds
	MSEARCHD_LONG=1 $(PY) -m pytest -q tests/faults --timeout=1800

bench: .venv/.ready ## the figures of docs/BENCHMARKS.md, as ratios
	$(PY) -m bench

format: .venv/.ready
	$(PY) -m ruff check --fix-only -q .
	$(PY) -m ruff format .

clean:
	rm -rf .venv .venv-infinity .venv-colpali .demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
