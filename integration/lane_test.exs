defmodule Ringbridge.LaneTest do
  @moduledoc """
  The lane over shared memory to a real bridge: the same answers as over the distribution, the same accounts, the same ends.
  What a lane does where its relay lies or dies at a bad moment is tried without a bridge (elixir_client/test/lane_nif_test.exs).
  """
  use Ringbridge.BridgeCase, name: "lane"

  import Bitwise, only: [<<<: 2]

  alias Ringbridge.{Error, Instance, Route}
  alias Ringbridge.Lane.{Dist, Native, Nif, Opener}

  @moduletag capture_log: true
  @long "30000"
  @patience_ms 60_000

  setup %{node: node} = context do
    name = Module.concat(__MODULE__, "I#{context.line}")
    start_supervised!({Ringbridge, name: name, nodes: [node], lane: :nif, backoff_max_ms: 200})
    await_lane(name, node, :nif)
    {:ok, name: name, to: {lane(name, node), node}}
  end

  defp lane(name, node) do
    {:ok, instance} = Instance.fetch(name)
    {_node, epoch} = Route.pick(name, [node], :echo, [])
    Opener.lane(instance, node, epoch)
  end

  defp job(role, payload, options \\ []), do: {:submit, role, payload, options}

  # What differs from one job to the next by its nature.
  defp settled({:answer, {:ok, result, %{job: _, worker: _, queue_us: _, run_us: _} = detail}}),
    do: {:answer, {:ok, result, Map.keys(detail)}}

  defp settled({:answer, {:error, {:worker_crashed, detail}}}),
    do: {:answer, {:error, {:worker_crashed, Map.keys(detail), detail.signal}}}

  defp settled(outcome), do: outcome

  describe "the same over both lanes:" do
    test "answers to requests of every shape", %{to: to, node: node} do
      ref = make_ref()
      large = :crypto.strong_rand_bytes(1 <<< 20)

      for message <- [
            job(:echo, "x"),
            job("echo", ""),
            job(:echo, large),
            job(:echo, :binary.copy("x", 70_000), timeout: 5_000),
            job(:echo, {:a, [1.5], %{self() => ref}, large}),
            job(:echo, "x", detail: true),
            job(:echo, {:a, 1}, %{detail: true, priority: :high, meta: %{a: 1}}),
            job(:echo, "x", timeout: :infinity),
            job(:echo, "x", accept: :identity),
            job(:echo, "5", stages: [:echo, :sleep]),
            job({:map, :echo}, ["a", "b"], stages: [:echo]),
            {:submit_many, :echo, ["a", {:b, 2}, large], []},
            {:submit_many, :small, ["a", :binary.copy("b", 70_000), "c"], []},
            {:submit_many, :echo, [], []},
            # What is refused.
            job(:nobody, "x"),
            job("no such role", "x", timeout: 10),
            job(:small, :binary.copy("x", 70_000)),
            job(:echo, "x", retry: :often),
            job(:echo, "x", unknown: 1),
            job(:echo, "x", timeout: -1),
            job(:echo, "x", [:no_pair]),
            job(1.5, "x"),
            job(:sleep, @long, timeout: 50),
            job(:sleep, @long, timeout: 0),
            job(:sleep, @long, stages: [:echo], timeout: 50),
            job(:sleep, "not a number"),
            {:submit_many, :echo, :no_list, []},
            # What no lane carries.
            :stats_of_nothing,
            {:cancel, 1 <<< 40},
            {:status, 1 <<< 40}
          ] do
        by_nif = Nif.call(to, message, @patience_ms)

        assert {message, settled(by_nif)} ==
                 {message, settled(Dist.call(node, message, @patience_ms))}
      end
    end

    test "a worker's crash", %{to: to, node: node} do
      outcomes =
        for {lane, to} <- [{Nif, to}, {Dist, node}] do
          ref = lane.submit(to, job(:sleep, @long))
          Program.kill(await_begun(node, :sleep), "KILL")
          outcome = lane.await(to, ref, @patience_ms)
          # Another one is there again.
          assert {:answer, {:ok, "0"}} = Dist.call(node, job(:sleep, "0"), @patience_ms)
          # Else it is the one found busy, and killed before it has the next job.
          await_free(node, :sleep)
          settled(outcome)
        end

      assert [{:answer, {:error, {:worker_crashed, _, _}}} = same, same] = outcomes
    end

    test "what the bridge counts", %{to: to, node: node} do
      counted = fn lane, to ->
        before = stats(node)
        for _ <- 1..10, do: lane.call(to, job(:echo, "x"), @patience_ms)
        lane.call(to, job(:sleep, @long, timeout: 20), @patience_ms)
        lane.call(to, job(:nobody, "x"), @patience_ms)
        lane.call(to, job(:sleep, @long), 20)
        await_idle(node, 20_000)
        now = stats(node)
        answered = Map.new(now.answered, fn {k, n} -> {k, n - Map.get(before.answered, k, 0)} end)
        {now.accepted - before.accepted, Map.reject(answered, &match?({_, 0}, &1))}
      end

      assert counted.(Nif, to) == counted.(Dist, node)
    end
  end

  describe "a caller's end" do
    test "cancels, whatever it has asked for, of ten thousand", %{to: to, node: node} do
      {lane, _} = to

      for wave <- 1..20 do
        owners =
          for n <- 1..500 do
            spawn(fn ->
              case rem(n + wave, 3) do
                0 -> Nif.call(to, job(:sleep, @long), :infinity)
                1 -> Nif.submit(to, job(:sleep, {:a, n})) && Process.sleep(:infinity)
                2 -> Nif.call(to, {:submit_many, :sleep, [@long, @long], []}, :infinity)
              end
            end)
          end

        Lab.wait_until("they have asked", fn -> stats(node).in_flight > 0 end)
        for pid <- owners, do: Process.exit(pid, :kill)
        await_idle(node, 60_000)
      end

      Lab.wait_until("nothing is open", fn -> elem(Native.figures(lane), 6) == 0 end)
      assert {:answer, {:ok, "x"}} = Nif.call(to, job(:echo, "x"), @patience_ms)
    end
  end

  describe "a bridge" do
    test "that is killed amid calls, and started again", context do
      bridge = Lab.start_bridge(name: "lane_killed")
      name = :"#{context.name}.Killed"
      options = [name: name, nodes: [bridge.node], lane: :nif, backoff_max_ms: 200]
      start_supervised!({Ringbridge, options}, id: name)
      await_lane(name, bridge.node, :nif)
      large = :crypto.strong_rand_bytes(1 <<< 20)
      {:ok, kept} = Ringbridge.call(name, :echo, large)
      call = fn -> Ringbridge.call(name, :sleep, @long, timeout: :infinity) end
      callers = for _ <- 1..20, do: Task.async(call)
      await_busy(bridge.node, :sleep)
      Program.kill(Program.os_pid(bridge.program), "KILL")

      for answer <- Task.await_many(callers, @patience_ms),
          do: assert({:error, %Error{reason: {:down, :noconnection}}} = answer)

      # What lies in the memory of a bridge that is dead.
      assert kept == large
      stop_supervised!("lane_killed")
      again = Lab.start_bridge(name: "lane_killed")
      await_lane(name, again.node, :nif)
      sent = sent(name, again.node)
      assert Ringbridge.call(name, :echo, "again") == {:ok, "again"}
      assert sent(name, again.node) == sent + 1
      assert kept == large
    end

    test "that stands still makes calls a timeout, and then goes on", context do
      pid = Program.os_pid(context.bridge.program)
      Program.kill(pid, "STOP")
      answers = for _ <- 1..5, do: Ringbridge.call(context.name, :echo, "x", timeout: 50)
      Program.kill(pid, "CONT")
      for answer <- answers, do: assert({:error, %Error{reason: :timeout}} = answer)
      assert Ringbridge.call(context.name, :echo, "x") == {:ok, "x"}
      refute_received _
      await_idle(context.node, 20_000)
    end
  end

  describe "large answers" do
    test "are binaries of the region; when half of it is held, copies", %{to: {lane, _} = to} do
      bytes = :crypto.strong_rand_bytes(1 <<< 20)

      {held, same?} =
        Task.async(fn ->
          answers = for _ <- 1..100, do: Nif.call(to, job(:echo, bytes), @patience_ms)
          {elem(Native.figures(lane), 7), Enum.all?(answers, &(&1 == {:answer, {:ok, bytes}}))}
        end)
        |> Task.await(@patience_ms)

      assert same?
      assert held >= 8 <<< 20
      Lab.wait_until("all is given back", fn -> elem(Native.figures(lane), 7) == 0 end)
    end
  end
end
