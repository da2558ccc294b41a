"""Compiles the peers and the load generator into build/bench when they are stale."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

from integration.cluster import ROOT

SOURCES = Path(__file__).parent
BUILD = ROOT / "build" / "bench"
CFLAGS = ("-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror")


@cache
def otp() -> dict[str, str]:
    """The Erlang that is first in PATH: its release, and where its erl_interface lies."""
    ask = (
        'io:format("~s~n~s~n~s~n", [erlang:system_info(otp_release), '
        "code:lib_dir(erl_interface), code:root_dir()]), halt()."
    )
    answer = _run("erl", "-noshell", "-eval", ask).split("\n")
    return {"release": answer[0], "erl_interface": answer[1], "root": answer[2]}


@cache
def elixir_version() -> str:
    found = re.search(r"^Elixir (\S+)", _run("elixir", "--version"), re.MULTILINE)
    return found[1] if found else "?"


def ei_echo() -> Path:
    return _with_ei("ei_echo")


def callers() -> Path:
    return _with_ei("callers")


def _with_ei(name: str) -> Path:
    # Debian's erlang-dev has headers and libraries in usr/ of the root, others in the application.
    flags = []
    for base in (Path(otp()["erl_interface"]), Path(otp()["root"]) / "usr"):
        flags += [f"-I{base / 'include'}", f"-L{base / 'lib'}"]
    return _compile(name, *flags, "-lei", "-lpthread")


def port_echo() -> Path:
    return _compile("port_echo")


def cache_line() -> Path:
    return _compile("cache_line", "-lpthread")


def load_generator() -> Path:
    """The folder of the compiled Elixir modules, one for each release: no beam fits all."""
    sources = sorted(SOURCES.glob("*.ex"))
    ebin = BUILD / f"ebin-{otp()['release']}-{elixir_version()}"
    newest = min((beam.stat().st_mtime for beam in ebin.glob("*.beam")), default=0.0)
    if newest < max(source.stat().st_mtime for source in sources):
        ebin.mkdir(parents=True, exist_ok=True)
        _run("elixirc", "--warnings-as-errors", "-o", str(ebin), *map(str, sources))
    return ebin


def _compile(name: str, *flags: str) -> Path:
    source, program = SOURCES / "peers" / f"{name}.c", BUILD / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        BUILD.mkdir(parents=True, exist_ok=True)
        _run("gcc", *CFLAGS, "-o", str(program), str(source), *flags)
    return program


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: {argv[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
