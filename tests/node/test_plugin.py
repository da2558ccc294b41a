"""The fixtures, as programs of others use them: the test of docs/node.md in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from node_support import HAS_RELAY, needs_erlang

ROOT = Path(__file__).parents[2]
PROGRAMS: list[str] = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "node.md").read_text(), re.DOTALL
)

pytestmark = pytest.mark.skipif(not HAS_RELAY, reason="the relay is not built")


def run_pytest(folder: Path, program: str, *, path: str = os.environ["PATH"]) -> str:
    (folder / "test_mine.py").write_text(program)
    (folder / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "bridge.testing.plugin"]
    environ = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=folder, env=environ, capture_output=True, check=False)
    return ran.stdout.decode()


def of_the_page() -> str:
    (program,) = [each for each in PROGRAMS if "open_cluster_node" in each]
    return program


@needs_erlang
@pytest.mark.beam
def test_the_test_of_the_page_passes(tmp_path: Path) -> None:
    assert "1 passed" in run_pytest(tmp_path, of_the_page())


def test_without_erlang_it_is_skipped_and_says_what_is_missing(tmp_path: Path) -> None:
    told = run_pytest(tmp_path, of_the_page(), path=str(tmp_path))
    assert "1 skipped" in told
    assert "no epmd and no erl" in told


@needs_erlang
@pytest.mark.beam
def test_a_beam_that_speaks_erlang_needs_no_elixir(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("erl", "epmd", "sh", "dirname", "readlink", "sed", "basename"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    told = run_pytest(
        tmp_path,
        """
async def test_erlang(start_beam):
    erlang = await start_beam(language="erlang").ready()
    assert await erlang.evaluate("1 + 1") == "2"


async def test_elixir(start_beam):
    start_beam()
""",
        path=str(programs),
    )
    assert "1 passed, 1 skipped" in told
