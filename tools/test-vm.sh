#!/usr/bin/env bash
# Runs the tests of tests/vm/ and runtime-dpdk/tests/vm/ in virtual machines under software emulation, which have two pairs of
# PCI NICs behind an emulated IOMMU, each an e1000 and a virtio-net on one wire: the first for DPDK through VFIO, the second
# for XDP sockets. Once with the distribution's kernel and once with a newer one, whose virtio-net driver gives XDP sockets its
# queues without copies. A guest's root is the host's, read-only. Writes under build/ and target/ alone.
#
#   KERNELS     which of them: "distribution newer"
#   NEWER       where the newer one is from: a suite of the distribution's archive
#   TIMEOUT_S   a guest takes a minute or two under emulation; one that takes longer hangs
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/setup.sh
. tools/vm-kernel.sh
timeout_s=${TIMEOUT_S:-420}
kernels=${KERNELS:-distribution newer}

need qemu-system-x86_64 qemu-system-x86
need cpio cpio
need busybox busybox-static
need_kernel
needs_met

# Makes an initial file system for a kernel, that mounts the host's root and runs the tests after it, each one a program with
# perhaps a word that its tests' names have.
initial() {
    local kernel=$here/kernel-$1 root=$here/initial test
    shift
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,proc,sys,host,lib/modules,ko}
    cp "$(command -v busybox)" "$root/bin/busybox"
    copy_modules "$kernel" "$root" virtio_pci 9pnet_virtio 9p vfio_iommu_type1 vfio-pci e1000 virtio_net
    cat >"$root/init" <<EOF
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
# Before their own drivers see them.
for device in 0000:00:04.0 0000:00:05.0; do
    echo vfio-pci >"/sys/bus/pci/devices/\$device/driver_override"
done
while read -r module; do insmod "/ko/\$module"; done </modules
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=1048576,cache=loose host /host || poweroff -f
mount --bind /dev /host/dev
mount -t proc none /host/proc
mount -t sysfs none /host/sys
mount -t tmpfs none /host/run
mount -t tmpfs none /host/var/tmp
mkdir -p /dev/shm
uname -r
run() {
    chroot /host /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run RUST_BACKTRACE=1 \
        sh -c 'cd "$PWD" && exec "\$@" --nocapture --test-threads=1' sh "\$@" || code=\$?
}
code=0
$(for test in "$@"; do echo "run $test"; done)
echo "the guest's tests ended with \$code"
poweroff -f
EOF
    chmod +x "$root/init"
    (cd "$root" && find . | cpio --quiet -o -H newc) >"$here/initial.cpio"
}

# Prints the program that cargo builds with these arguments.
program() {
    cargo test --no-run "$@" 2>&1 | tee -a /dev/stderr | sed -n 's/.*Executable.*(\(.*\))$/\1/p' | xargs readlink -f
}

# Boots a kernel; its tests have to pass.
guest() {
    echo "== a guest with the kernel: $1" >&2
    local image result
    image=$(find "$here/kernel-$1/" -name 'vmlinuz*' -print -quit)
    result=$(timeout "$timeout_s" qemu-system-x86_64 -M q35,kernel-irqchip=split -accel tcg,thread=multi -cpu max -smp 2 -m 2560 \
        -nodefaults -no-user-config -nographic -serial stdio -no-reboot \
        -kernel "${image:?}" -initrd "$here/initial.cpio" \
        -append 'console=ttyS0 quiet panic=-1 no_timer_check intel_iommu=on hugepages=400' \
        -device intel-iommu,intremap=on,device-iotlb=on,aw-bits=48 \
        -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
        -netdev hubport,id=n0,hubid=0 -device e1000,netdev=n0,addr=04.0,mac=02:00:00:00:00:04,romfile= \
        -netdev hubport,id=n1,hubid=0 \
        -device virtio-net-pci,netdev=n1,addr=05.0,mac=02:00:00:00:00:05,romfile=,iommu_platform=on,disable-legacy=on \
        -netdev hubport,id=n2,hubid=1 -device e1000,netdev=n2,addr=06.0,mac=02:00:00:00:00:06,romfile= \
        -netdev hubport,id=n3,hubid=1 \
        -device virtio-net-pci,netdev=n3,addr=07.0,mac=02:00:00:00:00:07,romfile=,iommu_platform=on,disable-legacy=on \
        </dev/null | tee -a /dev/stderr) || {
        echo "the virtual machine did not end within $timeout_s s" >&2
        return 1
    }
    grep -q "the guest's tests ended with 0" <<<"$result"
}

for kernel in $kernels; do kernel "$kernel"; done
port_test=$(program --package runtime-dpdk --test vm)
test=$(program --package catnip-os --features dpdk --test vm)
for kernel in $kernels; do
    case $kernel in
    distribution) initial "$kernel" "${port_test:?}" "${test:?}" ;;
    # The distribution's DPDK cannot enable the interrupts of a virtio NIC through the VFIO of Linux 7.
    *) initial "$kernel" "${test:?} xdp::" ;;
    esac
    guest "$kernel"
done
