#!/usr/bin/env bash
# Everything that takes too long for scripts/test.sh: passes on large tables, worlds from seeds,
# faults, real input, mutants.
#
# usage: scripts/long.sh [STEP…]        (all of them: some hours on two cores)
#
#   size       scripts/size.sh on 100,000 and 10 million charges, and again with 300,000 open
#              orphans that are not due
#   memory     peak memory of passes over 10,000, 100,000 and 300,000 orphans
#   processes  items a second and lock waits with 1, 2 and 4 processes
#   locked     one balance locked by the platform, 5,000 orphans
#   hostile    scripts/hostile.py: a healthy provider beside a hostile one, and peak memory
#   simulate   scripts/simulate.sh        faults   scripts/faults.sh
#   sim-pg     scripts/simulate.sh --postgres
#   real       scripts/real-input.sh      mutants  scripts/mutants.sh
#
# The first five fail if a figure misses its target; docs/performance.md lists the targets. They
# measure target/release/makegood, which is built first, and keep their output in target/long/. The
# others fail if their tests do. Needs what scripts/test.sh and scripts/size.sh need.
set -euo pipefail
cd "$(dirname "$0")/.."

kept=target/long
mkdir -p "$kept"
results=() failed=0

# step NAME COMMAND…: runs it, keeps its output, records result and duration, and goes on either
# way.
step() {
  local name=$1 began=$SECONDS outcome=passed
  shift
  printf '\n==> %s: %s\n' "$name" "$*"
  "$@" 2>&1 | tee "$kept/$name.txt" || { outcome=FAILED; failed=1; }
  results+=("$(printf '%-8s %-12s %5d s' "$outcome" "$name" $((SECONDS - began)))")
}

# judge EXIT FILE: reads the tables of scripts/size.sh and names each figure that misses its target.
# EXIT is the exit code that passes should end with: 3 where the brake holds orphans.
judge() {
  awk -F' *[|] *' -v exit_code="$1" '
    function miss(what) { print "MISSED: " what; missed = 1 }
    NF < 12 || $2 !~ /^[0-9]+$/ { next }
    { seen++; of = $3 " on " $2 " charges"; blocks = $11; sub(/ .*/, "", blocks) }
    $4 != exit_code { miss("exit " $4 " of the " of) }
    $9 > 5000 { miss($10 " took " $9 " ms in the " of ", at most 5000") }
    $3 == "10,000 new" { if (!smallest) smallest = blocks; else if (blocks > 1.2 * smallest) miss(blocks " blocks in the pass with " of ", at most 1.2 times " smallest) }
    $3 == "first night" && $2 == 10000000 && $12 >= 60 { miss($12 " s of database time in the " of ", at most 60") }
    $3 == "first night" && $2 == 10000000 && blocks >= 40000000 { miss(blocks " blocks in the " of ", at most 40 million") }
    $3 ~ /idle passes in all/ { most = $11; sub(/.*at most /, "", most); sub(/\).*/, "", most); if (most > 600000) miss(most " blocks in one of the " of ", at most 600000") }
    END { if (!seen) miss("there is no table"); exit missed }' "$2"
}

size() {
  local missed=0
  scripts/size.sh 100000 10000000 | tee "$kept/size.md" && judge 0 "$kept/size.md" || missed=1
  scripts/size.sh --waiting 200000 --held 100000 100000 10000000 | tee "$kept/waiting.md" && judge 3 "$kept/waiting.md" || missed=1
  return "$missed"
}

# Memory does not grow with the work: all figures are within a tenth of each other and below 64 MiB.
memory() {
  local orphans
  : >"$kept/memory.md"
  for orphans in 10000 100000 300000; do
    scripts/size.sh --passes first --orphans "$orphans" --every 2 1000000 | tee -a "$kept/memory.md" || return 1
  done
  judge 0 "$kept/memory.md" || return 1
  awk -F' *[|] *' '$2 ~ /^[0-9]+$/ { if (!least || $7 < least) least = $7; if ($7 > most) most = $7 }
    END { print "peak memory: " least " to " most " MiB"; exit most > 1.1 * least || most >= 64 }' "$kept/memory.md"
}

processes() {
  local many
  : >"$kept/processes.md"
  for many in 1 2 4; do
    scripts/size.sh --passes first --processes "$many" --orphans 20000 --every 2 100000 | tee -a "$kept/processes.md" || return 1
  done
  judge 0 "$kept/processes.md" || return 1
  awk '/between first and last/ { match($0, /, [0-9]+ between first/); rate = substr($0, RSTART + 2, RLENGTH) + 0
         if (rate < last) { print "MISSED: " rate " items/s with more processes, " last " with fewer"; missed = 1 }; last = rate }
    END { exit missed || !last }' "$kept/processes.md"
}

locked() {
  scripts/size.sh --passes first --locked 100000 | tee "$kept/locked.md" || return 1
  judge 0 "$kept/locked.md" || return 1
  grep -q ', 0 of 0 others' "$kept/locked.md" || { echo "MISSED: orphans of other accounts are open"; return 1; }
}

# The healthy provider's charges are refunded within 2 s beside every hostile one, and a process
# stays below 700 MiB.
hostile() {
  scripts/hostile.py | tee "$kept/hostile.md" || return 1
  awk -F' *[|] *' '$3 ~ /^-?[0-9]+$/ { seen++
      if ($3 != 0) { print "MISSED: exit " $3 " beside " $2; missed = 1 }
      if ($5 == "never" || $5 > 2) { print "MISSED: refunded after " $5 " s beside " $2; missed = 1 }
      if ($7 > 700) { print "MISSED: " $7 " MiB beside " $2; missed = 1 } }
    END { exit missed || !seen }' "$kept/hostile.md"
}

[[ $# -gt 0 ]] || set -- size memory processes locked hostile simulate sim-pg faults real mutants
for name in "$@"; do
  case $name in
    size | memory | processes | locked | hostile)
      [[ -n ${built:-} ]] || step build cargo build --locked --release
      built=yes
      step "$name" "$name"
      ;;
    simulate | faults | mutants) step "$name" "scripts/$name.sh" ;;
    sim-pg) step sim-pg scripts/simulate.sh --postgres ;;
    real) step real scripts/real-input.sh ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' scripts/long.sh >&2; exit 2 ;;
  esac
done

printf '\n==> summary\n'
printf '%s\n' "${results[@]}"
exit "$failed"
