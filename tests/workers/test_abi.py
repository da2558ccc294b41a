"""The shared C kit: its binary interface stays as released, and other languages can bind it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ABI = ROOT / "workers" / "c" / "abi"
HEADER = ROOT / "workers" / "c" / "include" / "ringbridge_worker.h"
LIBRARY = ROOT / "build" / "libringbridge_worker.so.1"
BOUND = [sys.executable, str(Path(__file__).with_name("bound_worker.py")), str(LIBRARY)]
SHARED_WORKER = ROOT / "build" / "bin" / "rb-conformance-shared"


def output(*command: object) -> str:
    return subprocess.run(
        list(map(str, command)), check=True, capture_output=True, text=True, timeout=50
    ).stdout


def symbols() -> list[str]:
    """name@@VERSION of everything that the library exports, but the versions themselves."""
    listed = output("nm", "-D", "--defined-only", "--with-symbol-versions", LIBRARY)
    return [line.split()[2] for line in listed.splitlines() if line.split()[1] != "A"]


def test_the_interface_is_the_released_one(tmp_path: Path) -> None:
    program = tmp_path / "describe"
    output("cc", "-std=gnu99", f"-I{HEADER.parent}", "-o", program, ABI / "describe.c")
    described = output(program) + "".join(f"symbol {name}\n" for name in symbols())
    assert described == (ABI / "released.txt").read_text(), (
        "programs that were built before would break, or something was added: workers/c/abi/README"
    )


def test_every_function_of_the_header_is_exported_and_nothing_else() -> None:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    declared = set(re.findall(r"\b(rb_\w+)\(", text)) - {"rb_worker_main"}  # which is inline
    assert {name.partition("@")[0] for name in symbols()} == declared


def test_every_field_of_a_public_struct_is_described() -> None:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    described = (ABI / "describe.c").read_text()
    for struct, body in re.findall(r"^struct (\w+) \{\n(.*?)^\};", text, re.MULTILINE | re.DOTALL):
        assert f"STRUCT({struct});" in described
        body = re.sub(r"\(\*(\w+)\)\([^;]*\)", r"\1", body)  # a pointer to a function
        for line in filter(str.strip, body.split(";")):
            for field in re.findall(r"(\w+)(?:\[\w+\])?(?=,|$)", line.strip()):
                assert f"FIELD({struct}, {field});" in described


def test_it_needs_nothing_but_the_c_library() -> None:
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-d", LIBRARY))
    assert all(re.match(r"lib(c|pthread)\.so|ld-", name) for name in needed), needed
    assert "[libringbridge_worker.so.1]" in output("readelf", "-d", LIBRARY)


def verdicts(rules: list[int], *command: object) -> dict[int, str]:
    numbers = [word for rule in rules for word in ("--rule", str(rule))]
    battery = [sys.executable, "-m", "workers.conformance", "--json", *numbers, "--"]
    done = subprocess.run(
        [*battery, *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=50,
    )
    return {rule["number"]: rule["verdict"] for rule in json.loads(done.stdout)["rules"]}


def test_a_worker_on_the_shared_library_keeps_the_rules() -> None:
    rules = [1, 11, 17, 51, 73, 114]
    assert verdicts(rules, SHARED_WORKER) == dict.fromkeys(rules, "kept")


def test_a_binding_in_another_language_keeps_the_rules() -> None:
    rules = [1, 4, 11, 12, 17, 51, 58, 72]
    assert verdicts(rules, *BOUND) == dict.fromkeys(rules, "kept")


def test_a_program_of_an_older_kit_goes_on_working() -> None:
    assert verdicts([11], *BOUND, "older") == {11: "kept"}


def test_a_program_that_asks_for_what_the_library_does_not_know_is_refused() -> None:
    done = subprocess.run([*BOUND, "newer"], capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert "built for a newer kit" in done.stderr


def test_it_is_installed_with_all_that_a_program_needs(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    output("make", "-s", "-C", ROOT / "workers" / "c", "install", f"PREFIX={prefix}")
    program = tmp_path / "upper"
    flags = (prefix / "lib" / "pkgconfig" / "ringbridge_worker.pc").read_text()
    assert f"prefix={prefix}\n" in flags
    source = ROOT / "workers" / "c" / "examples" / "upper.c"
    linked = [f"-I{prefix}/include", f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib"]
    output("cc", "-std=gnu99", *linked, "-o", program, source, "-lringbridge_worker")
    assert verdicts([1, 2], program) == {1: "kept", 2: "kept"}
