# What a VM does by itself: `work TAB rate TAB unit`, a line each (integration/bench/remote.py).
alias Ringbridge.{BeamWorkerLoop, InMemoryRing, LocalBridge}

defmodule LocalEcho do
  def handle_job(job, _state), do: {:ok, job.payload}
end

Logger.configure(level: :error)
{:ok, bridge} = LocalBridge.start_link(roles: ["echo"], depth_max: 4_096, register: false)
options = [bridge: bridge, role: "echo", module: LocalEcho, slots: 4, credit: 64]
{:ok, loop} = BeamWorkerLoop.start_link(options)
serving = fn serving -> if BeamWorkerLoop.info(loop).phase != :serving, do: serving.(serving) end
serving.(serving)

rate = fn callers, calls ->
  {us, _} =
    :timer.tc(fn ->
      1..callers
      |> Enum.map(fn _ ->
        Task.async(fn ->
          for _ <- 1..calls do
            {:ok, _} = GenServer.call(bridge, {:submit, "echo", "0123456789abcdef"}, 60_000)
          end
        end)
      end)
      |> Task.await_many(120_000)
    end)

  callers * calls * 1.0e6 / us
end

rate.(16, 200)
IO.puts("call at a LocalBridge, 16 B, 1 callers, rate\t#{rate.(1, 20_000)}\tcalls/s")
IO.puts("call at a LocalBridge, 16 B, 128 callers, rate\t#{rate.(128, 400)}\tcalls/s")

count = 1_000_000
ring = InMemoryRing.new(1_024)
home = self()

put = fn put, n ->
  case InMemoryRing.claim(ring, n) do
    {:ok, position} ->
      if rem(position, 32) == 31, do: InMemoryRing.publish(ring)
      if n < count, do: put.(put, n + 1), else: InMemoryRing.publish(ring)

    {:error, :full} ->
      InMemoryRing.publish(ring)
      :erlang.yield()
      put.(put, n)
  end
end

take = fn take, taken ->
  case InMemoryRing.available(ring) do
    0 ->
      :erlang.yield()
      if taken < count, do: take.(take, taken)

    some ->
      for i <- 0..(some - 1), do: {:ok, _, _} = InMemoryRing.fetch(ring, i)
      InMemoryRing.release(ring, some)
      if taken + some < count, do: take.(take, taken + some)
  end
end

{us, _} =
  :timer.tc(fn ->
    spawn_link(fn -> send(home, {:put, put.(put, 1)}) end)
    take.(take, 0)
    receive do: ({:put, _} -> :ok)
  end)

IO.puts("InMemoryRing, one way between two processes, rate\t#{count * 1.0e6 / us}\titems/s")
