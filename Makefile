# Every target does its own set-up: `setup` names what is missing, and installs it when run as root.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PREFIX ?= /usr/local
SEEDS ?=
SEED ?=
SECONDS ?= 600
TARGETS ?=
FEATURES ?=

.PHONY: help setup setup-dpdk build test test-vm dpdk test-rust test-sanitizers conformance interop sim soak congestion fuzz fuzz-smoke demo bench bench-dpdk bench-gate install doc lint clean

help: ## Shows this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-16s %s\n", $$1, $$2}'

setup: ## Checks the machine for what the other targets need.
	@. tools/setup.sh; need cc gcc; need c++ g++; need pkg-config pkg-config; need valgrind valgrind; need objdump binutils; \
	need ip iproute2; need unshare util-linux; need make make; need cmake cmake; \
	need nft nftables; need tshark tshark; need ethtool ethtool; need iperf3 iperf3; need_rust; needs_met

setup-dpdk: ## Checks the machine for what DPDK and its tests need.
	@. tools/setup.sh; need_library libdpdk libdpdk-dev; need dpdk-testpmd dpdk-dev; need_libclang; need cc gcc; \
	need ip iproute2; need ethtool ethtool; need sysctl procps; need unshare util-linux; needs_met

build: setup ## Builds everything, optimised.
	cargo build --release

test: setup setup-dpdk ## Runs all tests.
	cargo build -p catnip-capi
	cargo test --workspace
	cargo test --package catnip-os --features dpdk --test dpdk
	cargo test --package catnip-capi --features dpdk --test dpdk --test install
	tests/sanitizers.sh address
	tests/sanitizers.sh thread

conformance: ## TCP's segment scripts, the stack held to the RFCs from outside, and what COMPLIANCE.md names.
	cargo test -p catnip --test segments --test conformance --test arithmetic
	cargo test --test posix_shape --test compliance

interop: setup ## Everything against Linux's own stack, over TAP in network namespaces; windows stay closed for minutes.
	ZERO_WINDOW_S=150 CATNIP_TEST_TIMEOUT_S=400 cargo test --test tap

sim: ## Simulator: SEEDS=n runs n seeds, SEED=s replays one.
	SEEDS='$(SEEDS)' SEED='$(SEED)' cargo test --profile sim --test sim -- seeds:: --nocapture

soak: ## Simulator for hours: many seeds.
	$(MAKE) sim SEEDS=10000

fuzz: ## Fuzzing: TARGETS="name..." (all of them), each for SECONDS=n (ten minutes).
	tools/fuzz.sh '$(SECONDS)' $(TARGETS)

fuzz-smoke: ## Every fuzz target for some seconds, and ingress for more.
	FUZZ_SEED=1 tools/fuzz.sh 2
	FUZZ_SEED=1 tools/fuzz.sh 15 ingress

congestion: ## Runs every congestion control on the simulator's paths; writes the tables of docs/congestion.md.
	CONGESTION=write cargo test --profile sim --test sim -- congestion::the_document --nocapture

demo: setup ## C programs in two processes that share memory, then on TAP devices against the kernel's own sockets.
	tools/demo.sh $(PART)

test-vm: setup setup-dpdk ## DPDK and XDP sockets on emulated PCI NICs behind an IOMMU, and guests on vhost links, in virtual machines under software emulation.
	tools/test-vm.sh
	tools/test-vhost-guest.sh

dpdk: ## Builds DPDK under build/, for machines without one: submodules/dpdk, else the distribution's source package.
	tools/dpdk.sh

bench: setup ## Side-by-side benchmarks, DPDK's where it is; prints tables and writes target/bench.json.
	tools/bench.sh

bench-dpdk: setup setup-dpdk ## Cycles per packet of the stack on DPDK, beside testpmd.
	cargo build --quiet --release --locked --package bench --features dpdk
	target/release/bench dpdk

bench-gate: setup ## Checks the instruction counts against their limits.
	tools/bench.sh --gate

install: ## Installs library, headers, pkg-config and CMake files under PREFIX; FEATURES=dpdk builds DPDK in.
	FEATURES='$(FEATURES)' tools/install.sh '$(PREFIX)'

doc: ## Builds the API documentation.
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps

lint: ## Format and clippy, as the gate runs them.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --package catnip-os --package catnip-capi --features dpdk --all-targets --test vm -- -D warnings
	cargo clippy --package runtime-dpdk --test vm -- -D warnings
	for features in '' catnip sim tap packet xdp vhost; do \
		cargo clippy --package catnip-os --no-default-features --features "$$features" -- -D warnings; done

clean: ## Removes what was built.
	cargo clean
