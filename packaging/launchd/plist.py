"""The launch agent of macOS, made by plistlib so that it is well-formed by construction.

    python packaging/launchd/plist.py PROGRAM LOG > ~/Library/LaunchAgents/org.msearchd.plist

No Sockets key: it needs a C call (launch_activate_socket); the daemon binds its socket itself.
"""

# ruff: noqa: INP001 - a script beside its output
from __future__ import annotations

import plistlib
import sys
from typing import Any

LABEL = "org.msearchd"


def agent(program: str, log: str) -> dict[str, Any]:
    """The agent that runs *program* (absolute path of `msearchd`) and appends its events to *log* (absolute path)."""
    for name, path in (("program", program), ("log", log)):
        if not path.startswith("/"):
            message = f"the {name} must be an absolute path, as launchd expands nothing: {path!r}"
            raise ValueError(message)
    return {
        "Label": LABEL,
        "ProgramArguments": [program, "run"],
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ProcessType": "Background",
        "LowPriorityIO": True,
        "Nice": 10,
        # Longer than [limits] drain_s, so that running work ends by itself.
        "ExitTimeOut": 45,
        "Umask": 0o077,
        "SoftResourceLimits": {"NumberOfFiles": 8192},
        "StandardErrorPath": log,
    }


def main(arguments: list[str]) -> int:
    """Write the plist to stdout."""
    if len(arguments) != 2:
        sys.stderr.write("usage: plist.py /path/to/msearchd /path/to/log\n")
        return 2
    try:
        sys.stdout.buffer.write(plistlib.dumps(agent(*arguments)))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
