#!/usr/bin/env bash
# Runs fuzz targets: tools/fuzz.sh SECONDS [TARGET...], each for so many seconds, all of them when none is named.
#
# FUZZ_SEED=n draws the same inputs each time, as far as the time allows.
# What is found lies in target/fuzz/findings/, and is run again with
#   tools/fuzz.sh replay TARGET FILE
# Inputs that reached something new gather in target/fuzz/corpus/TARGET; fuzz/seeds/TARGET has those that are kept.
# Sanitizers are unstable compiler flags: RUSTC_BOOTSTRAP=1 lets the stable toolchain take them.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tools/setup.sh
. tools/setup.sh
need cc gcc
need c++ g++
need_rust
need_cargo_fuzz
needs_met

export RUSTC_BOOTSTRAP=1 RUSTFLAGS="${RUSTFLAGS:-} --cfg sanitize_address"
# What was allocated where is remembered with few frames, since that took a fifth of the time: `replay` tells all of them.
fast_sanitizer="malloc_context_size=1:quarantine_size_mb=16:detect_stack_use_after_return=0"
out=target/fuzz
common=(--fuzz-dir fuzz --target-dir "$out/build")

if [ "${1:-}" = replay ]; then
    exec cargo fuzz run "${common[@]}" "$2" "$3"
fi
seconds="${1:?usage: tools/fuzz.sh SECONDS [TARGET...]}"
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | tail -n +2)

cargo fuzz build "${common[@]}"
mkdir -p "$out/findings"
for target in "${targets[@]}"; do
    mkdir -p "$out/corpus/$target" "fuzz/seeds/$target"
    dictionary=()
    [ ! -f "fuzz/seeds/$target.dict" ] || dictionary=("-dict=fuzz/seeds/$target.dict")
    echo "== $target, $seconds s"
    ASAN_OPTIONS="${ASAN_OPTIONS:-$fast_sanitizer}" "$out/build/$(rustc -vV | sed -n 's/^host: //p')/release/$target" \
        "$out/corpus/$target" "fuzz/seeds/$target" "${dictionary[@]}" \
        ${FUZZ_SEED:+-seed="$FUZZ_SEED"} -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -max_len=4096 -len_control=20 -print_final_stats=1 \
        -artifact_prefix="$out/findings/$target-" 2>&1 | tee "$out/$target.log" |
        grep -E '^stat::number_of_executed_units|ERROR|panicked|^SUMMARY|findings' || {
        tail -n 60 "$out/$target.log"
        exit 1
    }
    ! grep -qE 'panicked|ERROR: ' "$out/$target.log" || {
        tail -n 80 "$out/$target.log"
        exit 1
    }
done
