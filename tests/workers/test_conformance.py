"""The conformance battery on the kits of this project, and the battery's own parts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.fabric import layout
from workers.conformance.__main__ import main
from workers.conformance.crc32c import crc32c
from workers.conformance.link import LinkPlan, Parts
from workers.conformance.region import Region, RegionError
from workers.conformance.rules import CHAPTERS, RULES

ROOT = Path(__file__).parent.parent.parent
C_WORKER = ROOT / "build" / "bin" / "rb-conformance"
RUST_WORKER = ROOT / "build" / "bin" / "rb-conformance-rust"
ZIG_WORKER = ROOT / "build" / "bin" / "rb-conformance-zig"
PYTHON_WORKER = ROOT / "workers" / "python" / "conformance" / "rb_conformance.py"


def battery(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workers.conformance", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


KITS = {
    "c": [str(C_WORKER)],
    "rust": [str(RUST_WORKER)],
    "zig": [str(ZIG_WORKER)],
    "python": [sys.executable, str(PYTHON_WORKER)],
}


@pytest.mark.parametrize("kit", KITS)
def test_a_kit_keeps_every_rule(kit: str) -> None:
    if kit == "rust" and shutil.which("cargo") is None:
        pytest.skip("no cargo here: make workers has left the Rust workers out")
    done = battery("--json", "--strict", "--jobs", "4", "--", *KITS[kit])
    verdicts = json.loads(done.stdout)["rules"]
    assert [entry["number"] for entry in verdicts] == [rule.number for rule in RULES]
    told = [f"{entry['number']}: {entry['verdict']}: {entry['why']}" for entry in verdicts]
    assert done.returncode == 0, "\n".join(told)


def test_the_page_lists_the_rules() -> None:
    page = (ROOT / "docs" / "workers-conformance.md").read_text()
    listed = re.findall(r"^\| (\d+) \| (.+) \|$", page.partition("## The rules")[2], re.MULTILINE)
    assert [(int(number), title) for number, title in listed] == [
        (rule.number, rule.title) for rule in RULES
    ]
    assert re.findall(r"^\*\*([^*]+)\*\*$", page, re.MULTILINE) == [
        chapter.title for chapter in CHAPTERS
    ]


def test_a_worker_that_is_none_breaks_rules_and_the_exit_status_says_so() -> None:
    done = battery("--rule", "1", "--rule", "2", "--patience", "0.2", "--", "sleep", "60")
    assert done.returncode == 1
    assert re.search(r"^ +1  BROKEN ", done.stdout, re.MULTILINE)
    assert re.search(r"^ +2  BROKEN ", done.stdout, re.MULTILINE)


def test_what_floods_its_output_is_ended_before_the_memory_is_full() -> None:
    done = battery("--rule", "1", "--rule", "2", "--", "yes")
    assert done.returncode == 1
    assert done.stdout.count("File too large") == 2


def test_a_machine_that_orders_memory_otherwise_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert main(["--", "true"]) == 69
    assert "what x86-64 guarantees" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [(), ("--rule", "10", "--", "true"), ("--", "/no/such/program"), ("--unknown",)],
)
def test_a_wrong_call_ends_with_64(arguments: tuple[str, ...]) -> None:
    done = battery(*arguments)
    assert done.returncode == 64
    assert done.stderr.startswith("conformance: ")


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(0, b"123456789") == 0xE3069283  # RFC 3720, B.4, and the catalogue's check value
    assert crc32c(0, bytes(32)) == 0x8A9136AA
    assert crc32c(crc32c(0, b"1234"), b"56789") == 0xE3069283


def test_a_region_knows_who_has_each_block() -> None:
    region = Region(4 * 4096, 4096)
    assert region.take(4096) == 0
    assert region.take(8192) == 1
    assert region.take(8192) is None
    region.give(0, 1)
    with pytest.raises(RegionError, match="free already"):
        region.give(0, 1)
    with pytest.raises(RegionError, match="taken already"):
        region.mark(2, 1)
    with pytest.raises(RegionError, match="blocks 3 to 4 of 4"):
        region.mark(3, 2)
    assert region.taken == 2


def test_parts_are_whole_pages_with_a_guard_behind_each() -> None:
    parts = Parts.of(LinkPlan(slots=64))
    assert parts.requests_at == layout.AT_POSITIONS + 2 * layout.PAGE_BYTES
    assert parts.cancels_at == parts.requests_at + 64 * 128 + layout.PAGE_BYTES
    assert parts.demands_at == parts.cancels_at + 2 * layout.PAGE_BYTES
