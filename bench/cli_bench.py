"""`msearch status` from shell to answer, against the cost of starting Python at all.

    python -m bench.cli_bench [--rounds 15]

Interleaved rounds of: `python3 -c pass` (the floor), `msearch status` and `msearch search`, against a live server in
another process. Prints minimum and median wall time of each, and the ratio of medians. Bar: status <= 60 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BAR_MS = 60.0
_SERVER = """
import sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from live_api import LiveApi
from fake_control import FakeControl
api = LiveApi(Path(sys.argv[1]), FakeControl({b"/docs/ferry.txt": "invoice for the north sea ferry"}))
api.begin()
print("ready", flush=True)
sys.stdin.read()
api.end()
"""


@contextlib.contextmanager
def server(path):
    tests = str(Path(__file__).parents[1] / "tests")
    command = [sys.executable, "-c", _SERVER, path, tests]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        # The server's own log lines come first.
        for line in process.stdout:
            if line.strip() == "ready":
                break
        try:
            yield
        finally:
            process.stdin.close()


def wall_ms(command, environ):
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environ)
    return (time.perf_counter() - began) * 1000


def measure(rounds):
    with tempfile.TemporaryDirectory() as folder, server(f"{folder}/s"):
        environ = {**os.environ, "MSEARCHD__API__SOCKET": f"{folder}/s"}
        client = [str(Path(sys.executable).with_name("msearch"))]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "msearch status": [*client, "status"],
            "msearch search": [*client, "search", "ferry"],
        }
        times = {name: [] for name in commands}
        for _ in range(rounds + 1):
            for name, command in commands.items():
                times[name].append(wall_ms(command, environ))
    # The first round fills caches.
    return {name: sorted(found[1:]) for name, found in times.items()}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    times = measure(args.rounds)
    floor = statistics.median(times["python -c pass"])
    rows = {
        name: {"min_ms": found[0], "median_ms": statistics.median(found), "ratio": statistics.median(found) / floor}
        for name, found in times.items()
    }
    if args.json:
        print(json.dumps({"cli": rows}))
    else:
        for name, row in rows.items():
            said = f"min {row['min_ms']:6.1f} ms  median {row['median_ms']:6.1f} ms  {row['ratio']:5.2f} x python"
            print(f"{name:<16} {said}")
    is_met = rows["msearch status"]["median_ms"] <= BAR_MS
    print(f"bar: msearch status <= {BAR_MS:.0f} ms: {'met' if is_met else 'NOT met'}", file=sys.stderr)
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
