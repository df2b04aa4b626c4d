#!/usr/bin/env python3
"""Measures commands beside servers, and prints medians as a table.

usage: measure.py run RESULTS NAME ROUND POSTMASTER_PID_FILE NGINX_PID_FILE -- COMMAND…
       measure.py table RESULTS ITEMS

`run` appends a JSON line to RESULTS: wall seconds, CPU seconds of the command, of all PostgreSQL
processes and of nginx, peak memory, and the CPU that everything else used meanwhile. The command must
close its connections. `table` prints medians over the rounds; `x` is the ratio to both floors of the
same round, one after the other.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from statistics import median

TICK = os.sysconf("SC_CLK_TCK")
FLOORS = ("floor: SQL", "floor: HTTP")


def stat(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()


def children(pid):
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(stat(entry)[1]) == pid:
                found.append(int(entry))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def tree_cpu(pid):
    """CPU seconds of a server and of its children, also of those that have ended. Read again when one came
    or went meanwhile: one that ends between two reads would be lost."""
    while True:
        kids = children(pid)
        try:
            total = sum(map(int, stat(pid)[11:15]))
            total += sum(sum(map(int, stat(kid)[11:13])) for kid in kids)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if children(pid) == kids:
            return total / TICK


def machine_cpu():
    with open("/proc/stat") as file:
        user, nice, system, _idle, _waiting, irq, soft, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + soft + steal) / TICK


def sessions(postmaster):
    def is_session(pid):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                return file.read().startswith("postgres: bench ")
        except (FileNotFoundError, ProcessLookupError):
            return False

    return any(map(is_session, children(postmaster)))


def first_line(path):
    with open(path) as file:
        return int(file.readline())


def run(results, name, number, postmaster, nginx, _dashes, *command):
    postmaster, nginx = first_line(postmaster), first_line(nginx)
    before = tree_cpu(postmaster), tree_cpu(nginx), machine_cpu()
    began = time.monotonic()
    code = subprocess.call(command)
    wall = time.monotonic() - began
    while sessions(postmaster) and time.monotonic() - began - wall < 5:
        time.sleep(0.02)
    after = tree_cpu(postmaster), tree_cpu(nginx), machine_cpu()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    client = used.ru_utime + used.ru_stime
    postgres, provider, machine = (b - a for a, b in zip(before, after))
    row = {
        "name": name, "round": int(number), "code": code, "wall": wall, "client": client, "postgres": postgres,
        "nginx": provider, "cpu": client + postgres + provider, "peak": used.ru_maxrss / 1024,
        "other": max(0, machine - client - postgres - provider) / (wall * os.cpu_count()),
    }
    with open(results, "a") as file:
        file.write(json.dumps(row) + "\n")
    sys.exit(code)


def table(results, items):
    items = int(items)
    by_name = defaultdict(dict)
    with open(results) as file:
        for line in file:
            row = json.loads(line)
            by_name[row["name"]][row["round"]] = row
    print("| | items/s | CPU µs an item | client | database | provider | peak MiB | × wall | × CPU | range | other |")
    print("|---|" + "---:|" * 10)
    for name, rounds in by_name.items():
        def mid(key):
            return median(row[key] for row in rounds.values())

        def ratios(key):
            return [row[key] / sum(by_name[floor][at][key] for floor in FLOORS) for at, row in rounds.items()]

        micros = {key: mid(key) * 1e6 / items for key in ("cpu", "client", "postgres", "nginx")}
        x = ratios("cpu")
        print(
            f"| {name} | {items / mid('wall'):,.0f} | {micros['cpu']:.0f} | {micros['client']:.0f} | {micros['postgres']:.0f} "
            f"| {micros['nginx']:.0f} | {mid('peak'):.0f} | {median(ratios('wall')):.2f} | {median(x):.2f} "
            f"| {min(x):.2f}–{max(x):.2f} | {mid('other'):.0%} |"
        )


if __name__ == "__main__":
    {"run": run, "table": table}[sys.argv[1]](*sys.argv[2:])
