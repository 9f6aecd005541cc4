#!/usr/bin/env bash
# Builds the benchmarks and runs them: all of them, or with --gate the instruction counts that have limits.
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
exec "${CARGO_TARGET_DIR:-target}/release/bench" "$command"
