"""The role pathfinding as an Elixir node calls it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from serve_support import BIN, ask, serving

from bridge.testing import Beam, EpmdDaemon

MASK = BIN.parent / "data" / "sea.mask"
SETTINGS = f"""
[roles.pathfinding]
command = ["{BIN / "rb-pathfinding"}", "{MASK}"]
"""


@pytest.mark.beam
@pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here")
@pytest.mark.skipif(shutil.which("cargo") is None, reason="no cargo here, so no Rust worker")
@pytest.mark.timeout(120)
async def test_a_route_is_a_term_a_text_or_a_picture(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="pathfinding", settings=SETTINGS) as bridge:

        async def submit(payload: str, options: str, then: str) -> str:
            request = f"{{:submit, :pathfinding, {payload}, {options}}}"
            call = f"GenServer.call({bridge.target()}, {request}, 30_000)"
            return await ask(beam, f"answer = {call}; {then}")

        sydney, auckland = "{-33.888888, 151.2}", "{-36.86667, 174.766667}"
        of_term = "{:ok, {nm, [{_, _} | _] = way}} = answer; {round(nm), List.last(way)}"
        found = await submit(f"{{{sydney}, {auckland}}}", "[]", of_term)
        assert found.startswith("{12")  # 1,280 in the table of tests/pathfinding, to 3.5 % less
        of_text = '{:ok, text} = answer; text |> String.split("\\n") |> hd() |> String.length()'
        text = '"-33.888888 151.2 -36.86667 174.766667"'
        assert await submit(text, "[]", of_text) == "6"
        of_picture = (
            "{:ok, <<137, 80, 78, 71, _::binary>> = png} = answer; byte_size(png) > 2_000_000"
        )
        assert await submit(text, "[opcode: 1]", of_picture) == "true"
        failed = "{:error, {:job_failed, code, _}} = answer; code"
        assert await submit('"47 20 0 0"', "[]", failed) == "3"
        assert await submit("{1, 2}", "[]", failed) == "2"
        assert await submit(text, "[opcode: 2]", failed) == "1"
