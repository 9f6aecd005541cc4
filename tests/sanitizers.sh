#!/usr/bin/env bash
# Runs the tests of memory and of what threads share under a sanitizer: tests/sanitizers.sh address|thread [test filter]
#
# AddressSanitizer: buffer overruns, use after free (freed buffers inside a region are poisoned),
# leaks. ThreadSanitizer: data races between the arena's thread and those that hold its buffers, and between the two ends of
# a channel.
# Sanitizers are unstable compiler flags: RUSTC_BOOTSTRAP=1 lets the stable toolchain take them.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
address)
    flags="-Zsanitizer=address --cfg sanitize_address"
    export ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1:${ASAN_OPTIONS:-}"
    ;;
thread)
    # The prebuilt standard library is not instrumented, which is refused unless asked for.
    flags="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
    export TSAN_OPTIONS="suppressions=$PWD/tests/thread-sanitizer.supp:${TSAN_OPTIONS:-}"
    ;;
*)
    echo "usage: tests/sanitizers.sh address|thread [test filter]" >&2
    exit 2
    ;;
esac

# With a target of its own, build scripts and macros are built without the flags.
target=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="${RUSTFLAGS:-} $flags"
# Debug information of the dependencies is most of what the build would write.
export CARGO_PROFILE_DEV_DEBUG=line-tables-only
exec cargo test --package libos --lib --target "$target" --target-dir "target/sanitizer-$1" -- ${2:-memory:: ring:: doorbell:: channel::}
