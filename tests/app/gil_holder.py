"""A worker in Python whose jobs hold the interpreter's lock for as many milliseconds as they say.

The C kit as a library, whose heartbeat beats from a native thread: the honest case that must not be
taken for a hung one. Arguments: the library.
"""

import ctypes
import sys

kit = ctypes.PyDLL(sys.argv[1])
libc = ctypes.PyDLL(None)  # calls through PyDLL keep the lock
kit.rb_job_payload.restype = ctypes.c_void_p
HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)


class Options(ctypes.Structure):
    """struct rb_worker_options as far as it is used here."""

    _fields_ = (
        ("handler", HANDLER),
        ("user", ctypes.c_void_p),
        ("short_jobs", ctypes.c_int),
    )


@HANDLER  # type: ignore[untyped-decorator]
def handle(job: int, user: int) -> None:
    size = ctypes.c_size_t()
    at = kit.rb_job_payload(ctypes.c_void_p(job), ctypes.byref(size))
    libc.usleep(int(ctypes.string_at(at, size.value)) * 1000)
    kit.rb_complete_bytes(ctypes.c_void_p(job), b"held", 4)


OPTIONS_BYTES = ctypes.sizeof(Options)
options = Options(handle)
sys.exit(kit.rb_worker_run(0, None, ctypes.byref(options), ctypes.c_size_t(OPTIONS_BYTES)))
