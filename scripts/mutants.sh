#!/usr/bin/env bash
# Mutation testing: changes one thing at a time in what decides and moves money, and asks whether a test notices.
#
# usage: scripts/mutants.sh [LIBRARY|ALL]      (ALL)
#
# Two rounds, since the first is quick: the library's tests, then for what they let through the integration tests on
# SQLite. What nobody noticed stands in mutants.out/missed.txt at the end; docs/testing.md says which of them are right to
# live. Works on a copy of the sources. Some 15 minutes for the first round on two cores, and about a minute for each
# mutant of the second.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo-mutants >/dev/null || cargo install cargo-mutants --locked

rounds() { cargo mutants --no-shuffle --timeout 300 "$@" || [[ $? -eq 2 ]]; }

rounds -- --lib
[[ ${1:-ALL} == LIBRARY ]] || rounds --iterate -- --test it on_sqlite
