"""The native parts of the Python package; everything else is declared in pyproject.toml.

bridge.etf._codec     the term codec, a plain CPython extension (building objects by cffi is slow)
bridge.fabric._core   the shared-memory core and the relay, by cffi in API mode
ringbridge_worker._kit  the worker kit, a plain CPython extension upon the kit in C (decision 0033)

A wheel also holds the shepherd, a program, as bridge/bin/ringbridge-shepherd; in a checkout it lies
in build/bin. And the sources of the worker kits with the core, as bridge/kits/{workers,csrc}: what
`ringbridge new worker` writes is built upon them.
"""

import shutil
import subprocess
from glob import glob
from os import environ
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

CORE_BUILDER = "bridge/fabric/build_core.py"
SHEPHERD = "build/bin/ringbridge-shepherd"


class build_native(build_ext):  # noqa: N801 - setuptools names commands in lower case
    """build_ext that compiles an extension again when any C header or the layout changed."""

    def build_extensions(self) -> None:
        shared = [*glob("csrc/**/*.h", recursive=True), "csrc/layout.toml", CORE_BUILDER]
        for extension in self.extensions:
            extension.depends = [*extension.depends, *filter(_exists, shared)]
        super().build_extensions()


TEMPLATE = "/template/template.toml"
KITS = [
    "csrc/core",
    "csrc/include",
    *(about.removesuffix(TEMPLATE) for about in glob(f"workers/*{TEMPLATE}")),
]
BUILT = shutil.ignore_patterns("tests", "target", "*.so", "__pycache__", ".zig-cache", "zig-out")


class build_with_shepherd(build_py):  # noqa: N801
    """build_py that puts the shepherd's program and the kits beside the modules of a wheel."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            subprocess.run(["make", "-f", "csrc/shepherd/shepherd.mk", SHEPHERD], check=True)
            target = Path(self.build_lib, "bridge", "bin")
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(SHEPHERD, target)
            for kit in sorted(KITS):
                place = Path(self.build_lib, "bridge", "kits", kit)
                shutil.copytree(kit, place, ignore=BUILT, dirs_exist_ok=True)


def _exists(path: str) -> bool:
    return Path(path).exists()


codec = Extension(
    "bridge.etf._codec",
    sources=sorted(glob("csrc/etf/*.c")),
    include_dirs=["csrc/include"],
    extra_compile_args=["-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror"],
)
worker_kit = Extension(
    "ringbridge_worker._kit",
    sources=sorted(
        [*glob("workers/python/src/*.c"), *glob("workers/c/kit/*.c"), *glob("csrc/core/*.c")]
    ),
    depends=[*glob("workers/c/**/*.h", recursive=True), *glob("workers/python/src/*.h")],
    include_dirs=["workers/c/include", "csrc/include"],
    extra_compile_args=["-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"],
    libraries=["pthread", "dl"],  # dl: dlopen() with a glibc before 2.34
)
native = {
    "ext_modules": [extension for extension in (codec, worker_kit) if extension.sources],
    "cffi_modules": [f"{CORE_BUILDER}:ffibuilder"] if _exists(CORE_BUILDER) else [],
}

# An editable install needs the metadata and the console script only; `make native` has built in
# place what lies beside them, and compiling twice would double the wait on a fresh machine.
metadata_only = environ.get("RINGBRIDGE_METADATA_ONLY") == "1"

setup(
    cmdclass={"build_ext": build_native, "build_py": build_with_shepherd},
    **({} if metadata_only else native),
)
