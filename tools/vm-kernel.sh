# For scripts that boot virtual machines: kernels, unpacked under build/vm and not installed. Sourced from the repository's root by
# bash, after tools/setup.sh.
#
#   NEWER       where the newer kernel is from: a suite of the distribution's archive
here=$PWD/build/vm
newer=${NEWER:-trixie-backports}

# What the functions below need of the machine.
need_kernel() {
    need apt-get apt
    need depmod kmod
    need xz xz-utils
}

# Adds the options to `apt` with which it reads the newer suite, by lists of its own: the system's stay as they are.
newer_suite() {
    mkdir -p "$here/apt/lists/partial" "$here/apt/cache/archives/partial"
    local archive keys=/usr/share/keyrings/debian-archive-keyring.gpg
    archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/$')
    [ -e "$keys" ] && keys="[signed-by=$keys]" || keys=
    echo "deb $keys ${archive:?the package lists are empty: apt-get update} $newer main" >"$here/apt/sources.list"
    apt=(-o "Dir::Etc::SourceList=$here/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$here/apt/lists" -o "Dir::Cache=$here/apt/cache" -o Dir::State::Status=/dev/null
        -o Acquire::Languages=none "${apt[@]}")
    apt-get "${apt[@]}" -qq update || {
        echo "the suite $newer cannot be read for a newer kernel: NEWER=SUITE names another, KERNELS=distribution does without" >&2
        exit 1
    }
}

# Unpacks a kernel, by its name here, and does not install it.
kernel() {
    [ ! -d "$here/kernel-$1" ] || return 0
    local apt=() unpacking=$here/unpacking packages
    [ "$(id -u)" -ne 0 ] || apt=(-o APT::Sandbox::User=root)
    [ "$1" = distribution ] || newer_suite
    rm -rf "$unpacking"
    mkdir -p "$unpacking/root"
    # The package that always names the latest, and those that it names: one, or since Linux 7 several.
    mapfile -t packages < <(apt-cache "${apt[@]}" depends --recurse --important linux-image-amd64 |
        grep -oE 'linux-(image|binary|modules)-[0-9][^ ]*' | sort -u)
    (cd "$unpacking" && apt-get "${apt[@]}" -qq download "${packages[@]:?the package lists are empty: apt-get update}")
    for package in "$unpacking"/*.deb; do dpkg -x "$package" "$unpacking/root"; done
    rm "$unpacking"/*.deb
    # Merged systems keep /lib under /usr.
    [ -e "$unpacking/root/lib" ] || ln -s usr/lib "$unpacking/root/lib"
    depmod --basedir "$unpacking/root" "$(ls "$unpacking/root/lib/modules")"
    mv "$unpacking/root" "$here/kernel-$1"
    rm -rf "$unpacking"
}

# Copies modules of an unpacked kernel with those that they need to "ko" in an initial file system, whose list "modules" says in
# which order to load them.
copy_modules() { # KERNEL ROOT MODULE...
    local kernel=$1 root=$2 version module
    version=$(ls "$kernel/lib/modules")
    shift 2
    for module in "$@"; do
        # One that is not there is built in.
        { modprobe --quiet --dirname "$kernel" --set-version "$version" --show-depends "$module" || true; } |
            awk '$1 == "insmod" { print $2 }'
    done | awk '!seen[$0]++' | while read -r module; do
        cp "$module" "$root/ko/"
        basename "$module" .xz >>"$root/modules"
    done
    for module in "$root"/ko/*.xz; do [ ! -e "$module" ] || xz --decompress "$module"; done
}
