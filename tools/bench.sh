#!/usr/bin/env bash
# Builds the benchmarks and runs them: all of them, DPDK's last, or with --gate the instruction counts that have limits.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
'') command=run ;;
--gate) command=gate ;;
*)
    echo "usage: tools/bench.sh [--gate]" >&2
    exit 2
    ;;
esac

# For the processor every machine has: valgrind knows no newer instructions.
RUSTFLAGS='' cargo build --quiet --release --locked --package bench
"${CARGO_TARGET_DIR:-target}/release/bench" "$command"
[ "$command" = run ] || exit 0

# Last, because it takes another build: with DPDK in it, others would not be what is counted by --gate.
. tools/setup.sh
need_library libdpdk libdpdk-dev
need dpdk-testpmd dpdk-dev
need_libclang
if [ -n "$missing_packages" ] && [ "$(id -u)" -ne 0 ]; then
    echo "left out, what the stack costs on DPDK: it needs$missing_reasons" >&2
    exit 0
fi
needs_met
RUSTFLAGS='' cargo build --quiet --release --locked --package bench --features dpdk
"${CARGO_TARGET_DIR:-target}/release/bench" dpdk
