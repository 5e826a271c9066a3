"""The child's side of the tests of aio.child: operations that behave badly on request."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

from msearchd import errors
from msearchd.aio.serve import Answer, Server


def echo(request, turn):
    return Answer(dict(request.args), bytes(request.body))


def sleep(request, turn):
    time.sleep(request.args["s"])
    return {"pid": os.getpid()}


def count(request, turn):
    """Streams numbers; says how far it came before it was cancelled."""
    for number in range(request.args["n"]):
        if turn.is_cancelled():
            STATE["stopped_at"] = number
            return
        yield {"number": number}
        time.sleep(request.args.get("pause_s", 0))


def batches(request, turn):
    """Bulk work in steps that lets interactive requests pass."""
    passed = 0
    for _ in range(request.args["n"]):
        time.sleep(0.02)
        passed += turn.let_interactive_pass()
    return {"passed": passed}


def state(request, turn):
    return dict(STATE)


def crash(request, turn):
    print("about to fall over", file=sys.stderr, flush=True)
    if request.args.get("how") == "segfault":
        ctypes.string_at(0)
    os._exit(7)


def freeze(request, turn):
    os.kill(os.getpid(), signal.SIGSTOP)


def fail(request, turn):
    raise errors.BadAsset("not a picture", hint="look at it")


def bug(request, turn):
    return {"x": [].pop()}


def eat(request, turn):
    try:
        return {"bytes": len(bytearray(request.args["bytes"]))}
    except MemoryError:
        raise errors.BadAsset("needs more memory than allowed") from None


def limits(request, turn):
    return {"nice": os.nice(0), "oom": open("/proc/self/oom_score_adj").read().strip()}


def grandchild(request, turn):
    process = subprocess.Popen(["sleep", "600"])  # in our group, not dying with us
    return {"pid": process.pid}


def environment(request, turn):
    return {"env": sorted(os.environ), "version": sys.version, "modules": sorted(sys.modules)}


STATE: dict[str, int] = {}
OPS = (echo, sleep, count, batches, state, crash, freeze, fail, bug, eat, limits, grandchild, environment)


def main(sock, start):
    if start.get("misconfigured"):
        raise errors.Misconfigured("no weights", key="model:x", hint="install them")
    if start.get("die_at_start"):
        print("cannot go on", file=sys.stderr, flush=True)
        os._exit(3)
    if start.get("raise_at_start"):
        raise ZeroDivisionError("at start")
    if start.get("ready_after_s"):
        time.sleep(start["ready_after_s"])
    if start.get("ignore_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Server(sock, {op.__name__: op for op in OPS}).run({"pid": os.getpid()})
