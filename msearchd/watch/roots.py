"""Roots that come and go: which file system they are on, and whether what vanished may be believed.

A disk that is unplugged, a share that is not mounted, a server that shows an empty folder: all look like "everything
was deleted". A root in doubt goes offline: nothing of it is deleted, its hits stay, and it comes back by itself.
Pure, but for reading /proc/self/mountinfo.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from msearchd.watch import mounts

#: File systems that other machines change without telling this kernel: events alone would miss it.
NETWORK_TYPES: Final = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "afs", "ceph", "coda", "ncpfs", "gfs2", "ocfs2", "lustre",
    "glusterfs", "beegfs", "davfs", "acfs", "vboxsf", "vmhgfs", "prl_fs",
})  # fmt: skip
#: What lies there is made up by the kernel.
KERNEL_TYPES: Final = frozenset({
    "proc", "sysfs", "cgroup", "cgroup2", "devpts", "devtmpfs", "debugfs", "tracefs", "securityfs", "configfs", "bpf",
    "pstore", "efivarfs", "mqueue", "hugetlbfs", "binfmt_misc", "fusectl", "nsfs", "selinuxfs", "rpc_pipefs",
})  # fmt: skip
#: Fewer losses than this are a person tidying up, not a disk that went.
BRAKE_MIN_FILES: Final = 20


@dataclass(frozen=True, slots=True)
class Losses:
    """What a whole scan of a root found missing, before any of it is believed."""

    known_files: int  # before the scan
    vanished_files: int
    is_empty: bool  # not one entry in the root
    #: The same mounted directory was watched all along, so deletions were made in it and not by its absence.
    is_vouched: bool


def doubt(losses: Losses, *, brake_percent: int) -> str:
    """Why the losses are not believed, as a sentence; empty if they are."""
    if losses.is_vouched or not losses.vanished_files:
        return ""
    if losses.is_empty:
        doubt = f"it is empty, but {losses.known_files} files were known: is its disk mounted?"
        return f"{doubt} If you emptied it yourself, type: msearch process FOLDER"
    # Some were found and lost again by this very scan, or missed twice: no more can go than there were.
    vanished = min(losses.vanished_files, losses.known_files)
    if vanished >= BRAKE_MIN_FILES and vanished * 100 > losses.known_files * brake_percent:
        return (
            f"{vanished} of {losses.known_files} files vanished at once: nothing is deleted until they"
            " are back or the loss is confirmed"
        )
    return ""


def file_system_type(path: bytes) -> str:
    """Type of the file system that *path* lies on ("ext4", "nfs4", "fuse.sshfs"); "" where that is not known."""
    return mounts.type_at(mounts.read_table(), os.path.realpath(path))


def is_of_the_kernel(fs_type: str) -> bool:
    """True if what lies there is no file of anybody: made by the kernel when it is read, and new each time."""
    return fs_type in KERNEL_TYPES


def kernel_folders_below(path: bytes) -> tuple[bytes, ...]:
    """Folders in *path*, relative to it, on which a file system of the kernel is mounted."""
    real, table = os.path.realpath(path), mounts.read_table()
    points = mounts.points_below(table, real)
    return tuple(p for p in points if is_of_the_kernel(mounts.type_at(table, real.rstrip(b"/") + b"/" + p)))


def is_network(fs_type: str) -> bool:
    """True if changes by others come without events. FUSE counts, but for fuseblk, which is a local disk."""
    return fs_type in NETWORK_TYPES or fs_type.startswith("fuse.") or fs_type == "fuse"
