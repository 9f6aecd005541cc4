# shellcheck shell=sh
# What a make target needs from the system. To be sourced:
#
#   . tools/setup.sh
#   need cc gcc                     # the command, and the Debian package that has it
#   need_library libnuma libnuma-dev   # a library as pkg-config knows it, and its package
#   need_rust
#   needs_met                       # installs what is missing when root, else names it all and ends

missing_packages=''
missing_reasons=''

# Notes that COMMAND is needed, which PACKAGE has.
need() {
    command -v "$1" >/dev/null 2>&1 || lacks "$2" "the command $1"
}

# Notes that a library is needed which pkg-config knows as NAME and PACKAGE has.
need_library() {
    need pkg-config pkg-config
    { command -v pkg-config >/dev/null 2>&1 && pkg-config --exists "$1"; } || lacks "$2" "the library $1"
}

# Notes that libclang is needed, which bindgen loads.
need_libclang() {
    for library in /usr/lib/llvm-*/lib/libclang.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang.so*; do
        [ ! -e "$library" ] || return 0
    done
    [ -n "${LIBCLANG_PATH:-}" ] || lacks libclang-dev 'the library libclang'
}

# Ends with words where there is no Rust: which version, rust-toolchain or Cargo.toml says.
need_rust() {
    command -v cargo >/dev/null 2>&1 && return
    echo "missing: cargo. Install Rust from https://rustup.rs and run this again." >&2
    exit 1
}

# Installs cargo-fuzz, with a version that is known to work, where it is missing.
need_cargo_fuzz() {
    cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz@0.13.2 >&2
}

lacks() {
    case " $missing_packages " in
    *" $1 "*) ;;
    *) missing_packages="$missing_packages $1" ;;
    esac
    missing_reasons="$missing_reasons
  $2 (Debian package $1)"
}

# Installs what is missing when root on a system with apt; else names it and ends.
needs_met() {
    [ -n "$missing_packages" ] || return 0
    echo "missing:$missing_reasons" >&2
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "Install with: apt-get install$missing_packages" >&2
        exit 1
    fi
    echo "installing:$missing_packages" >&2
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # the packages are separate words
    {
        # Somebody else's installation may be under way, as on a machine that has just started.
        apt-get -qq -o DPkg::Lock::Timeout=300 update &&
            apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends $missing_packages
    } >&2 || {
        echo "apt-get could not install:$missing_packages" >&2
        exit 1
    }
    missing_packages=''
    missing_reasons=''
}
