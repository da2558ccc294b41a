"""Jobs in stages, through a real bridge with real workers: each role is given what the one
before it has said, and whoever asked hears of the whole, or which stage it ended in.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from serve_support import BIN, serving
from talk_support import Talk

from bridge.testing import HOST, Beam, EpmdDaemon

pytestmark = [
    pytest.mark.beam,
    pytest.mark.skipif(shutil.which("elixir") is None, reason="no Elixir here"),
    pytest.mark.skipif(not (BIN / "rb-conformance").exists(), reason="the workers are not built"),
]

SETTINGS = f"""
[node]
drain_ms = 2_000
admin_nodes = ["*@{HOST}"]

[roles.first]
command = ["{BIN}/rb-conformance"]
workers = 2
backoff_min_ms = 1

[roles.second]
command = ["{BIN}/rb-conformance"]
backoff_min_ms = 1
payload_bytes_max = 1_000_000

[roles.third]
command = ["{BIN}/rb-conformance"]
"""

PRELUDE = """
submit = fn payload, options ->
  GenServer.call(dispatcher, {:submit, :first, payload, options}, 30_000)
end
# The conformance worker: 1 fails, 2 sleeps, 5 is large, 6 ends, 8 says {:ok, term}.
sleep = <<60_000::little-32>>
"""


@pytest.fixture
async def talk(epmd: EpmdDaemon, beam: Beam, tmp_path: Path) -> AsyncIterator[Talk]:
    async with serving(epmd, tmp_path, alive="stages", settings=SETTINGS) as bridge:
        await bridge.wait_workers(4)
        yield Talk(bridge, beam, PRELUDE)


async def test_values_go_from_role_to_role(talk: Talk) -> None:
    assert (
        await talk("""
        big = :crypto.strong_rand_bytes(900_000)
        [
          submit.("raw", stages: [:second, "third"]),
          submit.(%{"a" => [1]}, opcode: 8, stages: [{:second, 8}, {:third, 8}]),
          submit.(big, stages: [:second, :third, :first]) == {:ok, big},
          match?({:ok, "x", %{job: _, worker: _}}, submit.("x", stages: [:second], detail: true)),
          1..200
          |> Task.async_stream(&submit.("#{&1}", stages: [:second, :third]), max_concurrency: 50)
          |> Enum.map(&elem(&1, 1)) == Enum.map(1..200, &{:ok, "#{&1}"})
        ]
        """)
        == '[{:ok, "raw"}, {:ok, {:ok, {:ok, {:ok, %{"a" => [1]}}}}}, true, true, true]'
    )


async def test_an_error_names_its_stage(talk: Talk) -> None:
    assert (
        await talk("""
        {:error, {:stage, 2, :second, {:worker_crashed, %{status: 7}}}} =
          submit.(<<0, 7>>, stages: [{:second, 6}, :third])
        {:error, {:stage, 1, :first, {:worker_crashed, %{signal: 9}}}} =
          submit.(<<1, 9>>, opcode: 6, stages: [:third])
        [
          submit.(<<3::little-16, "why">>, stages: [:third, {:second, 1}]),
          submit.(sleep, timeout: 100, stages: [{:third, 2}]),
          submit.(<<2_000_000::little-64, 1>>, opcode: 5, stages: [:second]),
          elem(submit.("x", stages: [:nobody]), 0),
          submit.("all is well", stages: [:third])
        ]
        """)
        == '[{:error, {:stage, 3, :second, {:job_failed, 3, "why"}}}, '
        "{:error, {:stage, 2, :third, :deadline_exceeded}}, "
        "{:error, {:stage, 2, :second, {:too_large, 1000000}}}, :error, "
        '{:ok, "all is well"}]'
    )


async def test_the_callers_end_ends_the_stage_that_it_is_in(talk: Talk) -> None:
    assert (
        await talk("""
        caller = spawn(fn -> submit.(sleep, timeout: 60_000, stages: [{:third, 2}]) end)
        await = fn await ->
          case GenServer.call(dispatcher, {:jobs, :third}) do
            {:ok, [%{state: :placed}]} -> :ok
            _ -> Process.sleep(5); await.(await)
          end
        end
        await.(await)
        Process.exit(caller, :kill)
        # The only worker of its role slept for a minute.
        submit.("free", timeout: 20_000, stages: [:third])
        """)
        == '{:ok, "free"}'
    )
