#!/usr/bin/env bash
#
# Builds the guests that need a compiler into target/guests/NAME.wasm.
#
#     ./build.sh [NAME…]      without a name: all of them
#
# Rust guests are built with the current toolchain when it has the target
# wasm32-wasip1, or else with Debian's (packages rustc-web rust-web-src
# wasi-libc lld, no network needed); C guests with the first C compiler found
# that makes WASI programs.
#
# On stdout, one line for what was built and one for what could not be:
#
#     built: cat
#     could not build: primes wordcount (no Rust target wasm32-wasip1: …)
#
# Everything else, such as the compilers' own words, goes to stderr.
# Exit status: 0 all is built, 1 an error in a guest's source, 2 wrong usage,
# 3 a compiler is missing.

set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")"

readonly rust_guests=(hungry notes primes wordcount)
readonly c_guests=(cat)
readonly out=target/guests
readonly rust_target=wasm32-wasip1

# Called from `cargo test` we inherit what cargo and rustup have set for that
# run: the wrong package, flags, toolchain and shared libraries. What a user
# sets to reach a registry or to move cargo's home stays.
forget_the_calling_cargo() {
    if [[ -n ${CARGO:-} ]]; then
        unset LD_LIBRARY_PATH DYLD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH
    fi
    local name
    for name in $(compgen -e); do
        case $name in
            CARGO_HOME | CARGO_HTTP_* | CARGO_NET_* | CARGO_REGISTR* | CARGO_SOURCE_* | CARGO_TERM_*) ;;
            CARGO | CARGO_* | RUSTC | RUSTC_* | RUSTFLAGS | RUSTDOC | RUSTDOCFLAGS | \
                RUSTUP_TOOLCHAIN | RUST_RECURSION_COUNT)
                unset "$name"
                ;;
        esac
    done
}

# Puts a finished file in its place in one step; one that has not changed keeps
# its time.
install_guest() { # FROM NAME
    local place=$out/$2.wasm
    if ! cmp -s "$1" "$place"; then
        cp -f "$1" "$scratch/$2.wasm"
        mv -f "$scratch/$2.wasm" "$place"
    fi
    built+=("$2")
}

# Remembers guests for the line of those that could not be built.
give_up() { # REASON NAME…
    local reason=$1
    shift
    missing+=("$* ($reason)")
}

# ---- Rust -------------------------------------------------------------------

build_rust() { # NAME…
    if ! command -v cargo >/dev/null; then
        give_up 'no cargo: https://rustup.rs' "$@"
        return
    fi
    local settings=() options=()
    # rustc names the folder of any target it knows of, installed or not.
    local libdir
    libdir=$(rustc --print target-libdir --target "$rust_target" 2>/dev/null) || libdir=
    if [[ -z $libdir || ! -d $libdir ]]; then
        if ! debian_recipe; then
            give_up "no Rust target $rust_target: rustup target add $rust_target" "$@"
            return
        fi
    fi
    # A terminal sees the progress; others see errors and warnings only.
    [[ -t 2 ]] || options+=(--quiet)

    env ${settings[@]+"${settings[@]}"} CARGO_TARGET_DIR=target/build \
        cargo build ${options[@]+"${options[@]}"} --locked --release --target "$rust_target" \
        "${@/#/--package=}" >&2 9>&- || exit 1

    local name
    for name; do
        install_guest "target/build/$rust_target/release/$name.wasm" "$name"
    done
}

# Debian has a compiler that knows the target, but no standard library for it:
# cargo builds that too, from Debian's source, for Debian's C library.
debian_recipe() {
    local libc=/usr/lib/wasm32-wasi linker
    [[ -x /usr/bin/rustc && -f $libc/crt1-command.o ]] || return 1
    [[ -d $(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std ]] || return 1
    linker=$(find_linker) || return 1
    settings=(
        RUSTC=/usr/bin/rustc
        RUSTC_BOOTSTRAP=1 # for -Zbuild-std
        CARGO_TARGET_WASM32_WASIP1_LINKER="$linker"
        CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS="-C link-self-contained=no -L native=$libc -C link-arg=$libc/crt1-command.o"
    )
    options=('-Zbuild-std=std,panic_abort')
}

# The linker must be about as new as the compiler: Debian's plain wasm-ld comes
# last because it may be years older.
find_linker() {
    local sysroot host candidate
    for candidate in rustc /usr/bin/rustc; do
        sysroot=$("$candidate" --print sysroot 2>/dev/null) || continue
        host=$("$candidate" -vV | sed -n 's/^host: //p')
        if [[ -x $sysroot/lib/rustlib/$host/bin/rust-lld ]]; then
            echo "$sysroot/lib/rustlib/$host/bin/rust-lld"
            return
        fi
    done
    candidate=$(compgen -c wasm-ld- | grep -x 'wasm-ld-[0-9]*' | sort -t- -k3 -rn | head -n 1) || true
    command -v ${candidate:+"$candidate"} wasm-ld | head -n 1 | grep .
}

# ---- C ----------------------------------------------------------------------

build_c() { # NAME…
    local name compiler=unknown
    for name; do
        if [[ $out/$name.wasm -nt $name/$name.c && $out/$name.wasm -nt build.sh ]]; then
            built+=("$name")
            continue
        fi
        # Looked for once, and only when there is something to compile.
        if [[ $compiler == unknown ]]; then
            compiler=$(find_c_compiler) || compiler=
        fi
        if [[ -z $compiler ]]; then
            give_up 'no C compiler for wasm32-wasi' "$name"
            continue
        fi
        # shellcheck disable=SC2086 # a command of several words
        $compiler -std=c11 -Wall -Wextra -Os -s -o "$scratch/$name.new" "$name/$name.c" >&2 9>&- || exit 1
        install_guest "$scratch/$name.new" "$name"
        # Newer than its source, also when it is what it was before.
        touch "$out/$name.wasm"
    done
}

# Prints the first compiler command that can make a program.
find_c_compiler() {
    local candidate
    local candidates=(
        "clang --target=wasm32-wasi"
        "zig cc -target wasm32-wasi"
        "python3 -m ziglang cc -target wasm32-wasi"
    )
    printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' >"$scratch/probe.c"
    for candidate in "${candidates[@]}"; do
        if $candidate -o "$scratch/probe" "$scratch/probe.c" >/dev/null 2>&1 9>&-; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# ---- main -------------------------------------------------------------------

built=()
missing=()
rust_wanted=()
c_wanted=()

if (($# == 0)); then
    set -- "${c_guests[@]}" "${rust_guests[@]}"
fi
for name; do
    case " ${rust_guests[*]} | ${c_guests[*]} " in
        *" $name "*"|"*) rust_wanted+=("$name") ;;
        *"|"*" $name "*) c_wanted+=("$name") ;;
        *)
            echo "build.sh: no guest '$name' to build; there are: ${c_guests[*]} ${rust_guests[*]}" >&2
            exit 2
            ;;
    esac
done

forget_the_calling_cargo
mkdir -p "$out"
# One at a time, where there is flock. Without it two copies do the same work,
# and each file still appears whole. No compiler inherits the lock (9>&-): one
# may leave a server behind.
exec 9>target/.lock
if command -v flock >/dev/null; then
    flock 9
fi
scratch=$(mktemp -d "$out/.new.XXXXXX")
trap 'rm -rf -- "$scratch"' EXIT

((${#c_wanted[@]} == 0)) || build_c "${c_wanted[@]}"
((${#rust_wanted[@]} == 0)) || build_rust "${rust_wanted[@]}"

if ((${#built[@]} > 0)); then
    echo "built: ${built[*]}"
fi
if ((${#missing[@]} > 0)); then
    line=$(printf '; %s' "${missing[@]}")
    echo "could not build: ${line#; }"
    exit 3
fi
