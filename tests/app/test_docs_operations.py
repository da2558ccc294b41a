"""docs/operations.md: every command and every line of iex on it does what the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from serve_support import BIN, ROOT, ask, serving

from bridge.testing import COOKIE, Beam, EpmdDaemon

PAGE = (ROOT / "docs" / "operations.md").read_text()
SETTINGS = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
# A command, or a line of iex with the answer that the page shows below it.
STEPS = re.findall(r"^    (iex> .*\n    (?!iex> ).*|ringbridge .*|curl .*)$", PAGE, re.MULTILINE)

pytestmark = [
    pytest.mark.beam,
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not (BIN / "rb-echo").exists(), reason="the workers are not built"),
]


def test_the_page_has_steps_of_each_kind() -> None:
    for kind, least in (("ringbridge ", 12), ("iex> ", 12), ("curl ", 1)):
        assert sum(step.startswith(kind) for step in STEPS) >= least


async def test_the_page_is_right_from_its_first_line_to_its_last(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    assert SETTINGS is not None
    settings = SETTINGS[1].replace("build/bin", str(BIN)).replace("9568", "0")
    assert beam.name == "caller@127.0.0.1"
    async with serving(epmd, tmp_path, alive="ops_page", settings=settings) as bridge:
        await bridge.wait_workers(3)
        port = str((await bridge.wait_log("metrics"))["port"])
        for step in STEPS:
            words = step.replace("build/bin", str(BIN)).replace("9568", port)
            if words.startswith("iex> "):
                asked, _, answer = words.removeprefix("iex> ").partition("\n    ")
                assert await ask(beam, asked) == answer, asked
            else:
                await run(words, epmd, tmp_path)
            await until_no_upgrade(beam, bridge.name)


async def until_no_upgrade(beam: Beam, name: str) -> None:
    """An upgrade that iex began goes on by itself; the page's next step comes after it."""
    look = f"GenServer.call({{Ringbridge.WorkerRegistry, :'{name}'}}, {{:lookup, :echo}})"
    while "state: :running, why" in await ask(beam, look):  # noqa: ASYNC110
        await trio.sleep(0.05)


async def run(command: str, epmd: EpmdDaemon, folder: Path) -> None:
    if command.startswith("ringbridge "):
        program = f'{sys.executable} -c "from bridge.cli import main; main()"'
        command = f"{program} {command.removeprefix('ringbridge ')}"
    done = await trio.run_process(
        ["sh", "-c", command],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "ERL_EPMD_PORT": str(epmd.port),
            "RINGBRIDGE_COOKIE": COOKIE,
        },
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout.decode()}"


def test_the_page_names_every_metric_that_it_lists() -> None:
    """A name on the page that is nowhere in the exporter is a mistake of the page."""
    source = (ROOT / "bridge" / "ops" / "metrics.py").read_text()
    for name in re.findall(r"`ringbridge_([a-z_]+?)(?:_total)?`", PAGE):
        assert name in source or name.partition("_")[0] in ("role", "worker"), name
