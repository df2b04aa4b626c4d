#!/usr/bin/env bash
# All checks: format, lints, tests, alert rules. Needs Rust and git; the rest it installs on Debian
# itself (a C compiler, PostgreSQL and PgBouncer for the tests) and says so. Runs as root, or as
# anybody who may use sudo for what is missing. The tests start a server of their own and leave
# every other alone.
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

# promtool alone, out of Debian's package: installing it would start a Prometheus.
find_promtool() {
  local kept=target/tools/promtool
  if command -v promtool; then return; fi
  if [[ ! -x $kept ]]; then
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    local room
    room=$(mktemp -d)
    (
      cd "$room"
      # Root's own directory is closed to the user that apt would otherwise download as.
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

# step NAME COMMAND…: runs it, notes how it went and how long it took, goes on either way.
step() {
  local name=$1 began=$SECONDS outcome=passed
  shift
  say "$name: $*"
  "$@" || { outcome=FAILED; failed=1; }
  results+=("$(printf '%-8s %-12s %4d s' "$outcome" "$name" $((SECONDS - began)))")
}

set_up

# As root with a server of our own everything can be tried: what is not tried fails, instead of
# passing without a word.
[[ $(id -u) -ne 0 || -n ${MAKEGOOD_TEST_POSTGRES:-} ]] || export MAKEGOOD_TEST_STRICT=1

lints=(-D warnings)
minor=$(rustc --version | sed -E 's/^rustc 1\.([0-9]+).*/\1/')
if [[ $minor -gt $linted_with ]]; then
  say "this Rust is newer than 1.$linted_with: its warnings are shown, but do not fail"
  lints=()
fi

step format cargo fmt --check
step lints cargo clippy --locked --all-targets -- "${lints[@]}"
# Two tests for every processor: most of them wait for a server.
step tests env "RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 2))}" cargo test --locked
if promtool=$(find_promtool); then
  step alerts "$promtool" test rules deploy/prometheus/alerts_test.yaml
else
  results+=("NOT RUN  alerts       no promtool here (Debian: package prometheus)")
fi

# Not installed for it: advisories come from the network, and may change from one day to the next.
if command -v cargo-deny >/dev/null; then
  step supply cargo deny --locked check
fi

say "summary"
printf '%s\n' "${results[@]}"
exit "$failed"
