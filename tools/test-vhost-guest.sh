#!/usr/bin/env bash
# A virtual machine, under software emulation, whose two network cards are at the other end of vhost links: their back ends are
# the C echo servers, which map the guest's memory. In the guest Linux's own virtio-net driver, and examples/kernel-client on its sockets:
# every byte that comes back is compared. One card has two queue pairs, as the guest has processors. The guest reboots once, which stops the rings and starts others, and once it is another
# machine that connects; the servers go on through all of it. Writes under build/ and target/ alone.
#
#   MEGABYTES=1 ROUND_TRIPS=200    what the client exchanges besides its many sizes
#   TIMEOUT_S                      a machine takes half a minute; one that takes longer hangs
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/setup.sh
. tools/vm-kernel.sh
timeout_s=${TIMEOUT_S:-300}
work=$here/vhost
kernel=$here/kernel-distribution

need cc gcc
need qemu-system-x86_64 qemu-system-x86
need_kernel
need cpio cpio
need busybox busybox-static
need_rust
needs_met

kernel distribution
cargo build --package catnip-capi
cargo build --example kernel-client
rm -rf "$work"
mkdir -p "$work/state" "$work/initial"/{bin,dev,proc,sys,host,state,ko}

# The host's root is the guest's, read-only; what one boot leaves for the next is in a folder of its own.
copy_modules "$kernel" "$work/initial" virtio_pci 9pnet_virtio 9p virtio_net
cp "$(command -v busybox)" "$work/initial/bin/busybox"
cat >"$work/initial/init" <<EOF
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
while read -r module; do insmod "/ko/\$module"; done </modules
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=1048576,cache=loose host /host || poweroff -f
mount -t 9p -o trans=virtio,version=9p2000.L state /state || poweroff -f
mount --bind /dev /host/dev
mount -t proc none /host/proc
mount -t tmpfs none /host/run
ip link set lo up
for device in /sys/class/net/*; do
    case \$(cat "\$device/address") in
    02:00:00:00:00:11) address=10.97.1.1/24 ;;
    02:00:00:00:00:12) address=10.97.2.1/24 ;;
    *) continue ;;
    esac
    echo "\$address has \$(ls -d "\$device"/queues/tx-* | wc -l) queues" >>/state/queues
    ip address add \$address dev "\${device##*/}"
    ip link set "\${device##*/}" up
done
code=0
chroot /host /usr/bin/env -i PATH=/usr/bin:/bin TMPDIR=/run "$PWD/target/debug/examples/kernel-client" \
    10.97.1.2:7 10.97.2.2:7 ${MEGABYTES:-1} ${ROUND_TRIPS:-200} || code=\$?
echo "\$code" >>/state/ended
[ "\$(wc -l </state/ended)" -ne 1 ] || reboot -f
poweroff -f
EOF
chmod +x "$work/initial/init"
(cd "$work/initial" && find . | cpio --quiet -o -H newc) >"$work/initial.cpio"

servers=''
trap '[ -z "$servers" ] || kill -KILL $servers 2>/dev/null || true' EXIT
serve() { # SERVER NETWORK RING QUEUES
    cc -std=c11 -O2 -Icapi/include "examples/c/$1.c" -o "$work/$1" -Ltarget/debug -lcatnip -Wl,-rpath,"$PWD/target/debug"
    cat >"$work/$1.toml" <<EOF
[runtime]
kind = "vhost"

[vhost]
socket = "$work/$1.sock"
role = "back"
reconnect = true
ring = "$3"
queues = $4
wait_for_peer_ms = ${timeout_s}000

[stack]
addresses = ["10.97.$2.2/24"]
EOF
    "$work/$1" --config "$work/$1.toml" --address "10.97.$2.2" --port 7 >"$work/$1.log" 2>&1 &
    servers="$servers $!"
    local tries
    for tries in {1..100}; do
        [ ! -S "$work/$1.sock" ] || return 0
        sleep 0.1
    done
    echo "$1 did not start:" >&2
    cat "$work/$1.log" >&2
    exit 1
}
serve tcp-echo 1 packed 2
serve udp-echo 2 split 1

# Without vectors the cards use the interrupt line: under software emulation QEMU 7.2 ends when a vhost device has MSI-X.
guest() {
    echo "== $1" >&2
    timeout "$timeout_s" qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 768 \
        -object memory-backend-memfd,id=memory,size=768M,share=on -machine memory-backend=memory \
        -nodefaults -no-user-config -nographic -serial stdio \
        -kernel "$(find "$kernel/" -name 'vmlinuz*' -print -quit)" -initrd "$work/initial.cpio" \
        -append 'console=ttyS0 quiet panic=-1 no_timer_check' \
        -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
        -virtfs local,path="$work/state",mount_tag=state,security_model=none \
        -chardev socket,id=c1,path="$work/tcp-echo.sock" -netdev vhost-user,id=n1,chardev=c1,queues=2 \
        -device virtio-net-pci,netdev=n1,mac=02:00:00:00:00:11,romfile=,disable-legacy=on,vectors=0,packed=on,mq=on \
        -chardev socket,id=c2,path="$work/udp-echo.sock" -netdev vhost-user,id=n2,chardev=c2 \
        -device virtio-net-pci,netdev=n2,mac=02:00:00:00:00:12,romfile=,disable-legacy=on,vectors=0 \
        </dev/null >&2 || {
        echo "the virtual machine did not end well within $timeout_s s" >&2
        cat "$work"/*.log >&2
        exit 1
    }
}
guest "a guest at the vhost back ends, which reboots once"
guest "another one at the same back ends"

# Two boots and one more, each with the client's exit status.
ended=$(tr '\n' ' ' <"$work/state/ended")
for server in $servers; do
    kill -TERM "$server"
    wait "$server" || ended="$ended, and a server with $?"
done
servers=''
tail -n 3 "$work"/*.log >&2
queues=$(sort "$work/state/queues" | uniq -c | tr -s ' \n' ' ')
echo "the guests' clients ended with $ended, and$queues"
[ "$ended" = '0 0 0 ' ] && [ "$queues" = ' 3 10.97.1.1/24 has 2 queues 3 10.97.2.1/24 has 1 queues ' ]
