Code.require_file("support/fake_bridge.exs", __DIR__)
Code.require_file("support/lane_loopback.exs", __DIR__)

defmodule Ringbridge.PollerMemoryTest do
  @moduledoc "What a bridge tells in memory, read by the NIF from a relay's end that is played, and that lies: no figure is made up, nobody waits."
  use ExUnit.Case

  alias Ringbridge.Lane.{Layout, Native, Nif, Opener}
  alias Ringbridge.LaneLoopback
  alias Ringbridge.Poller.{Health, Memory}

  @moduletag capture_log: true, timeout: 120_000

  if why = LaneLoopback.missing() do
    @moduletag skip: why
  end

  setup context do
    LaneLoopback.start()
    {instance, opener} = LaneLoopback.open(Module.concat(__MODULE__, "I#{context.line}"))
    {lane, _node} = to = LaneLoopback.await_lane(instance)
    %{to: to, lane: lane, instance: instance, opener: opener}
  end

  defp tell(to, how),
    do: assert({:answer, {:ok, ^how}} = Nif.call(to, {:submit, :tell, how, []}, 60_000))

  describe "of a bridge that is well" do
    test "roles, workers with what the relay knows of them, and errors are read", %{lane: lane} do
      assert {:ok, status} = Memory.status(lane)
      assert status.os_pid == 4711
      assert status.recent_errors == [%{worker: 5, why: "signal 9"}]

      assert [echo, sleep] = status.roles
      assert %{name: "echo", state: :running, breaker: :closed, depth_max: 4_096} = echo
      assert %{queued: 3, deferred: 1, workers_ready: 2, accepted: 20} = echo
      assert %{answered: 17, refused: 5} = echo
      assert %{name: "sleep", state: :given_up} = sleep

      assert [one, two, three, five] = status.workers
      assert %{id: 1, role: "echo", index: 0, state: :ready, os_pid: 101, kit: "c"} = one
      assert %{in_flight: 1, done: 7, lost: 2, credit: 8, service_us: 12, restarts: 0} = one
      assert one.breaker == :closed
      assert one.silent_ms in 250..60_000

      assert one.health == %{
               ready: true,
               waiting: 6,
               failed: 1,
               last_code: 13,
               last_run_us: 67,
               pulses: 4,
               still_ms: 5
             }

      assert %{id: 2, restarts: 3, kit: "rust", breaker: :half_open, health: %{ready: false}} =
               two

      # Nothing is made up of who has not greeted, or does not run.
      assert %{id: 3, state: :starting, kit: nil, silent_ms: nil} = three
      assert %{id: 5, state: :given_up, os_pid: nil, restarts: 5, role: "sleep"} = five
      assert %{in_flight: 0, done: 0, credit: nil, breaker: nil, health: nil} = five
    end

    test "they become the events of a poll", %{lane: lane} do
      {:ok, status} = Memory.status(lane)
      {seen, events} = Health.events(nil, status)
      assert seen.ready |> Map.keys() |> Enum.sort() == [1, 2]
      assert {_, load, %{role: "echo"}} = Enum.find(events, &match?({[:role, :load], _, _}, &1))
      assert %{running: 1, answered: 17, refused: 5, depth_max: 4_096} = load
      assert Enum.count(events, &match?({[:worker, :health], _, _}, &1)) == 4

      gone = %{status | workers: Enum.reject(status.workers, &(&1.id == 2))}
      {_seen, events} = Health.events(seen, gone)
      assert Enum.any?(events, &match?({[:worker, :down], %{done: 7}, %{worker: 2}}, &1))
    end

    test "as many workers as there is room for are read, on a dirty scheduler", context do
      tell(context.to, "full")
      assert {:ok, %{workers: workers}} = Memory.status(context.lane)
      assert length(workers) == Layout.telemetry_workers_max()
      assert %{kit: kit, role: role} = List.last(workers)
      assert kit == String.duplicate("k", 32) and role == String.duplicate("r", 64)
      tell(context.to, "well")
      assert {:ok, %{workers: [_, _, _, _]}} = Memory.status(context.lane)
    end
  end

  describe "the bridge is to be asked instead" do
    test "where its relay has not written for long", %{to: to, lane: lane} do
      tell(to, "old")
      assert Memory.status(lane) == {:error, :old}
    end

    test "where not all workers are shown", %{to: to, lane: lane} do
      tell(to, "hidden")
      assert Memory.status(lane) == {:error, :not_shown}
    end

    test "where its writer has died amid a write", %{to: to, lane: lane} do
      tell(to, "torn")
      assert Memory.status(lane) == {:error, :torn}
      tell(to, "well")
      assert {:ok, _} = Memory.status(lane)
    end

    test "where it counts more than there is room for, and the lane goes on", context do
      tell(context.to, "many")
      assert Memory.status(context.lane) == {:error, :none}
      tell(context.to, "word")
      assert Memory.status(context.lane) == {:error, :unreadable}
      assert {:answer, {:ok, "x"}} = Nif.call(context.to, {:submit, :echo, "x", []}, 60_000)
    end

    test "where the lane has ended", %{lane: lane} do
      Native.close(lane, :noconnection)
      assert Memory.status(lane) == {:error, :closed}
    end

    test "where there is none", %{instance: instance, opener: opener} do
      assert is_reference(Opener.any_lane(instance.name, node()))
      assert Opener.any_lane(instance.name, :other@host) == nil
      assert Opener.any_lane(__MODULE__.NoTable, node()) == nil
      send(opener, {:down, :noconnection})
      :sys.get_state(opener)
      assert Opener.any_lane(instance.name, node()) == nil
    end
  end

  test "noise of a bridge gone mad raises nothing, and is not waited for", %{to: to, lane: lane} do
    outcomes =
      for _ <- 1..300, uniq: true do
        Nif.call(to, {:submit, :tell, "noise", []}, 60_000)
        with {:ok, status} <- Memory.status(lane), do: {:ok, map_size(status)}
      end

    assert length(outcomes) > 1

    assert outcomes --
             [{:ok, 4} | for(why <- ~w(none old not_shown unreadable)a, do: {:error, why})] == []

    tell(to, "well")
    assert {:ok, _} = Memory.status(lane)
  end

  test "whatever the bytes are, they are a status or none", %{lane: lane} do
    {:ok, now_ns, bytes} = Native.telemetry(lane)
    assert {:ok, _} = Memory.decode(bytes, now_ns)
    :rand.seed(:exsss, {1, 2, 3})

    for _ <- 1..2_000 do
      at = :rand.uniform(byte_size(bytes)) - 1
      {head, <<_, tail::binary>>} = :erlang.split_binary(bytes, at)
      changed = <<head::binary, :rand.uniform(256) - 1, tail::binary>>
      cut = binary_part(changed, 0, :rand.uniform(byte_size(changed)))

      for each <- [changed, cut, cut <> <<0>>, ""] do
        assert match?({:ok, %{workers: _}}, Memory.decode(each, now_ns)) or
                 match?({:error, _}, Memory.decode(each, now_ns))
      end
    end
  end

  test "a copy is of the BEAM's own memory: it stays what it was when the lane has gone",
       context do
    {:ok, now_ns, bytes} = Native.telemetry(context.lane)
    before = :erlang.md5(bytes)
    tell(context.to, "full")
    assert :erlang.md5(bytes) == before
    Native.close(context.lane, :noconnection)
    assert {:ok, %{workers: [_, _, _, _]}} = Memory.decode(bytes, now_ns)
  end

  test "no argument but a lane is taken" do
    for other <- [nil, make_ref(), 7, self(), "lane"],
        do: assert_raise(ArgumentError, fn -> Native.telemetry(other) end)
  end
end
