"""The stack that a thread's signal handlers run on, kept from a library that exchanges it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _SignalStack(ctypes.Structure):
    """``stack_t`` of sigaltstack(2)."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Whatever loads OpenVINO's CPU plugin: this thread's signal stack is what it was afterwards.

    Each plugin puts a stack of its own in place of the last one, and takes it away again when it
    ends. Of two plugins that end in the order in which they began, the second brings back what the
    first has unmapped, and the next signal, such as Ctrl-C, ends the process.
    """
    if sys.platform != "linux":
        yield
        return
    before = _SignalStack()
    exchange = ctypes.CDLL(None).sigaltstack
    exchange(None, ctypes.byref(before))
    try:
        yield
    finally:
        exchange(ctypes.byref(before), None)
