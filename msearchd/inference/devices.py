"""Accelerators and their memory, without loading a framework: NVIDIA's management library by ctypes, else none.

In: nothing. Out: devices under the names that workers know them by, in the order of the PCI bus, those alone that
CUDA_VISIBLE_DEVICES leaves. Never creates a context: a daemon that holds device memory would be no guest.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A device: `name` as in the settings (cuda:0), `mask` for CUDA_VISIBLE_DEVICES of a worker. Bytes."""

    name: str
    mask: str
    total_bytes: int
    free_bytes: int


Look = Callable[[], Sequence[Accelerator]]


class _Memory(ctypes.Structure):
    # nvmlMemory_t of NVML's API reference.
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def accelerators() -> tuple[Accelerator, ...]:
    """The NVIDIA devices that workers may use, with what is free now; empty where there is no driver."""
    library = _nvml()
    if library is None:
        return ()
    count = ctypes.c_uint()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return ()
    found = []
    for place, index in enumerate(visible_indices(count.value, os.environ)):
        handle, memory = ctypes.c_void_p(), _Memory()
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
            continue
        if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0:
            found.append(Accelerator(f"cuda:{place}", str(index), memory.total, memory.free))
    return tuple(found)


def visible_indices(count: int, environment: Mapping[str, str]) -> tuple[int, ...]:
    """Bus indices of *count* devices that CUDA_VISIBLE_DEVICES leaves, in its order; all but for names of another form."""
    mask = environment.get("CUDA_VISIBLE_DEVICES")
    if mask is None:
        return tuple(range(count))
    chosen: list[int] = []
    for word in mask.split(","):
        if not word.strip().isdecimal() or int(word) >= count:
            break  # as CUDA does: an entry that names no device ends the list
        chosen.append(int(word))
    return tuple(chosen)


@functools.cache
def _nvml() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None
