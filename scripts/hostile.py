#!/usr/bin/env python3
"""A healthy provider's five refunds beside a provider that means harm, with the built binary.

usage: scripts/hostile.py [BINARY [SCENARIO…]]        (target/release/makegood, all scenarios)

For each scenario it makes a SQLite database with five charges of a provider that answers at once
(they are refunded) and the charges of the hostile one, runs `makegood run`, and prints the exit
code, how long the pass took, when the healthy charges were refunded, how long the process took to
end after SIGTERM, its peak memory with that of its filter workers, and what became of the hostile
charges. Servers and database are on loopback and thrown away. Needs Python 3, nothing else.

Left to the reader: judging the figures. They depend on the machine; tests prove the same by the
order of events.
"""

import base64
import gzip
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

HOUR = 3_600_000_000
FILE_BYTES = 90 << 20
READ = '{verdict: "succeeded", outputs: [{index: 0, base64: .body.image}]}'


def heavy_answer():
    """JSON with a file of 90 MiB as base64: 120 MB."""
    file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + os.urandom(FILE_BYTES - 16)
    return b'{"image": "' + base64.b64encode(file) + b'"}'


def endless(first, again):
    def serve(connection, _body):
        connection.sendall(first)
        block = again * (65536 // len(again))
        while True:
            connection.sendall(block)

    return serve


def once(headers, body):
    def serve(connection, prepared):
        content = prepared if prepared is not None else body
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(content)}\r\n{headers}\r\n".encode()
        connection.sendall(head)
        connection.sendall(content)

    return serve


def trickle(connection, _body):
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(1)


def silent(_connection, _body):
    time.sleep(3600)


# name: (hostile charges, how a connection is treated, what is prepared once, the filter)
SCENARIOS = {
    "nobody": (0, silent, None, READ),
    "103-without-end": (8, endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), None, READ),
    "head-without-end": (8, endless(b"HTTP/1.1 200 OK\r\n", b"x-a: aaaaaaaa\r\n"), None, READ),
    "body-without-end": (8, endless(b"HTTP/1.1 200 OK\r\n\r\n", b"aaaaaaaa"), None, READ),
    "chunks-of-nothing": (
        8,
        endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1;" + b"x" * 8000 + b"\r\n \r\n"),
        None,
        READ,
    ),
    "gzip-bomb": (
        8,
        once("content-encoding: gzip\r\n", None),
        lambda: gzip.compress(b" " * (1 << 30), 9),
        READ,
    ),
    "silent": (8, silent, None, READ),
    "trickle": (8, trickle, None, READ),
    "filter-that-loops": (3, once("", b'{"count": 1}'), None, "if .body.count then [range(1e12)] | length else {} end"),
    "deep-json": (8, once("", None), lambda: b"[" * (4 << 20), READ),
    "one-120-mb-answer": (1, once("", None), heavy_answer, READ),
    "eight-120-mb-answers": (8, once("", None), heavy_answer, READ),
}


def serve(treat, body):
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)

    def connection(stream):
        try:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = stream.recv(4096)
                    if not piece:
                        return
                    head += piece
                treat(stream, body)
        except OSError:
            pass
        finally:
            stream.close()

    def accept():
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=connection, args=(stream,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def provider(name, port, read, more=""):
    return (
        f'[provider]\nname = "{name}"\nmax_body_bytes = 134217728\noutput_hosts = []\nretries = 0\n{more}'
        f"[ask]\nrequest = \"GET http://127.0.0.1:{port}/{{job}}\"\nread = '{read}'\n"
    )


def rows(database, of, count):
    at = time.time_ns() // 1000 - HOUR
    for nth in range(count):
        charge = f"{of}-{nth}"
        database.execute(
            "INSERT INTO charges VALUES (?, 'u1', 'p', 'n', ?, 'm', ?, ?, 0, 10, NULL)", (charge, of, charge, at)
        )
        database.execute("INSERT INTO charge_items VALUES (?, 0, 10, NULL, NULL, NULL)", (charge,))


def peak_mib(pid):
    """Peak resident memory of a process and of its children, now."""
    sum_kib = 0
    try:
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
        for each in [str(pid), *children.split()]:
            with open(f"/proc/{each}/status") as status:
                sum_kib += sum(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return sum_kib / 1024


def run(binary, name):
    count, treat, prepared, read = SCENARIOS[name]
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/providers")
        hostile = serve(treat, prepared() if prepared else None)
        healthy = serve(once("", b'{"status": "failed"}'), None)
        with open(f"{folder}/providers/hostile.toml", "w") as file:
            file.write(provider("hostile", hostile, read, "max_concurrency = 8\n"))
        with open(f"{folder}/providers/healthy.toml", "w") as file:
            file.write(
                provider("healthy", healthy, 'if .body.status == "failed" then {verdict: "failed", class: "provider_error"} else {} end')
            )
        environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": f"sqlite://{folder}/platform.db",
            "MAKEGOOD__PROVIDERS__DIR": "providers",
            "MAKEGOOD__RECOVERY__ALLOW_LOOPBACK": "true",
            "MAKEGOOD__LOG__LEVEL": "error",
        }
        binary = os.path.abspath(binary)
        migrate = [binary, "migrate", "--reference-schema"]
        subprocess.run(migrate, cwd=folder, env=environment, check=True, capture_output=True)
        database = sqlite3.connect(f"{folder}/platform.db", timeout=60)
        database.execute("INSERT INTO accounts VALUES ('u1', 'user')")
        database.execute("INSERT INTO balances VALUES ('u1', 'wallet', 0)")
        rows(database, "hostile", count)
        rows(database, "healthy", 5)
        database.commit()

        began = time.monotonic()
        command = [binary, "run", "--output", "json"]
        with open(f"{folder}/out", "w") as out, open(f"{folder}/err", "w") as err:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err)
        peak, refunded, stopped = 0.0, None, None
        while process.poll() is None:
            peak = max(peak, peak_mib(process.pid))
            took = time.monotonic() - began
            if refunded is None:
                done = database.execute("SELECT count(*) FROM makegood_refunds").fetchone()[0]
                refunded = took if done == 5 else None
            if took > 60 and stopped is None:
                stopped = time.monotonic()
                process.send_signal(signal.SIGTERM)
            if took > 120:
                process.kill()
            time.sleep(0.01)
        took = time.monotonic() - began
        states = database.execute(
            "SELECT state || ' ' || count(*) FROM makegood_orphans WHERE provider = 'hostile' GROUP BY state ORDER BY 1"
        ).fetchall()
        said = database.execute(
            "SELECT coalesce(code, '') || ' ' || coalesce(message, '') FROM makegood_answers WHERE provider = 'hostile' LIMIT 1"
        ).fetchone()
        ended = "" if stopped is None else f"{time.monotonic() - stopped:.1f}"
        healthy_by = "never" if refunded is None else f"{refunded:.2f}"
        fates = ", ".join(state for (state,) in states)
        print(
            f"| {name} | {process.returncode} | {took:.1f} | {healthy_by} | {ended} | {peak:.0f} | {fates} | "
            f"{(said or [''])[0].strip()[:90]} |",
            flush=True,
        )
        if process.returncode not in (0, 3) and "-v" in sys.argv:
            print(open(f"{folder}/err").read()[-2000:], open(f"{folder}/out").read()[-2000:])


def main():
    arguments = [each for each in sys.argv[1:] if each != "-v"]
    binary = arguments[0] if arguments else "target/release/makegood"
    print("| beside | exit | pass s | 5 refunds s | after SIGTERM s | peak MiB | hostile charges | said of one |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments[1:] or SCENARIOS:
        run(binary, name)


main()
