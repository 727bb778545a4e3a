# Every target prepares what it needs by itself (infra/bootstrap), and takes no time for that when nothing is missing.
PYTHON ?= python3
APPROVE ?=# y or n answers the proof's question; empty asks you at a terminal, and says y where nobody can type

# The bootstrap runs on the machine's Python, everything else on what it installed.
PREPARE := PATH='$(PATH)' $(PYTHON) -m infra.bootstrap
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/build/uv/bin:$(PATH)

RELEASE = $(or $(shell git describe --tags --abbrev=0 --match 'v*' 2>/dev/null),HEAD)
PIN = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-config \
      --custom-compile-command 'make lock' --output-file requirements

.PHONY: run setup test check chaos simulate mutants gen bench up down clean lock
.NOTPARALLEL:

run: # the proof mission, live
	@$(PREPARE) run
	@python -m evals.end_to_end.proof --approve "$(or $(APPROVE),$$([ -t 0 ] || echo y))"

setup: # everything that the other targets need
	@$(PREPARE) test

test: check # everything that CI runs
	pytest

check: setup # everything that needs no running part
	ruff check
	ruff format --check
	pyright
	lint-imports
	buf lint
	buf format --diff --exit-code --path protos/skyagent
	buf breaking --against '.git#ref=$(RELEASE)'
	python protos/generate.py --check
	$(if $(wildcard dashboard/package.json),npm --prefix dashboard run check && npm --prefix dashboard test)

chaos: # KILLS of real processes from SEED on, NODES control planes, LangGraph beside; writes build/chaos/chaos.json
	@$(PREPARE) bench
	@python -m tests.chaos.campaign --kills $(or $(KILLS),60) --seed $(or $(SEED),1) --nodes $(or $(NODES),1) $(ARGS)

simulate: setup # SEEDS schedules of crashes, delays and partitions from SEED on, in virtual time; ARGS=--trace shows one
	@python -m tests.simulation --seed $(or $(SEED),1) --seeds $(or $(SEEDS),1000) $(ARGS)

mutants: setup # how many small mistakes in core, journal and worker their tests notice; ARGS='--sample 0' tries all
	python -m tests.mutation.mutate $(ARGS)

gen: setup # what is derived from the contracts
	buf format --write --path protos/skyagent
	python protos/generate.py --all

bench: bench-journal bench-mesh

bench-%: # a table, and build/bench/NAME.json
	@$(PREPARE) bench
	@python -m tests.peers.bench_$*

up:
	@$(PREPARE) run
	@skyagent up

down:
	@skyagent down

clean: # all that can be made again
	rm -rf .venv build dist dashboard/dist dashboard/node_modules .ruff_cache .pytest_cache .hypothesis

lock: setup # exact versions with hashes; ADD=--upgrade takes the newest
	$(PIN)/uv.txt $(ADD) requirements/uv.in
	$(PIN)/run.txt $(ADD) pyproject.toml --extra evals --group build
	$(PIN)/test.txt $(ADD) --constraints requirements/run.txt pyproject.toml --extra evals --group build --group dev
	$(PIN)/peers.txt $(ADD) --group peers
