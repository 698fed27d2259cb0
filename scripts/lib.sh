# What the scripts share; sourced by them, never run. Each script sets -euo pipefail itself.
# shellcheck shell=bash

say() { echo "${0##*/}: $*" >&2; }
die() { say "error: $*"; exit 1; }

# Installs Debian packages quietly, and loudly if that fails. An ordinary user is told what is missing.
apt_install() { # PACKAGE...
    [ "$(id -u)" = 0 ] || die "missing Debian packages ($*), and only root can install them"
    local log
    log=$(mktemp)
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } </dev/null >"$log" 2>&1; then
        tail -20 "$log" >&2
        rm -f "$log"
        die "apt-get could not install $*"
    fi
    rm -f "$log"
}

# Installs packages unless a command is there already.
need() { # COMMAND PACKAGE...
    command -v "$1" >/dev/null || apt_install "${@:2}"
}

# Runs a command as user postgres if we are root; Postgres refuses to run as root.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then (cd / && exec runuser -u postgres -- "$@"); else "$@"; fi
}

check_sha256() { # FILE SHA256
    local got
    got=$(sha256sum "$1" | cut -d' ' -f1)
    [ "$got" = "$2" ] || die "$1 is not the file that was pinned: sha256 is $got, expected $2"
}

# A Rust of at least the version that Cargo.toml asks for, and what crates with C inside need to build.
need_rust() { # CHECKOUT
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$1/Cargo.toml" | head -1)
    command -v cargo >/dev/null || { [ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"; }
    command -v cargo >/dev/null || die "cargo is missing: install Rust $wanted or newer (https://rustup.rs), Debian's is too old"
    found=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -1)" = "$wanted" ] || die "Rust $found is too old: $wanted or newer is needed (rustup update)"
    need cc gcc libc6-dev
    need make make
}

# What a mount needs.
need_fuse() {
    need fusermount3 fuse3
    [ -e /dev/fuse ] || die "there is no /dev/fuse: nothing can be mounted here (in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
}
