#!/bin/sh
# The demo: C programs on the library OS, first two processes that share memory, then against the kernel's sockets.
#
# Builds everything. Part one: examples/c/tcp-echo and udp-echo at one end of a vhost link, examples/c/tcp-transfer,
# tcp-ping-pong and udp-ping-pong at the other, and a table of their round trips beside the kernel's loopback. Part two:
# enters a network namespace of its own, starts the echo servers each on a TAP device and runs examples/kernel-client
# against both. No root needed, nothing left behind: sockets go with the servers, devices and addresses with the namespace.
#
#   MEGABYTES=100 ROUND_TRIPS=20000 PROFILE=release tools/demo.sh [vhost|tap]      one part alone
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

# The processors that we may use, as many as are asked for at most, one a line.
processors() { # COUNT
    sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status | tr ',' '\n' |
        awk -F- -v left="$1" '{ for (cpu = $1; cpu <= $NF && left > 0; cpu++) { print cpu; left-- } }'
}

# Both ends of a link: the server is 10.98.0.2, the client 10.98.0.1. The server outlives its clients. Each has a processor of
# its own where there are two: on one, each round trip would wait until both ends in turn give up polling (idle_spin_us) and
# sleep, and that is where the system puts a process that was just woken by another one when the machine has other work.
write_vhost_configs() { # NAME
    client_cpu=$(processors 2 | head -n 1)
    server_cpu=$(processors 2 | tail -n 1)
    for end in "server back 2 true $server_cpu" "client front 1 false $client_cpu"; do
        set -- "$1" $end
        cat >"$work/$1-$2.toml" <<END
[runtime]
kind = "vhost"

[vhost]
socket = "$PWD/$work/$1.sock"
role = "$3"
reconnect = $5

[cores]
cpus = [$6]

[stack]
addresses = ["10.98.0.$4/24"]
END
    done
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
    # In one command, so that both are made of the same build of the library.
    cargo build --profile "$profile" --package catnip-capi --package catnip-os --lib --example kernel-client
    mkdir -p "$work"
    for program in tcp-echo udp-echo tcp-transfer tcp-ping-pong udp-ping-pong; do
        cc -std=c11 -O2 -Wall -Wextra -Icapi/include "examples/c/$program.c" -o "$work/$program" \
            -L"$built" -lcatnip -Wl,-rpath,"$PWD/$built"
    done
    write_config tcp-echo 1
    write_config udp-echo 2
    write_vhost_configs vhost-tcp-echo
    write_vhost_configs vhost-udp-echo
}

# Runs CLIENT at the other end of SERVER's link, and prints what it prints.
vhost_client() { # SERVER CLIENT ARGUMENT...
    server=$1
    client=$2
    shift 2
    timeout 300 "$work/$client" --config "$work/vhost-$server-client.toml" --address 10.98.0.2 --port 7 "$@"
}

# A line of the table, from a line with p50, p99 and p99.9.
row() { # NAME LINE
    echo "$2" | sed -E "s|.*p50 ([0-9.]+) us, p99 ([0-9.]+) us, p99.9 ([0-9.]+) us.*|\1 \2 \3|" | {
        read -r p50 p99 p999
        printf '%-24s%10s%10s%10s\n' "$1" "$p50" "$p99" "$p999"
    }
}

# One server at a time: a second one would take turns with the first on its processor. The link comes up with the first
# client, so it is not waited for.
start_vhost_server() { # NAME
    "$work/$1" --config "$work/vhost-$1-server.toml" --address 10.98.0.2 --port 7 >"$work/vhost-$1.log" 2>&1 &
    servers=$!
}

stop_vhost_server() { # NAME
    kill -TERM "$servers"
    if ! wait "$servers"; then
        echo "FAILED: a server did not end well:" >&2
        tail -n 20 "$work/vhost-$1.log" >&2
        exit 1
    fi
    servers=''
}

# Two processes that share memory.
vhost() {
    servers=''
    trap '[ -z "$servers" ] || kill $servers 2>/dev/null || true' EXIT
    echo "C programs in two processes that share memory (vhost-user); no root, no interface of the kernel."
    echo
    count=${ROUND_TRIPS:-20000}
    start_vhost_server tcp-echo
    vhost_client tcp-echo tcp-transfer --count "${MEGABYTES:-100}"
    tcp=$(vhost_client tcp-echo tcp-ping-pong --client --count "$count")
    stop_vhost_server tcp-echo
    start_vhost_server udp-echo
    udp=$(vhost_client udp-echo udp-ping-pong --client --count "$count")
    stop_vhost_server udp-echo
    kernel=$("$built/examples/kernel-client" loopback "$count")
    printf '\n%s round trips of 64 bytes, microseconds; all sides poll, each on a processor of its own\n\n' "$count"
    printf '%-24s%10s%10s%10s\n' '' p50 p99 p99.9
    row 'TCP Catnip over vhost' "$tcp"
    row 'TCP kernel loopback' "$(echo "$kernel" | grep TCP)"
    row 'UDP Catnip over vhost' "$udp"
    row 'UDP kernel loopback' "$(echo "$kernel" | grep UDP)"
    echo
    trap - EXIT
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
part=${1:-all}
[ "$part" = vhost ] || check_tun
build
[ "$part" = tap ] || vhost
[ "$part" != vhost ] || exit 0
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
