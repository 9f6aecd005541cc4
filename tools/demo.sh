#!/bin/sh
# The demo: the C echo servers on the library OS against the kernel's own sockets.
#
# Builds everything, enters a network namespace of its own, starts examples/c/tcp-echo and udp-echo each
# on a TAP device and runs examples/kernel-client against both. No root needed, nothing left behind:
# devices, addresses and servers end with the namespace. The exit status is that of the client.
#
#   MEGABYTES=100 ROUND_TRIPS=20000 PROFILE=release tools/demo.sh
set -eu
cd "$(dirname "$0")/.."

profile=${PROFILE:-release}
case $profile in
dev) built=target/debug ;;
*) built=target/$profile ;;
esac
work=target/demo

# The library OS has 10.99.N.2 on its device, the kernel 10.99.N.1.
write_config() { # NAME N
    cat >"$work/$1.toml" <<END
[runtime]
kind = "tap"

[tap]
name = "$1"
host_addresses = ["10.99.$2.1/24"]

[stack]
addresses = ["10.99.$2.2/24"]
END
}

# Said before anything is built: the namespace gives the right to make devices, not to open this file.
check_tun() {
    if [ ! -c /dev/net/tun ]; then
        echo "the demo needs /dev/net/tun: load its module (modprobe tun), or hand the device to the container" \
            "(--device /dev/net/tun)" >&2
        exit 1
    fi
    if [ ! -r /dev/net/tun ] || [ ! -w /dev/net/tun ]; then
        echo "the demo needs to read and write /dev/net/tun: run it as root, or allow it as most distributions do" \
            "(chmod 666 /dev/net/tun)" >&2
        exit 1
    fi
}

build() {
    . tools/setup.sh
    need_rust
    need cc gcc
    need unshare util-linux
    need ip iproute2
    needs_met
    cargo build --profile "$profile" --package catnip-capi
    cargo build --profile "$profile" --example kernel-client
    mkdir -p "$work"
    for server in tcp-echo udp-echo; do
        cc -std=c11 -O2 -Wall -Wextra -Icapi/include "examples/c/$server.c" -o "$work/$server" \
            -L"$built" -lcatnip -Wl,-rpath,"$PWD/$built"
    done
    write_config tcp-echo 1
    write_config udp-echo 2
}

start_server() { # NAME N
    # Emptied before anybody looks: an earlier run's "listening" must not be found.
    : >"$work/$1.log"
    "$work/$1" --config "$work/$1.toml" --address "10.99.$2.2" --port 7 >"$work/$1.log" 2>&1 &
    servers="$servers $!"
    tries=0
    until grep -q listening "$work/$1.log"; do
        tries=$((tries + 1))
        if ! kill -0 $! 2>/dev/null || [ $tries -gt 100 ]; then
            echo "$1 did not start:" >&2
            cat "$work/$1.log" >&2
            exit 1
        fi
        sleep 0.1
    done
}

# Runs as the namespace's first process: when it ends, all others do.
inside() {
    servers=''
    ip link set lo up
    start_server tcp-echo 1
    start_server udp-echo 2
    echo "C echo servers run on TAP devices in a network namespace; the client uses kernel sockets."
    echo
    status=0
    timeout 600 "$built/examples/kernel-client" 10.99.1.2:7 10.99.2.2:7 \
        "${MEGABYTES:-100}" "${ROUND_TRIPS:-20000}" || status=$?
    for server in $servers; do
        kill -TERM "$server" 2>/dev/null || true
        if ! wait "$server"; then
            echo "FAILED: a server did not end well:" >&2
            tail -n 20 "$work"/*-echo.log >&2
            status=1
        fi
    done
    exit $status
}

if [ "${1:-}" = --inside ]; then
    inside
fi
check_tun
build
if ! unshare -Urnpf --kill-child true; then
    echo "the demo needs user and network namespaces (unshare -Urn). Where they are switched off for users, run it" \
        "as root or allow them: sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0" >&2
    exit 1
fi
# In the background, so that a signal ends the namespace at once and with it everything inside.
unshare -Urnpf --kill-child -- "$0" --inside &
namespace=$!
trap 'kill -KILL $namespace; exit 130' INT
trap 'kill -KILL $namespace; exit 143' TERM HUP
wait $namespace
