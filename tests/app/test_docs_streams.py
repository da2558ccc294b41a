"""docs/streams.md: every line of iex on it does what the page says, its worker is the example's,
and its consumers run where GenStage is: RINGBRIDGE_GEN_STAGE names a folder with its modules.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from serve_support import BIN, ROOT, ask, serving

from bridge.testing import Beam, EpmdDaemon

PAGE = (ROOT / "docs" / "streams.md").read_text()
SETTINGS = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
STEPS = re.findall(r"^    iex> (.*)\n    (?!iex> )(.*)$", PAGE, re.MULTILINE)
MODULE, STREAM = re.findall(r"```elixir\n(.*?)```", PAGE, re.DOTALL)
(WORKER,) = re.findall(r"```c\n(.*?)```", PAGE, re.DOTALL)
GEN_STAGE = os.environ.get("RINGBRIDGE_GEN_STAGE")

pytestmark = [
    pytest.mark.beam,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not (BIN / "rb-primes").exists(), reason="the workers are not built"),
]


def settings() -> str:
    assert SETTINGS is not None
    return SETTINGS[1].replace("build/bin", str(BIN))


def test_the_worker_of_the_page_is_the_example() -> None:
    assert WORKER in (ROOT / "workers" / "c" / "examples" / "primes.c").read_text()


def test_every_line_of_iex_has_its_answer() -> None:
    assert len(STEPS) == PAGE.count("    iex> ") >= 12


async def test_the_page_is_right_from_its_first_line_to_its_last(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="streams_page", settings=settings()) as bridge:
        await bridge.wait_workers(2)
        for asked, answer in STEPS:
            assert await ask(beam, asked) == answer, asked


async def test_its_consumers_are_elixir(beam: Beam) -> None:
    for code in (MODULE, STREAM):
        quoted = f"match?({{:ok, _}}, Code.string_to_quoted({elixir_string(code)}))"
        assert await ask(beam, quoted) == "true"


@pytest.mark.skipif(GEN_STAGE is None, reason="RINGBRIDGE_GEN_STAGE names no GenStage")
async def test_its_consumers_run(epmd: EpmdDaemon, beam: Beam, tmp_path: Path) -> None:
    async with serving(epmd, tmp_path, alive="streams_page", settings=settings()) as bridge:
        await bridge.wait_workers(2)
        await ask(beam, f"Code.append_path({elixir_string(str(GEN_STAGE))})")
        assert await ask(beam, f"Code.eval_string({elixir_string(STREAM)}) |> elem(0)") == "129"
        await ask(beam, f"Code.eval_string({elixir_string(MODULE)}) |> elem(0) |> elem(0)")
        started = f"match?({{:ok, _}}, Printer.start_link({bridge.target('Ringbridge.Streams')}))"
        assert await ask(beam, started) == "true"


def elixir_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("#{", "\\#{")
    return '"' + escaped.replace("\n", "\\n") + '"'
