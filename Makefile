# The one entry point, for people and CI: make demo | test | bench | lint | wheel | docs.
# Every target works from a bare clone: it makes .venv, installs the locked packages, builds.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ldkjit
export CARGO_TARGET_DIR ?= $(CACHE)/target
BIN := .venv/bin
RUST := Cargo.toml Cargo.lock pyproject.toml $(shell find rust -name '*.rs' -o -name Cargo.toml)
CARGO_MUTANTS := 27.1.0
SOAK_NODE := $(CARGO_TARGET_DIR)/release/soak-node
SECONDS ?= 600
SEED ?= 1

.PHONY: help build demo test test-rust test-boxed test-python test-interop conformance interop sales soak sweep fuzz bench lint wheel docs mutants lock clean \
	bench-rust bench-guard bench-python bench-compare bench-page bench-month bench-imports bench-scale bench-budget bench-flame

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Stamps are files in .venv, so that removing .venv removes them too.
.venv/installed: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "ldkjit needs Python 3.10 or newer: make PYTHON=…")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	@touch $@

.venv/extension: .venv/installed $(RUST)
	VIRTUAL_ENV=$(CURDIR)/.venv PATH=$(CURDIR)/$(BIN):$$PATH maturin develop --release --locked --extras cli,opentelemetry,postgres,report
	@touch $@

build: .venv/extension ## build the extension into .venv (the one release profile)

demo: .venv/extension ## five JIT payments on regtest, every millisatoshi checked
	$(BIN)/ldkjit demo

test: test-rust test-boxed test-python test-interop ## all tests

test-rust:
	BITCOIND_EXE="$$($(PYTHON) python/ldkjit/sandbox/bitcoind.py)" cargo test --locked --release --workspace --features ldkjit-node/faults

# Money on the chain in the process: nodes as before, bitcoind's place taken. The flags are those of test-rust, or cargo
# would build everything again.
BOXED := dishonest_lsp forced_closes reorganisations restarts trust two_parts two_payers variable_amount
# Those in which bitcoind is killed and comes back.
UNBOXED := survives_a_restart forgot is_nowhere agreed_close leaves_the_chain_and_the_mempool keeps_no_other_back

test-boxed: test-rust .venv/extension
	LDKJIT_REGTEST=boxed cargo test --locked --release --workspace --features ldkjit-node/faults --test faults -- $(BOXED) $(UNBOXED:%=--skip %)
	LDKJIT_REGTEST=boxed $(BIN)/pytest tests/integration tests/bridge

test-python: .venv/extension
	SOAK_NODE=$(SOAK_NODE) $(BIN)/pytest

# What of `make interop` needs no Go: sales to and by ldk-node, and ordinary channels with it.
test-interop: .venv/extension
	cd tests && ../$(BIN)/python -m interop.ldk_node_program
	$(BIN)/pytest tests/interop/test_ldk_node.py -k "buys_from or channel_and_its_end"

REPORT := $(CACHE)/conformance

conformance: .venv/extension ## the conformance suite and its page; another LSP: make conformance TARGET=node_id@host:port
	mkdir -p $(REPORT)
	cd tests && ../$(BIN)/python -m conformance.page
	status=0; $(BIN)/pytest tests/conformance $(TARGET:%=--target %) --junitxml $(REPORT)/tests.xml || status=$$?; \
	    cd tests && ../$(BIN)/python -m conformance.page --junit $(REPORT)/tests.xml --out $(REPORT)/page.md; exit $$status

interop: .venv/extension ## beside LND and ldk-node, which are built into the cache folder first (needs Go 1.25)
	cd tests && ../$(BIN)/python -m interop.lnd_program && ../$(BIN)/python -m interop.ldk_node_program
	BITCOIND_EXE="$$($(PYTHON) python/ldkjit/sandbox/bitcoind.py)" $(BIN)/pytest tests/interop --durations 10

.PHONY: soak-node
# Built with named moments at which it can be ended.
soak-node: .venv/extension
	cargo build --locked --release --package ldkjit-node --features faults --bin soak-node

SALES ?= 10000

sales: .venv/extension ## many sales through hooks of which some misbehave: make sales SALES=10000 MODES=channels
	cd tests && ../$(BIN)/python -m sales $(SALES) $(MODES)

soak: soak-node ## kills, power cuts, a bad chain: make soak SECONDS=600 SEED=1; reports add up
	cd tests && SOAK_NODE=$(SOAK_NODE) ../$(BIN)/python -m soak.soak --power --seconds $(SECONDS) --seed $(SEED) --reports soak/reports
	-cd tests && ../$(BIN)/python -m soak.total soak/reports/*.json

sweep: soak-node ## kill -9 at every named moment in turn
	cd tests && SOAK_NODE=$(SOAK_NODE) ../$(BIN)/python -m soak.sweep --power

# Coverage counters by the compiler's own pass: no nightly, no sanitizer (safe Rust needs none). Each target goes on from
# what earlier runs found, which stays in the cache folder.
FUZZ_TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ ?= envelope service client menu wallet order

fuzz: ## every fuzz target in turn: make fuzz SECONDS=600 FUZZ="order wallet"
	RUSTFLAGS="$(FUZZ_FLAGS)" CARGO_TARGET_DIR=$(CACHE)/fuzz/target cargo build --locked --release \
	    --manifest-path rust/fuzz/Cargo.toml --target $(FUZZ_TARGET)
	for target in $(FUZZ); do \
	    case $$target in envelope|service|client) words=-dict=$(CURDIR)/rust/fuzz/lsps.dict;; *) words=;; esac; \
	    mkdir -p $(CACHE)/fuzz/$$target && echo "== $$target" && \
	    (cd $(CACHE)/fuzz && target/$(FUZZ_TARGET)/release/$$target -max_total_time=$(SECONDS) -max_len=4096 -timeout=20 \
	        $$words -print_final_stats=1 $$target $(CURDIR)/rust/fuzz/corpus/$$target); \
	done

INFERNO := 0.12.8

$(CACHE)/tools/bin/inferno-flamegraph:
	cargo install --locked --root $(CACHE)/tools --version $(INFERNO) inferno

# With what only benchmarks need, and the extension.
.venv-bench/installed: constraints-bench.txt
	$(PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --require-hashes -r constraints-bench.txt
	@touch $@

.venv-bench/extension: .venv-bench/installed $(RUST)
	VIRTUAL_ENV=$(CURDIR)/.venv-bench PATH=$(CURDIR)/.venv-bench/bin:$$PATH maturin develop --release --locked --extras cli
	@touch $@

BENCH := PYTHONPATH=$(CURDIR)/tests:$(CURDIR)/benches .venv-bench/bin/python
COMPARED ?= $(CACHE)/bench/compare.json
COMPARE ?=

bench: bench-rust bench-python ## what each part costs, in Rust and Python

bench-rust: ## criterion: decisions, messages, the order, commits, stores, the stock handlers
	cargo bench --locked --package ldkjit-core --bench core
	cargo bench --locked --package ldkjit-node --bench store
	BITCOIND_EXE="$$($(PYTHON) python/ldkjit/sandbox/bitcoind.py)" cargo bench --locked --package ldkjit-node --features faults --bench services

# Wall time on shared machines decides nothing; instructions do. KEEP=--keep at a release.
bench-guard: ## core's benchmarks in instructions, beside the last release (needs valgrind)
	cargo bench --locked --package ldkjit-core --bench instructions \
	    --config "target.'cfg(all())'.runner = ['$(PYTHON)', '$(CURDIR)/benches/instructions.py']" -- $(KEEP)

bench-python: .venv-bench/extension ## pytest-benchmark: calls, types
	.venv-bench/bin/pytest benches/python --benchmark-disable-gc --benchmark-columns min,median,max,ops

bench-compare: .venv-bench/extension ## beside ldk-node, and a page of it: make bench-compare COMPARE="--size smoke --rounds 1"
	mkdir -p $(CACHE)/bench
	$(BENCH) -m compare --out $(COMPARED) --floor $(COMPARE)
	$(BENCH) -m compare.page $(COMPARED) --out $(COMPARED:.json=.md)

bench-page: .venv-bench/extension ## docs/benchmarks.md and README's table, of the runs in benches/results
	$(BENCH) -m compare.page benches/results/compare-*.json --out docs/benchmarks.md --readme README.md

bench-scale: .venv-bench/extension ## one LSP with 10,000 channels, with 2,000 connected clients: make bench-scale SCALE="--most 1000"
	$(BENCH) -m scale --out benches/results/scale.json --page docs/scaling.md $(SCALE)

ORDERS ?= 50000

bench-month: .venv/extension ## reports of a month of ORDERS=50000 sales, beside the ledger check; the plots in the cache folder
	cargo build --locked --release --package ldkjit-node --example generated-month
	$(BIN)/python benches/month.py $(CARGO_TARGET_DIR)/release/examples/generated-month --orders $(ORDERS) --plots $(CACHE)/bench/month

bench-imports: .venv/extension ## what import ldkjit takes beyond pydantic
	$(BIN)/python benches/imports.py

bench-budget: .venv-bench/extension ## where the time of a payment goes, beside LDK's floor: docs/performance.md
	cargo bench --locked --package ldkjit-node --bench floor > benches/results/floor.json
	$(BENCH) -m budget benches/results/floor.json --out docs/performance.md

bench-flame: .venv-bench/extension $(CACHE)/tools/bin/inferno-flamegraph ## flame graphs of the LSP (needs perf), in the cache folder
	mkdir -p $(CACHE)/bench
	for load in jit forward; do \
	    $(BENCH) -m flame $$load > $(CACHE)/bench/$$load.perf && \
	    $(CACHE)/tools/bin/inferno-collapse-perf $(CACHE)/bench/$$load.perf | \
	        $(CACHE)/tools/bin/inferno-flamegraph --title "LSP: $$load" > $(CACHE)/bench/$$load.svg && echo $(CACHE)/bench/$$load.svg; \
	done

lint: .venv/extension ## format, clippy, ruff, pyright, stubtest
	cargo fmt --all --check
	cargo fmt --all --check --manifest-path rust/fuzz/Cargo.toml
	cargo fmt --all --check --manifest-path tests/interop/ldk_node/Cargo.toml
	cargo clippy --locked --release --workspace --all-targets --features ldkjit-node/faults -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m mypy.stubtest ldkjit._ldkjit

.venv-wheel/installed: constraints-wheel.txt
	$(PYTHON) -m venv --clear .venv-wheel
	.venv-wheel/bin/pip install --quiet --disable-pip-version-check --require-hashes -r constraints-wheel.txt
	@touch $@

wheel: .venv-wheel/installed ## abi3 wheel for manylinux_2_28 and an sdist that builds, into dist/
	rm -rf dist
	PATH=$(CURDIR)/.venv-wheel/bin:$$PATH maturin sdist --out dist
	@# The wheel is built from the sdist: that proves the sdist.
	rm -rf $(CACHE)/sdist && mkdir -p $(CACHE)/sdist && tar -xzf dist/*.tar.gz -C $(CACHE)/sdist --strip-components=1
	cd $(CACHE)/sdist && PATH=$(CURDIR)/.venv-wheel/bin:$$PATH maturin build --release --locked --zig --compatibility manylinux_2_28 --out $(CURDIR)/dist
	@# Not by a pipe: grep would end auditwheel before it has said all.
	report=$$(.venv-wheel/bin/auditwheel show dist/*.whl) && echo "$$report" && grep -q 'manylinux_2_28' <<< "$$report"
	$(PYTHON) -m venv --clear $(CACHE)/wheel-check
	$(CACHE)/wheel-check/bin/pip install --quiet --disable-pip-version-check dist/*.whl
	$(CACHE)/wheel-check/bin/python -c 'import ldkjit; print("imports:", ldkjit.__version__)'

docs: .venv/installed ## build the documentation strictly, into site/
	$(BIN)/mkdocs build --strict

$(CACHE)/tools/bin/cargo-mutants:
	cargo install --locked --root $(CACHE)/tools --version $(CARGO_MUTANTS) cargo-mutants

mutants: $(CACHE)/tools/bin/cargo-mutants ## mutation tests of the crate that decides
	PATH=$(CACHE)/tools/bin:$$PATH cargo mutants --package ldkjit-core --cargo-arg=--locked

UV_COMPILE = $(CACHE)/uv/bin/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --upgrade --no-annotate --custom-compile-command 'make lock'

lock: ## renew the locked Python packages
	$(PYTHON) -m venv $(CACHE)/uv && $(CACHE)/uv/bin/pip install --quiet --upgrade uv
	$(UV_COMPILE) pyproject.toml --extra cli --extra opentelemetry --extra postgres --extra report --group check --group docs --output-file constraints.txt
	$(UV_COMPILE) --group wheel --output-file constraints-wheel.txt
	$(UV_COMPILE) pyproject.toml --extra cli --group check --group bench --constraints constraints.txt --output-file constraints-bench.txt

clean: ## remove what was built here; the cache folder stays
	rm -rf .venv .venv-bench .venv-wheel dist site mutants.out* .pytest_cache .ruff_cache .hypothesis
	rm -f python/ldkjit/*.so
