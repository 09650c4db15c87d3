"""A call that never returns nor lets another thread of its process run, as a broken C library may make one."""

from __future__ import annotations

import ctypes


def hang() -> None:
    """Wait without end, and without the processor time that a test beside it needs, for a mutex that is ours.

    PyDLL keeps the interpreter's lock during a call, and no signal interrupts this one; faulthandler's do run.
    """
    library, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(256)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)
