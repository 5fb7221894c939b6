# Two commands: `make demo` and `make test`. Everything they need is installed into .venv from requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PYTHONPATH :=
export SODA_CORE_TELEMETRY_ENABLED := false
export SQLMESH__DISABLE_ANONYMIZED_ANALYTICS := true
export RUNTIME__DLTHUB_TELEMETRY := false

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-stop demo-reset test trials trials-backup trials-monitoring lint format dictionary bench bench-postgres bench-webhooks bench-models bench-backup bench-erasure lock clean

help:  ## Show what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

setup: $(VENV)/.complete  ## Install everything into .venv

# uv comes first, by pip with its hash; then uv installs exactly what the lock says, with hashes, and compiles it.
$(VENV)/.complete: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: $$($(PYTHON) --version) found, Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	  { echo "error: this Python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "installing into $(VENV) (about 750 MB once)"
	@sed -n '/^uv==/,/^[a-z]/{/^uv==/p;/^    --hash/p}' requirements.lock > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.txt
	@$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@

demo: setup  ## Run the main job on a small company with real purchases
	@$(BIN)/python -m demo start
	@$(BIN)/warehouse run
	@$(BIN)/python -m demo hints

demo-stop:  ## Stop the demo company: its PostgreSQL and its stand-ins of APIs
	@$(BIN)/python -m demo stop

demo-reset:  ## Forget the demo company and all that was loaded from it
	@$(BIN)/python -m demo reset --yes

test: setup  ## Run all tests
	@$(BIN)/python -m pytest

trials: setup  ## Kill 200 runs, 200 times the loader alone, 40 times the receiver of webhooks, and compare what the next makes of it
	@WAREHOUSE_TRIALS=200 $(BIN)/python -m pytest -n 0 tests/e2e/test_loader_killed.py tests/e2e/test_killed.py tests/e2e/test_webhooks_killed.py

trials-backup: setup  ## 1,000 faults at backups and restores: kills, bad networks, turned bits, attackers; what was acknowledged comes back
	@WAREHOUSE_TRIALS=$${WAREHOUSE_TRIALS:-1000} $(BIN)/python -m pytest -n 0 -s tests/e2e/test_backup_killed.py

trials-monitoring: setup  ## How many faults monitoring finds, how often it cries wolf: an hour; WITH="--short" for a look, "--write" keeps it in docs
	@$(BIN)/python -m tests.trials $(WITH)

lint: setup  ## ruff, mypy, sqlmesh lint and format, workflows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m transform.lint
	@$(BIN)/zizmor --offline --quiet .github/workflows

format: setup  ## Put Python and SQL into their layout
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/python -m transform.lint --write

dictionary: setup  ## Write docs/dictionary.md anew from the models
	@$(BIN)/warehouse catalogue --out docs/dictionary.md

bench: setup  ## Measure the bars of docs/bench.md
	@$(BIN)/python -m tests.bench
	@$(BIN)/python -m tests.bench_webhooks

bench-postgres: setup  ## Measure loading 5 M rows beside DuckDB's own limits; WITH="--ingestr --large 20000000" for more
	@$(BIN)/python -m tests.bench_postgres $(WITH)

bench-webhooks: setup  ## Measure the receiver of webhooks, two minutes; WITH="--seconds 10" for a look, "--bucket" for a spool in S3
	@$(BIN)/python -m tests.bench_webhooks $(WITH)

bench-models: setup  ## Measure building 200 models, and one day of a 20 M-row fact again; WITH="--rows 1000000" for a look
	@$(BIN)/python -m tests.bench_models $(WITH)

bench-backup: setup  ## Measure taking and restoring backups of 2 GB each; WITH="--gigabytes 0.2" for a look
	@PYTHONPATH=tests $(BIN)/python -m tests.bench_backup $(WITH)

bench-erasure: setup  ## Measure the erasure of one and of 1,000 of a million users with 20 M orders
	@$(BIN)/python -m tests.bench_erasure $(WITH)

lock:  ## Resolve pyproject.toml anew into requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --all-extras --python-version 3.11 pyproject.toml --output-file requirements.lock

clean:  ## Remove the virtual environment and caches (never data)
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .cache
