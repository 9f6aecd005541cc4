#!/usr/bin/env bash
# Builds DPDK for machines whose distribution has none: from submodules/dpdk when that is there, else from the
# distribution's source package. Writes under build/ alone. May be interrupted or repeated at any point, and after
# build/ was deleted: each step leaves its result under its final name only when it is whole.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/setup.sh

# The long-term release that the runtime is tested with; the distribution's fixes to it are taken.
release=22.11
# What runs without hardware, and the devices that virtual machines have. DRIVERS="" builds all.
drivers=${DRIVERS-bus/pci,bus/vdev,mempool/ring,net/af_packet,net/e1000,net/memif,net/null,net/ring,net/tap,net/vhost,net/virtio}
here=$PWD/build/dpdk

need meson meson
need ninja ninja-build
need cc gcc
need python3 python3
need pkg-config pkg-config
PATH=/usr/bin:$PATH python3 -c 'import elftools' 2>/dev/null ||
    lacks python3-pyelftools "Python's elftools"
needs_met

# Prints the folder of the source, which it fetches when there is none.
source_folder() {
    if [ -f submodules/dpdk/meson.build ]; then
        echo "$PWD/submodules/dpdk"
        return
    fi
    if [ ! -d "$here/source" ]; then
        fetch >&2
        rm -rf "$here/unpacking"
        mkdir "$here/unpacking"
        tar --extract --file "$(echo "$here"/download/dpdk_"$release"*.orig.tar.*)" \
            --directory "$here/unpacking" --strip-components 1
        mv "$here/unpacking" "$here/source"
    fi
    echo "$here/source"
}

# Fetches the distribution's source package, with apt's own checks, by lists of our own: the system's stay as they are.
fetch() {
    command -v apt-get >/dev/null || {
        echo "neither submodules/dpdk nor apt-get is there to get DPDK's source from" >&2
        exit 1
    }
    mkdir -p "$here/apt/lists/partial" "$here/apt/parts" "$here/download"
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
        sed -n 's/^deb /deb-src /p' >"$here/apt/sources.list"
    for sources in /etc/apt/sources.list.d/*.sources; do
        [ ! -e "$sources" ] || sed 's/^Types:.*/Types: deb-src/' "$sources" >"$here/apt/parts/$(basename "$sources")"
    done
    local options=(-o "Dir::Etc::SourceList=$here/apt/sources.list" -o "Dir::Etc::SourceParts=$here/apt/parts"
        -o "Dir::State::Lists=$here/apt/lists" -o "Dir::Cache::pkgcache=" -o "Dir::Cache::srcpkgcache=")
    [ "$(id -u)" -ne 0 ] || options+=(-o APT::Sandbox::User=root)
    apt-get "${options[@]}" --quiet update
    (cd "$here/download" && apt-get "${options[@]}" --quiet --download-only --only-source source "dpdk/$(release_name)")
    ls "$here"/download/dpdk_"$release"*.orig.tar.* >/dev/null || {
        echo "the distribution's DPDK is not a $release; put one at submodules/dpdk" >&2
        exit 1
    }
}

release_name() {
    . /etc/os-release
    echo "${VERSION_CODENAME:?}"
}

# The distribution's Python, which has the module, before others that a user may have.
export PATH=/usr/bin:$PATH
mkdir -p "$here"
# Two at a time would build into each other.
exec 9>"$here/lock"
flock --nonblock 9 || {
    echo "waiting for another build in $here to end" >&2
    flock 9
}
source=$(source_folder)
# The libraries find each other, wherever the program looks that loads one of them.
export LDFLAGS="-Wl,-rpath,$here/install/lib ${LDFLAGS-}"
# What was set up for another source, or otherwise, is of no use.
wanted="$source $drivers $LDFLAGS"
if [ "$(cat "$here/objects/set-up-for" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$here/objects"
    meson setup "$here/objects" "$source" --prefix "$here/install" --libdir lib --buildtype release \
        -Dplatform=generic -Dtests=false -Denable_docs=false -Denable_apps=test-pmd -Denable_drivers="$drivers"
    echo "$wanted" >"$here/objects/set-up-for"
fi
ninja -C "$here/objects" ${JOBS:+-j "$JOBS"}
# What is installed knows its final place, and gets there at once.
rm -rf "$here/installing" "$here/replaced"
DESTDIR=$here/installing meson install -C "$here/objects" --no-rebuild --quiet
[ ! -d "$here/install" ] || mv "$here/install" "$here/replaced"
mv "$here/installing$here/install" "$here/install"
rm -rf "$here/installing" "$here/replaced"
echo "DPDK $(cat "$source/VERSION") is in $here/install, where builds with the feature dpdk find it"
