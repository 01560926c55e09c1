PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
.DEFAULT_GOAL := help
.PHONY: help demo digits test test-all coverage check docs bench audit hashes hashed

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP)  ## search on real frames, retrain what was found, derain a clip
	$(BIN)/python tools/demo.py

digits: $(STAMP)  ## search a cell for digits, and train it beside 20 random ones
	OMP_NUM_THREADS=1 $(BIN)/python tools/digits.py

test: $(STAMP)  ## the tests, without the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-all: $(STAMP)  ## every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

coverage: $(STAMP)  ## every line and branch that the tests, without the slow ones, run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow" --cov --cov-report=term:skip-covered

check: $(STAMP)  ## lint, format, types, import rules, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory docs

docs: $(STAMP)  ## the documentation, as a site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: $(STAMP)  ## time supernets against a plain evaluation, option by option
	-$(BIN)/python -m nas.kernels
	$(BIN)/python tools/bench.py
	OMP_NUM_THREADS=1 $(BIN)/python tools/bench_tmics.py

audit:  ## known vulnerabilities of the pinned releases, by pip-audit; it needs the internet, and fails without
	@$(PYTHON) -m venv .venv/audit
	@.venv/audit/bin/python -m pip install --quiet pip-audit
	.venv/audit/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt

hashes:  ## update requirements-hashed.txt from constraints.txt, by uv; it needs the internet
	@$(PYTHON) -m venv .venv/hashes
	@.venv/hashes/bin/python -m pip install --quiet uv
	@head -1 requirements-hashed.txt > .venv/hashes/found.txt
	@grep -v '^torch==' constraints.txt | .venv/hashes/bin/uv pip compile --quiet --no-deps --generate-hashes \
		--no-header --no-annotate - >> .venv/hashes/found.txt
	@mv .venv/hashes/found.txt requirements-hashed.txt

# torch alone has no hash here: which file is right depends on the graphics processor, and so do the packages it needs.
hashed:  ## install as `make test` does, but only files whose hashes are in requirements-hashed.txt (and torch)
	@$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps --only-binary :all: -r requirements-hashed.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	@touch $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ echo "cannot create .venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,dev,video,flow]'
	@touch $@
