#!/bin/sh
# Installs libcatnip with its headers, pkg-config file and CMake package.
#
#   tools/install.sh PREFIX
#
#   LIBDIR   folder for libraries below PREFIX (default lib)
#   DESTDIR  put in front of every path, for packagers
#   PROFILE  cargo profile to build with (default release)
#   FEATURES features of catnip-capi to build in, such as dpdk
set -eu

prefix=${1:?usage: tools/install.sh PREFIX}
case $prefix in
/*) ;;
*) prefix=$PWD/$prefix ;;
esac
libdir=${LIBDIR:-lib}
root=${DESTDIR:-}$prefix
profile=${PROFILE:-release}
features=${FEATURES:-}
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
case $profile in
dev) built=$target/debug ;;
*) built=$target/$profile ;;
esac
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
major=${version%%.*}
minor=${version#*.}
minor=${minor%%.*}

# What programs are linked with beside libcatnip.a.
libraries='-lgcc_s -lutil -lrt -lpthread -lm -ldl'
folders=''
case " $(echo "$features" | tr ',' ' ') " in
*' dpdk '*)
    libraries="-lrte_ethdev -lrte_mbuf -lrte_mempool -lrte_eal $libraries"
    # Where dpdk-sys looks too: the machine's DPDK, or else what `make dpdk` built.
    if ! pkg-config --exists 'libdpdk >= 21.11' && [ -d build/dpdk/install/lib ]; then
        folders=" -L$PWD/build/dpdk/install/lib -Wl,-rpath,$PWD/build/dpdk/install/lib"
    fi
    ;;
esac

fill_in() { # TEMPLATE FILE
    sed -e "s|@PREFIX@|$prefix|g" -e "s|@LIBDIR@|$libdir|g" -e "s|@VERSION@|$version|g" \
        -e "s|@MAJOR@|$major|g" -e "s|@MINOR@|$minor|g" \
        -e "s|@PRIVATE_FOLDERS@|$folders|g" -e "s|@PRIVATE_LIBRARIES@|$libraries|g" "$1" >"$2"
    chmod 644 "$2"
}

cargo build --quiet --package catnip-capi --profile "$profile" ${features:+--features "$features"}

# Folders are for everybody, whatever the user's own files are.
umask 022
mkdir -p "$root/include/demi" "$root/$libdir/pkgconfig" "$root/$libdir/cmake/Catnip"
install -m 644 capi/include/demi/*.h capi/include/demi/*.hpp "$root/include/demi/"
install -m 755 "$built/libcatnip.so" "$root/$libdir/libcatnip.so.$version"
ln -sf "libcatnip.so.$version" "$root/$libdir/libcatnip.so.$major"
ln -sf "libcatnip.so.$major" "$root/$libdir/libcatnip.so"
install -m 644 "$built/libcatnip.a" "$root/$libdir/libcatnip.a"
fill_in capi/pkgconfig/catnip.pc.in "$root/$libdir/pkgconfig/catnip.pc"
for file in CatnipConfig.cmake CatnipConfigVersion.cmake; do
    fill_in "capi/cmake/$file.in" "$root/$libdir/cmake/Catnip/$file"
done
echo "installed libcatnip $version under $root"

# A library that the system's loader does not know of is not found when a program starts.
if [ -z "${DESTDIR:-}" ]; then
    [ "$(id -u)" -ne 0 ] || ldconfig 2>/dev/null || true
    case $(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null) in
    *"$prefix/$libdir/libcatnip.so."*) ;;
    *)
        echo "the system does not look for libraries in $prefix/$libdir: build programs with"
        echo "  PKG_CONFIG_PATH=$prefix/$libdir/pkgconfig and -Wl,-rpath,$prefix/$libdir, or run them with LD_LIBRARY_PATH=$prefix/$libdir"
        ;;
    esac
fi
