#!/usr/bin/env bash
# All checks: format, lints, tests, alert rules.
#
# usage: scripts/test.sh [--fast]
#
# Needs Rust and git. On Debian it installs the rest (a C compiler, PostgreSQL and PgBouncer for the
# tests) and says so. Runs as root, or as a user who may use sudo for what is missing. The tests
# start servers of their own and use no other.
#
# --fast: only the format, the rules of the house and the library's tests, without the exhaustive
# ones. Needs no server and installs nothing. Under a minute on two cores when one file was changed
# since the last build.
set -euo pipefail
cd "$(dirname "$0")/.."

# The Rust whose lints were heeded. A newer one has lints that this code has never been checked
# with: these are shown and do not fail.
linted_with=$(sed -n 's/^rust-version = "1\.\([0-9]*\)"$/\1/p' Cargo.toml)
readonly linted_with

say() { printf '\n==> %s\n' "$*"; }

as_root() {
  if [[ $(id -u) -eq 0 ]]; then "$@"; else sudo "$@"; fi
}

refresh_lists_once() {
  [[ -n ${lists_are_fresh:-} ]] && return
  as_root apt-get -q -q update
  lists_are_fresh=yes
}

install_packages() {
  say "installing $* from Debian"
  if ! command -v apt-get >/dev/null; then
    echo "There is no apt-get here. Please install what Debian calls: $*" >&2
    exit 1
  fi
  refresh_lists_once
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -q install --yes --no-install-recommends "$@" >/dev/null
}

has_postgresql() {
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null
}

has_pgbouncer() {
  [[ -x /usr/sbin/pgbouncer ]] || command -v pgbouncer >/dev/null
}

set_up() {
  local missing=()
  command -v cc >/dev/null || missing+=(gcc libc6-dev)
  [[ -n ${MAKEGOOD_TEST_POSTGRES:-} ]] || has_postgresql || missing+=(postgresql)
  has_pgbouncer || missing+=(pgbouncer)
  [[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"

  if command -v rustup >/dev/null; then
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
  fi
}

# Only promtool, from Debian's package: installing the package would start a Prometheus.
find_promtool() {
  local kept=target/tools/promtool
  if command -v promtool; then return; fi
  if [[ ! -x $kept ]]; then
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    local room
    room=$(mktemp -d)
    (
      cd "$room"
      # apt would otherwise download as a user who may not enter root's directory.
      download=(apt-get -q -q -o APT::Sandbox::User=root download prometheus)
      "${download[@]}" || { refresh_lists_once && "${download[@]}"; }
      dpkg-deb --extract prometheus_*.deb .
    ) >&2 && mkdir -p target/tools && mv "$room/usr/bin/promtool" "$kept"
    rm -rf "$room"
  fi
  [[ -x $kept ]] && echo "$kept"
}

results=()
failed=0

# step NAME COMMAND…: runs it, records result and duration, and goes on either way.
step() {
  local name=$1 began=$SECONDS outcome=passed
  shift
  say "$name: $*"
  "$@" || { outcome=FAILED; failed=1; }
  results+=("$(printf '%-8s %-12s %4d s' "$outcome" "$name" $((SECONDS - began)))")
}

# Built by rustc alone: Cargo would first build the library and the binary, which it does not use.
house() {
  mkdir -p target
  CARGO_MANIFEST_DIR=$PWD rustc --edition 2024 --test tests/house/main.rs -o target/house &&
    target/house --quiet
}

finish() {
  say "summary"
  printf '%s\n' "${results[@]}"
  exit "$failed"
}

# These try every change of every example, which takes longer than all other tests of the library.
exhaustive=(
  --skip provider::tests::hostile
  --skip provider::tests::changed
  --skip provider::tests::generated
  --skip policy::tests::reach
)

if [[ ${1:-} == --fast ]]; then
  step format cargo fmt --check
  step house house
  step library cargo test --locked --lib --quiet -- "${exhaustive[@]}"
  finish
fi

set_up

# As root with a server of our own everything can be tested. A test that is not tried then fails
# instead of passing.
[[ $(id -u) -ne 0 || -n ${MAKEGOOD_TEST_POSTGRES:-} ]] || export MAKEGOOD_TEST_STRICT=1

lints=(-D warnings)
minor=$(rustc --version | sed -E 's/^rustc 1\.([0-9]+).*/\1/')
if [[ $minor -gt $linted_with ]]; then
  say "this Rust is newer than 1.$linted_with: its warnings are shown, but do not fail"
  lints=()
fi

step format cargo fmt --check
step lints cargo clippy --locked --all-targets -- "${lints[@]}"
# Two tests for each processor, because most of them wait for a server.
step tests env "RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 2))}" cargo test --locked
if promtool=$(find_promtool); then
  step alerts "$promtool" test rules deploy/prometheus/alerts_test.yaml
else
  results+=("NOT RUN  alerts       no promtool here (Debian: package prometheus)")
fi

# cargo-deny is not installed for this: advisories come from the network and change from day to day.
if command -v cargo-deny >/dev/null; then
  step supply cargo deny --locked check
fi

finish
