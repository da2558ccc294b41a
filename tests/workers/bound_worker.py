"""A worker in Python that binds the shared C kit by ctypes: what a binding in any language does.

Opcodes of the conformance job language: 0 echo, 2 sleep. Arguments: the library, and optionally
`newer` (it asks for what the library does not know), or `older` (a program of the first kit).
"""

from __future__ import annotations

import ctypes
import struct
import sys

kit = ctypes.CDLL(sys.argv[1])
age = sys.argv[2] if len(sys.argv) > 2 else ""
HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
POINTER, SIZE = ctypes.c_void_p, ctypes.c_size_t
CODE_BAD_PAYLOAD, CODE_UNKNOWN_OPCODE = 1, 3

kit.rb_job_payload.restype = POINTER
kit.rb_job_opcode.restype = ctypes.c_uint16
kit.rb_job_payload.argtypes = [POINTER, POINTER]
for name in ("rb_job_opcode", "rb_job_payload_is_term", "rb_cancelled", "rb_done"):
    getattr(kit, name).argtypes = [POINTER]
kit.rb_complete_bytes.argtypes = kit.rb_complete_term_bytes.argtypes = [POINTER, POINTER, SIZE]
kit.rb_job_sleep.argtypes = [POINTER, ctypes.c_uint64]


class Options(ctypes.Structure):
    """struct rb_worker_options as the first kit had it."""

    _fields_ = (("handler", HANDLER), ("user", POINTER), ("short_jobs", ctypes.c_int))


class NewerOptions(ctypes.Structure):
    """As some kit to come might have it."""

    _fields_ = (("first", Options), ("more", ctypes.c_ubyte * 400))


@HANDLER  # type: ignore[untyped-decorator]
def handle(job: int, _user: int) -> None:
    size = SIZE()
    at = kit.rb_job_payload(job, ctypes.byref(size))
    opcode = kit.rb_job_opcode(job)
    if opcode == 0:
        as_term = kit.rb_job_payload_is_term(job)
        (kit.rb_complete_term_bytes if as_term else kit.rb_complete_bytes)(job, at, size)
    elif opcode == 2 and size.value < 4:
        kit.rb_fail(POINTER(job), CODE_BAD_PAYLOAD, b"it takes 4 bytes, got %zu", size)
    elif opcode == 2:
        (ms,) = struct.unpack("<I", ctypes.string_at(at, 4))
        (kit.rb_cancelled if kit.rb_job_sleep(job, ms * 1_000_000) else kit.rb_done)(job)
    else:
        kit.rb_fail(POINTER(job), CODE_UNKNOWN_OPCODE, b"opcode %u is not served", opcode)


options = NewerOptions(Options(handle))
if age == "newer":
    options.more[-1] = 1
known = ctypes.sizeof(Options if age == "older" else NewerOptions)
sys.exit(kit.rb_worker_run(0, None, ctypes.byref(options), SIZE(known)))
