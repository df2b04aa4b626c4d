#!/usr/bin/env bash
# Worlds of 48 hours, each from a seed: the whole pipeline on SQLite, by a clock that is moved by hand.
#
# usage: scripts/simulate.sh [WORLDS [FIRST]]      (10000 from seed 1)
#
# One world in a hundred has some two hundred charges, one in a thousand some thousands.
# Says every half minute how far it is, and in the end what was in the worlds. A world that fails prints its seed and the
# story of the item; `scripts/simulate.sh 1 SEED` lives through that one alone. docs/testing.md tells more.
set -euo pipefail
cd "$(dirname "$0")/.."

export MAKEGOOD_TEST_WORLDS=${1:-10000} MAKEGOOD_TEST_SEED=${2:-1}
exec cargo test --locked --profile long --test it simulation::many_worlds -- --ignored --exact --nocapture
