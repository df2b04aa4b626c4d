#!/usr/bin/env bash
# Fault injection on the built binary: workers are killed, disconnected, suspended and given
# contradictory answers, and PostgreSQL is restarted under them, in rounds, until KILLS workers were
# killed and RESTARTS restarts were made. The books are checked after every step. At the end, every
# kind of fault must have taken effect.
#
# usage: scripts/faults.sh [KILLS [RESTARTS]]      (1000 and 100: about half an hour on two cores)
#
#   MAKEGOOD_TEST_SEED=N        the seed of the first round; each round prints its own
#   MAKEGOOD_TEST_BINARY=FILE   another build of makegood
#   MAKEGOOD_TEST_TELL=1        print everything that was done to each worker
#
# Needs what scripts/test.sh needs, and a PostgreSQL installed here: a server elsewhere cannot be
# restarted.
set -euo pipefail
cd "$(dirname "$0")/.."

export MAKEGOOD_TEST_KILLS=${1:-1000} MAKEGOOD_TEST_RESTARTS=${2:-100}
exec cargo test --locked --profile long --test it faults::the_long_round -- --ignored --exact --nocapture
