# `just` without a recipe lists these. Each is one command that you can type without `just` as well.

_list:
    @just --list

# See makegood work: a platform, a provider, a night and a day.
demo:
    cargo run -- demo

# Checks in under a minute, while you write.
fast:
    scripts/test.sh --fast

# Everything that must pass before a change is kept.
test:
    scripts/test.sh

# Integration tests whose names contain NAME.
it NAME:
    cargo test --test it -- {{NAME}}

# Everything that takes hours: sizes, simulations, faults, mutants.
long *STEPS:
    scripts/long.sh {{STEPS}}

# Write src/policy.md again after a change of the decision table that was meant.
policy:
    MAKEGOOD_WRITE_POLICY=1 cargo test --lib policy::table
