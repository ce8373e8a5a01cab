# `make help` lists what can be made. There is one cargo profile, release, for building, testing and linting alike,
# because RocksDB takes minutes to compile and is to be compiled once.

CARGO ?= cargo
APT_PACKAGES := g++ libclang-dev
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help run test unit e2e sim check fix setup build bench failover compare

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup build ## the main job: three servers, delayed messages, the leader killed in the middle, a report
	$(CARGO) run --release --quiet --package dwell-tests --bin failover-demo

test: setup check unit e2e ## check, all unit tests, and the end-to-end tests with real server processes

unit: ## the tests of all crates, without servers
	$(CARGO) test --release --workspace --exclude dwell-tests

e2e: build ## the end-to-end tests, one after the other because they measure time
	$(CARGO) test --release --package dwell-tests -- --test-threads=1 --nocapture

check: ## formatting and lints; writes nothing
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- --deny warnings

sim: setup ## simulated clusters with faults: SEEDS of them (1000), from the seed FIRST (1) on, and FRESH (0) by lot
	$(CARGO) build --release --package dwell-cli --package dwell-simulation
	$(CARGO) run --release --quiet --package dwell-simulation --bin simulate-seeds -- \
		--seeds $(or $(SEEDS),1000) --first $(or $(FIRST),1) --fresh $(or $(FRESH),0)

fix: ## format, and apply what the lints suggest
	$(CARGO) fmt --all
	$(CARGO) clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all

setup: ## install what compiling RocksDB needs and is missing: a C++ compiler and libclang (Debian, Ubuntu)
	@if ! command -v c++ >/dev/null || ! { ls /usr/lib/llvm-*/lib/libclang.so* || ldconfig -p | grep 'libclang[.-]'; } >/dev/null 2>&1; then \
		if ! command -v apt-get >/dev/null; then echo "install a C++ compiler and libclang, then try again" >&2; exit 1; fi; \
		set -ex; \
		$(SUDO) apt-get update; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $(APT_PACKAGES); \
	fi

build: ## the `dwell` binary
	$(CARGO) build --release --package dwell-cli

bench: setup build ## throughput and latency of three nodes on this machine; ARGS are those of `dwell bench`
	$(CARGO) run --release --quiet --package dwell-tests --bin cluster-bench -- $(ARGS)

failover: setup build ## how long confirms pause when the leader is killed: median of 20 runs of `dwell bench`
	$(CARGO) run --release --quiet --package dwell-tests --bin failover-gap

compare: setup build ## another build against this one, in turn: BEFORE is its binary; ROUNDS; ARGS of `dwell bench`
	$(CARGO) run --release --quiet --package dwell-tests --bin compare-builds -- $(BEFORE) $(or $(ROUNDS),6) $(ARGS)
