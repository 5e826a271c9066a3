"""Child processes as other stages see them.

`Child` (aio.process) is one process; `KeptChild` (aio.kept) keeps one running: lazy start, restart with back-off.
"""

from __future__ import annotations

from msearchd.aio.kept import KeptChild, Starter
from msearchd.aio.link import DeadlineExpired, Link, LinkLost, Reply
from msearchd.aio.process import Child, ChildSpec, Limits, resident_bytes

__all__ = [
    "Child",
    "ChildSpec",
    "DeadlineExpired",
    "KeptChild",
    "Limits",
    "Link",
    "LinkLost",
    "Reply",
    "Starter",
    "resident_bytes",
]
