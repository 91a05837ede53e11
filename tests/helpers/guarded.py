"""Memory with a page before and behind it that nobody may touch: who does is killed.

Where the system has no ``mprotect``, arrays are plain copies.
"""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

SIDES = ("end", "begin")
"""Whether an array ends where the forbidden page begins, or begins where it ends."""

_PAGES = 4
_NOTHING = 0  # PROT_NONE

try:
    _mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    _mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
except (AttributeError, TypeError, OSError):
    _mprotect = None

ENFORCED = _mprotect is not None
"""Whether this system can forbid pages."""


def guarded(array: np.ndarray, side: str = "end") -> np.ndarray:
    """A copy of an array, up against forbidden pages."""
    if _mprotect is None:
        return array.copy()
    array = np.ascontiguousarray(array)
    edge = _PAGES * mmap.PAGESIZE
    inner = -(-max(array.nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, edge + inner + edge)
    first = edge + (inner - array.nbytes if side == "end" else 0)
    copy = np.frombuffer(memory, np.uint8, array.nbytes, first).view(array.dtype)
    copy = copy.reshape(array.shape)
    copy[...] = array
    start = copy.ctypes.data - first
    for at in (start, start + edge + inner):
        if _mprotect(at, edge, _NOTHING):
            raise OSError(ctypes.get_errno(), "mprotect")
    return copy


def zeros(shape, dtype=np.float32, side: str = "end") -> np.ndarray:
    """Guarded zeros."""
    return guarded(np.zeros(shape, dtype), side)
