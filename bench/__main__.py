"""`make bench`: every benchmark, one after the other, on a machine that does nothing else.

    python -m bench [NAME...]

Each prints its rows and, as its last line, one JSON object; the summary at the end says which bars were met.
"""

from __future__ import annotations

import subprocess
import sys
import time

#: Module and arguments; in an order that finds the cheap surprises first.
BENCHES: dict[str, tuple[str, ...]] = {
    "cli_bench": (),
    "queue_bench": (),
    "extract_bench": (),
    "media_bench": (),
    "inference_bench": (),
    "pool_bench": (),
    "kinds_bench": (),
    "engines_bench": (),
    "pages_bench": (),
    "gateway_bench": (),
    "store_bench": (),
    "search_bench": (),
    "watch_bench": (),
    "watch_fuzz": ("--sequences", "70"),  # a thousand is half an hour
    "guest": (),
    "idle_bench": (),
    "text_indexing": (),
    "rebuild_bench": (),
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; exit status 0 if every one met its bars."""
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHES)}")
        return 2
    results = {}
    for name in names or BENCHES:
        print(f"\n== {name} " + "=" * (70 - len(name)), flush=True)
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", f"bench.{name}", *BENCHES[name]], check=False)
        results[name] = (done.returncode, time.monotonic() - began)
    print("\n== summary " + "=" * 62)
    for name, (status, took) in results.items():
        print(f"{name:20} {'all bars met' if status == 0 else f'status {status}':14} {took:8.0f} s")
    return 0 if all(status == 0 for status, _ in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
