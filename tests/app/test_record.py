"""A bridge writes down what its relay hears and says, and the relay is run again from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from serve_support import BIN, SETTINGS, ask, serving
from test_cli import ringbridge as here
from test_cli_operations import ringbridge

from bridge.testing import Beam, EpmdDaemon

pytestmark = pytest.mark.skipif(not (BIN / "rb-echo").exists(), reason="the workers are not built")


@pytest.mark.parametrize("atom_cache", [False, True])
async def test_calls_of_a_beam_are_run_again_byte_for_byte(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path, atom_cache: bool
) -> None:
    settings = SETTINGS.replace("[node]", f"[node]\natom_cache = {str(atom_cache).lower()}")
    file = tmp_path / "run.rbtape"
    record = ("--record", str(file))
    async with serving(epmd, tmp_path, settings=settings, arguments=record) as bridge:
        await bridge.wait_workers(3)
        assert bridge.logs("recording, payloads and answers included")
        echo = f"GenServer.call({bridge.target()}, {{:submit, :echo, %s}})"
        twenty = f"for i <- 1..20, {{:ok, ^i}} <- [{echo % 'i'}], do: i"
        assert await ask(beam, f"length({twenty})") == "20"
        large = echo % ':binary.copy("x", 1_000_000)'
        assert await ask(beam, f"{{:ok, x}} = {large}; byte_size(x)") == "1000000"
        gone = f"spawn(fn -> GenServer.call({bridge.target()}, {{:submit, :sleep, ~s(500)}}) end)"
        await ask(beam, f"p = {gone}; Process.sleep(50); Process.exit(p, :kill); Process.sleep(50)")
        status, said = await ringbridge(epmd, bridge, "record", "status")
        assert (status, said.startswith("recording: ")) == (0, True), said
        status, said = await ringbridge(epmd, bridge, "record", "stop")
        assert (status, said.startswith("done, stopped: ")) == (0, True), said
        assert await ask(beam, echo % '"after it"') == '{:ok, "after it"}'
    assert file.stat().st_mode & 0o777 == 0o600
    again = here("replay", str(file))
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, "the same bytes left"), again
    assert "22 jobs accepted (21 ok, 1 cancelled)" in again.stdout


async def test_who_has_begun_without_is_told_how(epmd: EpmdDaemon, tmp_path: Path) -> None:
    async with serving(epmd, tmp_path, alive="no_record") as bridge:
        status, said = await ringbridge(epmd, bridge, "record", "stop")
        assert (status, "serve --record FILE" in said) == (1, True), said


def test_a_file_that_is_no_recording_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no recording" * 100)
    done = here("replay", str(tmp_path / "x"))
    assert (done.returncode, done.stderr) == (
        1,
        f"ringbridge: {tmp_path}/x: it is no record\n",
    )
    done = here("replay", str(tmp_path / "y"))
    assert done.stderr == f"ringbridge: {tmp_path}/y: No such file or directory\n"
