"""First code of a child process: `python -I boot.py <module> <fd>`, under our own or another interpreter.

It loads the msearchd package by path (so that another environment does not see our site-packages), ties its life to the
parent's, applies the limits of the hello frame, and calls `<module>.main(sock, args)`.
Imports the standard library alone until the package is adopted.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import importlib.util
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # prctl(2)


def adopt_package() -> None:
    """Make `import msearchd` find the package that this file lies in, and nothing else beside it."""
    if "msearchd" in sys.modules:
        return
    folder = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "msearchd", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        message = f"no package at {folder}"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules["msearchd"] = module
    spec.loader.exec_module(module)


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends (Linux); elsewhere end of file on the wire does it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it ended between our exec and prctl
            os._exit(0)


def apply_limits(limits: dict[str, Any]) -> None:
    """Set nice, address space and open files as the hello asks; a refused limit is not fatal (in a container)."""
    with contextlib.suppress(OSError, ValueError):
        if nice := limits.get("nice"):
            os.nice(nice)
    with contextlib.suppress(OSError, ValueError):
        if memory := limits.get("memory_bytes"):
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if (score := limits.get("oom_score_adj")) is not None and sys.platform == "linux":
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(score))


def main() -> None:
    """Run the child named on the command line."""
    module_name, fd, parent_pid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    die_with_parent(parent_pid)
    # The parent decides when we stop: a Ctrl-C at the terminal goes to the daemon alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()  # a crash in a decoder names its line in our last words
    adopt_package()
    sock = socket.socket(fileno=fd)
    sock.setblocking(True)
    run_module(module_name, sock)


def run_module(module_name: str, sock: socket.socket) -> None:
    """Take the hello from *sock*, apply its limits, run the module's `main`; an error before ready is told."""
    from msearchd import errors
    from msearchd.aio import wire

    try:
        hello, _ = wire.recv_frame(sock)
        apply_limits(hello["args"].get("limits", {}))
        importlib.import_module(module_name).main(sock, hello["args"].get("start", {}))
    except EOFError:
        return
    except Exception as error:
        if not isinstance(error, errors.MsearchError):
            import traceback

            traceback.print_exc()
        with contextlib.suppress(OSError):
            wire.send_frame(sock, {"id": 0, "ok": False, "more": False, "error": errors.to_wire(error)})
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
