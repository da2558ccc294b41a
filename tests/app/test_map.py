"""Jobs over several roles and elements at once, through a real bridge with real workers: their
answers are joined, the first failure ends the whole, and nothing is left behind.
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

[roles.each]
command = ["{BIN}/rb-conformance"]
workers = 2
backoff_min_ms = 1
cancel_term_ms = 200
cancel_kill_ms = 200
depth_max = 20

[roles.other]
command = ["{BIN}/rb-conformance"]
backoff_min_ms = 1
cancel_term_ms = 200
cancel_kill_ms = 200

[roles.typed]
command = ["{BIN}/rb-conformance"]
backoff_min_ms = 1

[roles.typed.ops.echo]
opcode = 0
payload = {{ integer = [0, 9] }}

[roles.join]
command = ["{BIN}/rb-conformance"]
payload_bytes_max = 1_000_000
"""

PRELUDE = """
submit = fn role, payload, options ->
  GenServer.call(dispatcher, {:submit, role, payload, options}, 60_000)
end
# The conformance worker: 0 echoes, 1 fails, 2 sleeps, 5 is large, 6 ends, 8 says {:ok, term}.
sleep = <<60_000::little-32>>
idle = fn idle ->
  case GenServer.call(dispatcher, {:jobs, :all}) do
    {:ok, []} -> :idle
    _ -> Process.sleep(5); idle.(idle)
  end
end
"""


@pytest.fixture
async def talk(epmd: EpmdDaemon, beam: Beam, tmp_path: Path) -> AsyncIterator[Talk]:
    async with serving(epmd, tmp_path, alive="map", settings=SETTINGS) as bridge:
        await bridge.wait_workers(5)
        yield Talk(bridge, beam, PRELUDE)


async def test_answers_are_joined_in_order(talk: Talk) -> None:
    assert (
        await talk("""
        numbers = Enum.map(1..5_000, &"#{&1}")
        [
          submit.({:map, :each}, ["a", {:b, 1}, 3], stages: [{:join, 8}]),
          submit.([:each, {:other, 8}], [1], []),
          submit.({:map, :each}, [], stages: [{:map, :other}, :join]),
          submit.({:map, :each}, [97, 98, 99], []) == {:ok, [97, 98, 99]},
          # Far longer than the role's queue.
          submit.({:map, :each}, numbers, []) == {:ok, numbers},
          submit.(:other, numbers, stages: [{:map, :each}, [:join, :other]]) ==
            {:ok, [numbers, numbers]},
          1..20
          |> Task.async_stream(fn n ->
            submit.({:map, :each}, Enum.map(1..50, &"#{n * &1}"), stages: [{:map, :other}])
          end, max_concurrency: 20, timeout: 60_000)
          |> Enum.zip(1..20)
          |> Enum.all?(fn {{:ok, {:ok, got}}, n} -> got == Enum.map(1..50, &"#{n * &1}")
                          {{:ok, {:error, {:overloaded, _}}}, _} -> true end)
        ]
        """)
        == '[{:ok, {:ok, ["a", {:b, 1}, 3]}}, {:ok, [[1], {:ok, [1]}]}, {:ok, []}, '
        "true, true, true, true]"
    )


async def test_the_first_failure_ends_the_whole_and_names_its_element(talk: Talk) -> None:
    assert (
        await talk("""
        {:error, {:stage, 1, {:map, :each, 1}, {:worker_crashed, %{status: 7}}}} =
          submit.({:map, {:each, 6}}, [<<0, 7>>, <<0, 7>>] |> Enum.reverse(), [])
          |> case do
            # Two workers, each with one that ends: either may be heard first.
            {:error, {:stage, 1, {:map, :each, 0}, reason}} ->
              {:error, {:stage, 1, {:map, :each, 1}, reason}}
            other -> other
          end
        {:error, {:stage, 2, {:fan_out, :other, 1}, {:worker_crashed, %{signal: 9}}}} =
          submit.(:join, <<1, 9, 0, 0>>, stages: [[{:each, 2}, {:other, 6}], :join])
        failed = submit.({:map, :each}, ["a", "b"], stages: [[{:other, 1}, :join]])
        [
          match?({:error, {:stage, 2, {:fan_out, :other, 0}, {:job_failed, _, _}}}, failed),
          # The one that fails stops the one that would sleep for a minute.
          submit.([{:each, 2}, {:other, 1}], sleep, []) |> elem(1) |> elem(2),
          submit.([{:each, 2}, {:other, 2}], sleep, timeout: 100) |> elem(1) |> elem(3),
          submit.(:other, "no list", stages: [{:map, :each}]) |> elem(1) |> elem(2),
          submit.({:map, :typed}, [1, 9], op: :echo),
          submit.({:map, :typed}, [1, 10], op: :echo) |> elem(1) |> Tuple.to_list() |> Enum.at(2),
          submit.([:each, :typed], 10, []) |> elem(1) |> elem(0),
          submit.({:map, {:each, 5}}, List.duplicate(<<100_000::little-64, 1>>, 12),
            stages: [:join]),
          elem(submit.({:map, :each}, "no list", []), 0),
          idle.(idle),
          submit.({:map, :each}, ["all is well"], [])
        ]
        """)
        == "[true, {:fan_out, :other, 1}, :deadline_exceeded, :each, "
        "{:ok, [1, 9]}, {:map, :typed, 1}, :bad_request, "
        "{:error, {:stage, 2, :join, {:too_large, 1000000}}}, :error, :idle, "
        '{:ok, ["all is well"]}]'
    )


async def test_the_callers_end_ends_every_branch(talk: Talk) -> None:
    assert (
        await talk("""
        caller = spawn(fn ->
          submit.({:map, {:each, 2}}, List.duplicate(sleep, 100), timeout: 60_000)
        end)
        await = fn await ->
          case GenServer.call(dispatcher, {:jobs, :each}) do
            {:ok, jobs} when length(jobs) > 20 -> :ok
            _ -> Process.sleep(5); await.(await)
          end
        end
        await.(await)
        Process.exit(caller, :kill)
        # Its workers slept for a minute.
        [idle.(idle), submit.({:map, :each}, ["free"], timeout: 20_000)]
        """)
        == '[:idle, {:ok, ["free"]}]'
    )


async def test_an_asynchronous_one_is_cancelled_by_its_reference(talk: Talk) -> None:
    assert (
        await talk("""
        start = fn element, options ->
          {:ok, ref} = GenServer.call(dispatcher, {:submit_async, {:map, {:each, 2}},
            List.duplicate(element, 10), options})
          ref
        end
        quick = start.(<<1::little-32>>, stages: [:join])
        first = receive do {:ringbridge, ^quick, answer} -> elem(answer, 0) end
        slow = start.(sleep, [])
        :ok = GenServer.call(dispatcher, {:cancel, slow})
        second = receive do {:ringbridge, ^slow, answer} -> answer end
        [first, second, idle.(idle)]
        """)
        == "[:ok, {:error, :cancelled}, :idle]"
    )
