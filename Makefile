# Needs Python 3.11 or newer. `make search` and `make test` set up what they need.
PYTHON ?= python3
BIN := .venv/bin
export RAY_USAGE_STATS_ENABLED = 0

.PHONY: search test test-all phone lint setup clean

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

search: setup
	$(BIN)/python -m nas.search --space tiny --data photos --train-images 2500 --budget 5m --baseline-widths 1 \
		--baseline mobilenet_v3_small_minimal --baseline mobilenet_v3_small --baseline mnasnet_small --out results/demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest

# Also the tests on a real sshd and a real adbd, which are skipped with a reason where they cannot run; make phone makes theirs.
test-all: lint
	$(BIN)/pytest -m 'not gpu'

phone: setup
	$(BIN)/pip install --quiet --editable '.[runner]'
	$(BIN)/python -m tests.phone build

clean:
	rm -rf .venv build dist *.egg-info
