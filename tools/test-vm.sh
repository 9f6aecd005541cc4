#!/usr/bin/env bash
# Runs tests/dpdk/vm.rs in a virtual machine under software emulation: two PCI NICs (e1000 and virtio-net) on one hub, behind
# an emulated IOMMU, handed to DPDK through VFIO. The guest's root is the host's, read-only. Writes under build/ and target/ alone.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/setup.sh
here=$PWD/build/vm
# Under emulation, minutes; a guest that takes longer hangs.
timeout_s=${TIMEOUT_S:-420}

need qemu-system-x86_64 qemu-system-x86
need apt-get apt
need depmod kmod
need cpio cpio
need busybox busybox-static
needs_met

# The distribution's kernel, which is unpacked and not installed.
kernel() {
    [ ! -d "$here/kernel" ] || return 0
    rm -rf "$here/unpacking"
    mkdir -p "$here/unpacking"
    local package
    package=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ { print $2; exit }')
    (cd "$here/unpacking" && apt-get -qq download "${package:?the package lists are empty: apt-get update}" 2>/dev/null)
    dpkg -x "$here"/unpacking/*.deb "$here/unpacking/root"
    rm "$here"/unpacking/*.deb
    depmod --basedir "$here/unpacking/root" "$(ls "$here/unpacking/root/lib/modules")"
    mv "$here/unpacking/root" "$here/kernel"
    rm -rf "$here/unpacking"
}

# An initial file system that mounts the host's root and runs the test in it.
initial() {
    local root=$here/initial modules=$here/kernel/lib/modules/$version
    rm -rf "$root"
    mkdir -p "$root"/{bin,dev,proc,sys,host,lib/modules}
    cp "$(command -v busybox)" "$root/bin/busybox"
    for module in virtio_pci 9pnet_virtio 9p vfio_iommu_type1 vfio-pci; do
        modprobe --dirname "$here/kernel" --set-version "$version" --show-depends "$module" |
            awk '$1 == "insmod" { print $2 }'
    done | awk '!seen[$0]++' >"$root/modules"
    mkdir -p "$root/ko"
    while read -r module; do cp "$module" "$root/ko/"; done <"$root/modules"
    sed -i 's|.*/||' "$root/modules"
    cat >"$root/init" <<EOF
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
while read -r module; do insmod "/ko/\$module"; done </modules
for device in 0000:00:04.0 0000:00:05.0; do
    echo vfio-pci >"/sys/bus/pci/devices/\$device/driver_override"
    [ ! -e "/sys/bus/pci/devices/\$device/driver" ] || echo "\$device" >"/sys/bus/pci/devices/\$device/driver/unbind"
    echo "\$device" >/sys/bus/pci/drivers_probe
done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=1048576,cache=loose host /host || poweroff -f
mount --bind /dev /host/dev
mount -t proc none /host/proc
mount -t sysfs none /host/sys
mount -t tmpfs none /host/run
mount -t tmpfs none /host/var/tmp
mkdir -p /dev/shm
chroot /host /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run RUST_BACKTRACE=1 \
    sh -c 'cd "$PWD" && exec "$test" --nocapture --test-threads=1'
echo "the guest's test ended with \$?"
poweroff -f
EOF
    chmod +x "$root/init"
    (cd "$root" && find . | cpio --quiet -o -H newc) >"$here/initial.cpio"
}

kernel
version=$(ls "$here/kernel/lib/modules")
test=$(cargo test --no-run --package catnip-os --features dpdk --test vm 2>&1 | tee /dev/stderr |
    sed -n 's/.*Executable.*(\(.*\))$/\1/p')
test=$(readlink -f "${test:?cargo named no program}")
initial

result=$(timeout "$timeout_s" qemu-system-x86_64 -M q35,kernel-irqchip=split -accel tcg,thread=multi -cpu max -smp 2 -m 2560 \
    -nodefaults -no-user-config -nographic -serial stdio -no-reboot \
    -kernel "$here/kernel/boot/vmlinuz-$version" -initrd "$here/initial.cpio" \
    -append 'console=ttyS0 quiet panic=-1 no_timer_check intel_iommu=on hugepages=320' \
    -device intel-iommu,intremap=on,device-iotlb=on,aw-bits=48 \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
    -netdev hubport,id=n0,hubid=0 -device e1000,netdev=n0,addr=04.0,mac=02:00:00:00:00:04,romfile= \
    -netdev hubport,id=n1,hubid=0 \
    -device virtio-net-pci,netdev=n1,addr=05.0,mac=02:00:00:00:00:05,romfile=,iommu_platform=on,disable-legacy=on \
    </dev/null | tee /dev/stderr) || {
    echo "the virtual machine did not end within $timeout_s s" >&2
    exit 1
}
grep -q "the guest's test ended with 0" <<<"$result"
