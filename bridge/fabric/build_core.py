"""Builds bridge.fabric._core with cffi in API mode: the shared-memory core and the relay thread.

The declarations are the parts of the headers in csrc/include/ringbridge between their two cffi
marks, so that they are written once.
"""

import re
from glob import glob
from pathlib import Path

from cffi import FFI

HEADERS = [
    Path("csrc/include/ringbridge", name)
    for name in (
        "tls.h",
        "dispatch.h",
        "lane_link.h",
        "relay.h",
        "lab.h",
        "proxy.h",
        "lane.h",
    )
]
INCLUDED = ("lab.h", "lane.h", "layout.h", "proxy.h", "relay.h")
SYSTEM = "struct iovec { void *iov_base; size_t iov_len; };"


def declarations(header: str) -> str:
    """Return what lies between the marks, without comments (cffi has no preprocessor)."""
    marked = header.split("/* <cffi> */", 1)[1].split("/* </cffi> */", 1)[0]
    return re.sub(r"/\*.*?\*/", "", marked, flags=re.DOTALL)


ffibuilder = FFI()
ffibuilder.cdef(SYSTEM)
for header in HEADERS:
    ffibuilder.cdef(declarations(header.read_text()))
ffibuilder.set_source(
    "bridge.fabric._core",
    "".join(f'#include "ringbridge/{name}"\n' for name in INCLUDED),
    sources=sorted([*glob("csrc/core/*.c"), *glob("csrc/relay/**/*.c", recursive=True)]),
    include_dirs=["csrc/include", "csrc"],
    extra_compile_args=["-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"],
    libraries=["pthread", "ssl", "crypto"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
