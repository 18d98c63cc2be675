# cellcount: `make demo` counts a made-up plate, `make test` passes the tests. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
# Tests that may run beside others run on all cores; a core that is done takes tests from another.
SPREAD := -n logical --maxprocesses 8 --dist worksteal

.PHONY: help demo test fast env dev-env lint format lock clean

help:
	@echo "make demo   count a made-up 96-well plate on a local Ray cluster; look at demo/"
	@echo "make test   run the tests (installs what they need into .venv)"
	@echo "make fast   the tests of parts without the slow ones (Keras, Ray, large fields), in a minute and a half"
	@echo "make env    only set up .venv (what counting needs)"
	@echo "make lint   style, types, import layers"
	@echo "make lock   write requirements/*.txt anew from pyproject.toml"

demo: env
	$(BIN)/cellcount demo demo

# Tests that may not disturb their own kind run one after the other: those that start Ray in one process, those of S3 and of killed
# processes in another. All others run at the same time on what those leave of the cores, and on all cores once those are done.
test: dev-env
	@nice $(BIN)/python -m pytest tests -m "not alone" $(SPREAD) > .tests-of-parts.log 2>&1 & parts=$$!; \
	$(BIN)/python -m pytest tests -m alone -n 2 --dist loadgroup; runs=$$?; \
	wait $$parts; failed=$$?; cat .tests-of-parts.log; rm .tests-of-parts.log; \
	test $$runs -eq 0 && test $$failed -eq 0

fast: dev-env
	CELLCOUNT_TESTS=fast $(BIN)/python -m pytest tests/unit -m "not slow" $(SPREAD)

lint: dev-env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: dev-env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A stamp a set of packages: the test environment holds all that counting needs.
env: .venv/core.stamp
dev-env: .venv/dev.stamp

.venv/bin/uv: requirements/bootstrap.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

.venv/core.stamp: requirements/core.txt pyproject.toml | .venv/bin/uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/core.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

.venv/dev.stamp: requirements/dev.txt pyproject.toml | .venv/bin/uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@ .venv/core.stamp

lock: | .venv/bin/uv
	$(BIN)/uv lock
	$(BIN)/uv export --quiet --frozen --no-emit-project --no-dev --no-header --no-annotate -o requirements/core.txt
	$(BIN)/uv export --quiet --frozen --no-emit-project --no-header --no-annotate --extra train --group dev -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --generate-hashes --no-annotate --no-header --python-version 3.11 --extra gpu -c requirements/core.txt pyproject.toml -o requirements/gpu.txt
	echo "uv==$$($(BIN)/uv --version | cut -d' ' -f2)" | $(BIN)/uv pip compile --quiet --generate-hashes --no-annotate --no-header - -o requirements/bootstrap.txt

clean:
	rm -rf .venv demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
