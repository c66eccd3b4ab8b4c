# Two commands: `make run` and `make test`. GNU make 3.81 (macOS) is enough. Nothing is installed outside of .venv/.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --no-deps

# 37 real deliveries of ourairports, where this checkout has them beside it; without, the public address is read.
SLUICE_OURAIRPORTS_ARCHIVE ?= $(wildcard ../shared/data/ourairports-2026.tar.xz)
export SLUICE_OURAIRPORTS_ARCHIVE

.DEFAULT_GOAL := help
.PHONY: help run test lint dev down clean lock prove bench-orchestration bench-warehouse bench-load bench-backfill bench-anomaly bench-waiting bench-pages

help: ## Show this list
	@echo "make run            set up, run everything once, keep the web UI up until Ctrl-C"
	@echo "make run ONCE=1     the same, but end after the first pass (0: every task and gate succeeded)"
	@echo "make test           set up and run all tests; some of them: make test ARGS='tests/runtime -k port'"
	@echo "make prove          the long proof that the warehouse converges; how many stories: make prove ARGS=500"
	@echo "make lint           check style: ruff, sqlfluff, yamllint (changes nothing)"
	@echo "make dev            a shell for dbt in the running warehouse, with schemas of your own"
	@echo "make down           stop what a make run has running or left behind"
	@echo "make clean          show what would be removed: local data, logs, .venv; YES=1 removes it"
	@echo "make bench-orchestration   the warehouse DAG against a bare dbt build of the same project"
	@echo "make bench-warehouse   what a change of 1 % costs, beside a full build and beside stock dbt"
	@echo "make bench-load     the loader against psql \\\copy, pandas, dlt, sling and ingestr; ARGS='--help' lists its options"
	@echo "make bench-backfill ninety past days by one backfill, beside the same days one after the other"
	@echo "make bench-anomaly   false alarms and recall of the checks against history, beside elementary's default"
	@echo "make bench-waiting   200 tasks that wait in a real scheduler, and an announced start"
	@echo "make bench-pages    the pages in the web UI at 200 tables and 400 days of history, against 300 ms"
	@echo "make lock           compile requirements*.in into the pinned, hashed requirements*.txt"
	@echo
	@echo "Ports: SLUICE_POSTGRES_PORT=55432 SLUICE_WEB_PORT=8080 SLUICE_SHOP_PORT=8099 SLUICE_DELIVERIES_PORT=8098 \
	SLUICE_EXPORTER_PORT=9464 SLUICE_WATCHER_PORT=9465"

run: $(VENV)/.run
	@exec $(BIN)/python -m sluice.runtime.run $(if $(ONCE),--once)

# All of them by two workers; what ARGS names, by one process, so that -x, --pdb and -s mean what they always do. A
# worker that crashed is not replaced: pytest-xdist gives the new one nothing to do, and waits for it for ever.
test: $(VENV)/.dev
	@exec $(BIN)/python -m pytest $(or $(ARGS),-n 2 --max-worker-restart=0)

prove: $(VENV)/.dev
	@exec $(BIN)/python -m tests.prove $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/sqlfluff lint --disable-progress-bar dbt_project
	$(BIN)/yamllint --strict .

dev: $(VENV)/.run
	@exec $(BIN)/python -m sluice.runtime.dev

down:
	@if [ -x $(BIN)/python ]; then exec $(BIN)/python -m sluice.runtime.down; else echo "nothing was running"; fi

clean:
	@if [ -f $(VENV)/.run ]; then $(BIN)/python -m sluice.runtime.clean $(if $(YES),--yes); fi
	@if [ -n "$(YES)" ]; then rm -rf $(VENV) build; echo "removed $(VENV)"; else echo "would remove $(VENV)"; fi

lock:
	@command -v uv >/dev/null 2>&1 || { echo "make lock needs uv: see https://docs.astral.sh/uv/"; exit 1; }
	for name in requirements requirements-dev requirements-server; do \
		uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes $$name.in -o $$name.txt || exit 1; \
	done

# Stamps: a changed lock file installs again; nothing else does.
$(VENV)/.run: requirements.txt pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or later is needed and none was found. Install one, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11. Name another one: make PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "installing into $(VENV) (about a minute, once)"
	@rm -f $(VENV)/.dev
	@[ -x $(BIN)/python ] || "$(PYTHON)" -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements.txt
	@$(PIP) --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.txt
	@echo "installing the tools for tests and lint into $(VENV)"
	@$(PIP) --require-hashes -r requirements-dev.txt
	@touch $@

bench-orchestration: $(VENV)/.dev ## The warehouse DAG against a bare dbt build
	@exec $(BIN)/python benchmarks/orchestration.py $(ARGS)

bench-warehouse: $(VENV)/.dev ## What a change of 1 % costs in the warehouse
	@exec $(BIN)/python benchmarks/warehouse.py $(ARGS)

bench-anomaly: $(VENV)/.dev ## False alarms and recall of the checks against history
	@exec $(BIN)/python benchmarks/anomaly.py $(ARGS)

bench-waiting: $(VENV)/.dev ## 200 waiting tasks in a real scheduler
	@exec $(BIN)/python benchmarks/waiting.py $(ARGS)

bench-load: $(VENV)/.run ## The loader and its peers, side by side
	@exec $(BIN)/python benchmarks/load.py $(ARGS)

bench-backfill: $(VENV)/.run ## Ninety past days by one backfill through the real scheduler
	@exec $(BIN)/python benchmarks/backfill.py $(ARGS)

bench-pages: $(VENV)/.dev ## The pages in the web UI at 200 tables and 400 days
	@exec $(BIN)/python benchmarks/pages.py $(ARGS)
