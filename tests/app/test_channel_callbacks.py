"""A worker that calls back into the cluster, through a real bridge, to real processes of a real
BEAM: the conformance worker does as its payload says (docs/workers-conformance.md).
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

[roles.talker]
command = ["{BIN}/rb-conformance"]
atoms = ["pong", "saw", "from", "down"]
cancel_term_ms = 2_000

[roles.talker.callback]
allow = ["channel_*@*", "elsewhere@nobody@{HOST}"]
pids = ["caller@{HOST}"]
calls_max = 4

[roles.mute]
command = ["{BIN}/rb-conformance"]
"""

# A server that answers as it is asked, and the ways of making a worker speak.
PRELUDE = """
unless Code.ensure_loaded?(Channel.Server) do
  defmodule Channel.Server do
    use GenServer
    def init(owner), do: {:ok, owner}
    def handle_call({:double, n}, _, owner), do: {:reply, n * 2, owner}
    def handle_call({:size, bytes}, _, owner), do: {:reply, byte_size(bytes), owner}
    def handle_call({:make, n}, _, owner), do: {:reply, :binary.copy("x", n), owner}
    def handle_call(:from, {pid, _}, owner), do: {:reply, {:from, node(pid)}, owner}
    def handle_call({:sleep, ms}, _, owner) do
      send(owner, :asked)
      Process.sleep(ms)
      {:reply, :pong, owner}
    end
    def handle_call({:hold, ref}, {pid, _}, owner) do
      send(owner, {:held, ref, pid})
      {:noreply, owner}
    end
    def handle_call(:crash, _, owner), do: {:stop, :down, owner}
    def handle_info(message, owner) do
      send(owner, {:saw, message})
      {:noreply, owner}
    end
  end
end
bare = fn term -> <<131, rest::binary>> = :erlang.term_to_binary(term); rest end
call = fn role, dest, request, ms, options ->
  dest = bare.(dest)
  payload = <<ms::little-32, byte_size(dest)::little-32, dest::binary, bare.(request)::binary>>
  GenServer.call(dispatcher, {:submit, role, payload, [opcode: 10] ++ options}, 20_000)
end
tell = fn role, dest, message ->
  dest = bare.(dest)
  payload = <<byte_size(dest)::little-32, dest::binary, bare.(message)::binary>>
  GenServer.call(dispatcher, {:submit, role, payload, [opcode: 11]}, 20_000)
end
fresh = fn ->
  name = :"channel_#{System.unique_integer([:positive])}"
  {:ok, pid} = GenServer.start(Channel.Server, self(), name: name)
  {name, pid}
end
"""


@pytest.fixture
async def talk(epmd: EpmdDaemon, beam: Beam, tmp_path: Path) -> AsyncIterator[Talk]:
    async with serving(epmd, tmp_path, alive="channel", settings=SETTINGS) as bridge:
        await bridge.wait_workers(2)
        yield Talk(bridge, beam, PRELUDE)


async def test_a_worker_calls_a_server_by_name_and_node_and_by_pid(talk: Talk) -> None:
    assert (
        await talk("""
        {name, pid} = fresh.()
        [
          call.(:talker, {name, node()}, {:double, 21}, 5_000, []),
          call.(:talker, pid, {:double, 4}, 5_000, []),
          call.(:talker, {name, node()}, {:size, :binary.copy("y", 200_000)}, 5_000, []),
          with({:ok, x} <- call.(:talker, pid, {:make, 300_000}, 5_000, []), do: byte_size(x)),
          call.(:talker, pid, :from, 5_000, []) == {:ok, {:from, elem(dispatcher, 1)}}
        ]
        """)
        == "[{:ok, 42}, {:ok, 8}, {:ok, 200000}, 300000, true]"
    )


async def test_what_it_sends_arrives_in_order_with_its_calls(talk: Talk) -> None:
    assert (
        await talk("""
        {_, pid} = fresh.()
        for n <- 1..50, do: {:ok, ""} = tell.(:talker, pid, n)
        {:ok, 2} = call.(:talker, pid, {:double, 1}, 5_000, [])
        for n <- 1..50 do
          receive do {:saw, ^n} -> :ok after 0 -> {:missing, n} end
        end |> Enum.uniq()
        """)
        == "[:ok]"
    )


async def test_each_way_to_fail_has_its_word(talk: Talk) -> None:
    text = await talk("""
        {name, pid} = fresh.()
        why = fn {:error, {:job_failed, 2, why}} -> why; other -> other end
        [
          refused: why.(call.(:talker, {:other, node()}, 1, 5_000, [])),
          mute: why.(call.(:mute, {name, node()}, {:double, 1}, 5_000, [])),
          noproc: why.(call.(:talker, {:channel_nobody, node()}, 1, 5_000, [])),
          noconnection: why.(call.(:talker, {:elsewhere, :"nobody@127.0.0.1"}, 1, 5_000, [])),
          not_dialled: why.(call.(:talker, {:channel_x, :"away@127.0.0.1"}, 1, 5_000, [])),
          timeout: why.(call.(:talker, pid, {:sleep, 300}, 20, [])),
          too_large: why.(call.(:talker, pid, {:make, 2_000_000}, 5_000, [])),
          sent: why.(call.(:talker, pid, {:size, :binary.copy("y", 1_100_000)}, 5_000, [])),
          fun: why.(call.(:talker, pid, &is_atom/1, 5_000, [])),
          down: why.(call.(:talker, pid, :crash, 5_000, []))
        ]
        """)
    assert text == (
        '[refused: "Permission denied", mute: "Permission denied", noproc: "No such process", '
        'noconnection: "No route to host", not_dialled: "No route to host", '
        'timeout: "Connection timed out", too_large: "Message too long", '
        'sent: "Message too long", fun: "Permission denied", down: "Broken pipe"]'
    )


async def test_a_cancel_and_a_deadline_end_a_call_that_waits_on_both_sides(talk: Talk) -> None:
    text = await talk("""
        {_, pid} = fresh.()
        task = Task.async(fn -> call.(:talker, pid, {:hold, 1}, 60_000, []) end)
        asker = receive do {:held, 1, asker} -> asker after 5_000 -> :never end
        watched = fn -> Process.info(pid, :monitored_by) |> elem(1) |> Enum.member?(asker) end
        before = watched.()
        Task.shutdown(task, :brutal_kill)
        gone = Enum.any?(1..100, fn _ -> Process.sleep(20); not watched.() end)
        late = call.(:talker, pid, {:hold, 2}, 60_000, [timeout: 100])
        [before, gone, late, call.(:talker, pid, {:double, 3}, 5_000, [])]
        """)
    assert text == "[true, true, {:error, :deadline_exceeded}, {:ok, 6}]"
    # The same life served all of it: nobody was killed for waiting.
    assert len(talk.bridge.logs("worker ready")) == 2


async def test_a_line_has_its_worker_and_its_job(talk: Talk) -> None:
    await talk("""
        GenServer.call(dispatcher, {:submit, :talker, <<2, "look here">>, [opcode: 12]})
        """)
    line = await talk.bridge.wait_log("worker says")
    assert (line["line"], line["level"], line["role"]) == ("look here", "warning", "talker")
    assert line["worker"] > 0
    assert line["job"] > 0


async def test_the_registry_counts_what_was_said(talk: Talk) -> None:
    text = await talk("""
        {_, pid} = fresh.()
        call.(:talker, pid, {:double, 3}, 5_000, [])
        call.(:talker, {:other, node()}, 3, 5_000, [])
        registry = put_elem(dispatcher, 0, Ringbridge.WorkerRegistry)
        {:ok, workers} = GenServer.call(registry, :list)
        for %{role: :talker, said: said} <- workers, do: {said.calls, said.refused, said.open}
        """)
    assert text == "[{2, 1, 0}]"
