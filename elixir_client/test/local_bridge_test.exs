defmodule Ringbridge.LocalBridgeTest do
  @moduledoc "A LocalBridge and what wrong or unlucky workers and callers do to it. The test plays the workers."
  use ExUnit.Case, async: true

  alias Ringbridge.LocalBridge

  @patience_ms 30_000
  @moduletag capture_log: true

  setup do
    bridge = start_supervised!({LocalBridge, roles: [:work], depth_max: 2, register: false})
    {:ok, bridge: bridge}
  end

  defp say_hello(bridge, change) do
    said = %{version: 1, ref: make_ref(), pid: self(), role: "work", slots: 1, credit: 1}
    send(bridge, {:ringbridge_worker, :hello, Map.merge(said, change)})
  end

  # The desk of a worker that this process plays.
  defp welcome(bridge, change \\ %{}) do
    say_hello(bridge, change)
    assert_receive {:ringbridge_worker, :welcome, %{desk: desk}}, @patience_ms
    desk
  end

  defp submit(bridge, payload, options \\ []) do
    Task.async(fn ->
      GenServer.call(bridge, {:submit, :work, payload, options}, @patience_ms)
    end)
  end

  defp job(payload) do
    assert_receive {:ringbridge_worker, :job, %{job: id}, {:raw, ^payload}}, @patience_ms
    id
  end

  defp complete(desk, id, bytes) do
    said = %{job: id, status: :ok}
    send(desk, {:ringbridge_worker, :complete, said, {:raw, bytes}})
  end

  defp in_flight(bridge) do
    {:ok, %{in_flight: count}} = GenServer.call(bridge, :stats)
    count
  end

  test "the time of a job that was refused ends no other job", %{bridge: bridge} do
    assert {:error, :no_worker} = Task.await(submit(bridge, "refused", timeout: 100))
    desk = welcome(bridge)
    accepted = submit(bridge, "accepted")
    id = job("accepted")
    # More than one such time, as another job tells: it was accepted later, and is over.
    assert {:error, :deadline_exceeded} = Task.await(submit(bridge, "late", timeout: 200))
    refute_received {:ringbridge_worker, :cancel, %{job: ^id}}
    complete(desk, id, "done")
    assert {:ok, "done"} = Task.await(accepted, @patience_ms)
  end

  test "a job that its worker said to have started is not begun again when it dies", %{
    bridge: bridge
  } do
    test = self()

    # Says its last word while the way of words is slow; its end must not overtake it.
    {worker, watch} =
      spawn_monitor(fn ->
        desk = welcome(bridge)
        id = job("once")
        :erlang.suspend_process(desk)
        send(desk, {:ringbridge_worker, :started, %{job: id}})
        send(test, {:started, desk})
        Process.sleep(:infinity)
      end)

    other = Task.async(fn -> submit_when_served(bridge, "once") end)
    assert_receive {:started, _desk}, @patience_ms
    Process.exit(worker, :kill)
    assert_receive {:DOWN, ^watch, _, _, _}, @patience_ms
    # Who suspends lets go when it dies.
    assert {:error, {:worker_crashed, %{signal: 9}}} = Task.await(other, @patience_ms)
  end

  defp submit_when_served(bridge, payload) do
    with {:error, :no_worker} <- GenServer.call(bridge, {:submit, :work, payload}, @patience_ms),
         do: submit_when_served(bridge, payload)
  end

  test "a job whose time has passed is told so, whoever sees it first", %{bridge: bridge} do
    desk = welcome(bridge)
    task = submit(bridge, "late", timeout: @patience_ms)
    id = job("late")
    # Its time is over now, and the bridge's own timer has not come yet.
    over = System.monotonic_time(:millisecond)
    :sys.replace_state(bridge, &put_in(&1.jobs[id].until, over))
    # As a loop does that finds no time left.
    send(desk, {:ringbridge_worker, :complete, %{job: id, status: :cancelled}})
    assert {:error, :deadline_exceeded} = Task.await(task, @patience_ms)
  end

  test "a hello without its keys is refused, and nobody else notices", %{bridge: bridge} do
    desk = welcome(bridge)

    for change <- [%{slots: nil}, %{slots: 0}, %{slots: 65}, %{credit: "x"}, %{role: 3}] do
      say_hello(bridge, change)

      assert_receive {:ringbridge_worker, :refused, %{reason: :bad_hello, again: false}},
                     @patience_ms
    end

    send(bridge, {:ringbridge_worker, :hello, %{ref: make_ref(), pid: self()}})
    assert_receive {:ringbridge_worker, :refused, %{reason: :bad_hello}}, @patience_ms
    for said <- [%{pid: self()}, %{}, nil], do: send(bridge, {:ringbridge_worker, :hello, said})
    task = submit(bridge, "x")
    complete(desk, job("x"), "y")
    assert {:ok, "y"} = Task.await(task, @patience_ms)
  end

  test "a worker that breaks a rule is ended, and nobody else notices", %{bridge: bridge} do
    for wrong <- [
          {:complete, %{job: 77, status: :ok}, {:raw, "x"}},
          {:complete, %{job: :held, status: :ok}, {:term, "no term"}},
          {:complete, %{job: :held, status: :ok}},
          {:complete, %{job: :held, status: :what}, {:raw, "x"}},
          {:complete, %{}, {:raw, "x"}},
          {:started, %{job: 77}},
          {:heartbeat, %{ready: 1}},
          {:credit, %{credit: -1}},
          {:sing, %{}}
        ] do
      desk = welcome(bridge)
      caller = submit(bridge, "held")
      id = job("held")
      send(desk, {:ringbridge_worker, :started, %{job: id}})

      said =
        with {kind, %{job: :held} = said, bytes} <- wrong, do: {kind, %{said | job: id}, bytes}

      said = with {kind, %{job: :held} = map} <- said, do: {kind, %{map | job: id}}
      send(desk, List.to_tuple([:ringbridge_worker | Tuple.to_list(said)]))
      assert_receive {:ringbridge_worker, :ended, %{reason: :broke, again: true}}, @patience_ms
      assert {:error, {:worker_crashed, _}} = Task.await(caller, @patience_ms)
    end

    assert in_flight(bridge) == 0
  end

  test "a job that nobody waits for is given to no other worker", %{bridge: bridge} do
    test = self()

    first =
      spawn(fn ->
        welcome(bridge)
        send(test, {:holds, job("left alone")})
        Process.sleep(:infinity)
      end)

    caller = spawn(fn -> GenServer.call(bridge, {:submit, :work, "left alone"}) end)
    assert_receive {:holds, _id}, @patience_ms
    desk = welcome(bridge, %{credit: 8})
    watch = Process.monitor(caller)
    Process.exit(caller, :kill)
    assert_receive {:DOWN, ^watch, _, _, _}, @patience_ms
    wait(fn -> in_flight(bridge) == 0 end)
    Process.exit(first, :kill)
    task = submit(bridge, "next")
    assert_receive {:ringbridge_worker, :job, %{job: id}, {:raw, payload}}, @patience_ms
    assert payload == "next"
    complete(desk, id, "done")
    assert {:ok, "done"} = Task.await(task, @patience_ms)
  end

  test "options that are none are the caller's mistake", %{bridge: bridge} do
    welcome(bridge)

    for options <- [[timeout: -1], [timeout: "x"], [:timeout], :no, [opcode: 65_536]] do
      assert {:error, {:bad_request, _}} = Task.await(submit(bridge, "x", options))
    end
  end

  defp wait(ready) do
    unless ready.() do
      Process.sleep(5)
      wait(ready)
    end
  end
end
