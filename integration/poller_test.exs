defmodule Ringbridge.PollerIntegrationTest do
  @moduledoc "The poller beside a bridge, whose workers die and which is gone: what telemetry hears. The package is a stand-in of its name."
  use Ringbridge.BridgeCase, name: "poller"

  alias Ringbridge.Lane.{Native, Opener}
  alias Ringbridge.Poller.{Health, Memory}
  alias Ringbridge.Reach

  @moduletag capture_log: true

  # Both ways of asking, where the NIF is built.
  @lanes if Native.status() == :ok, do: [:dist, :nif], else: [:dist]

  @name __MODULE__.Compute

  setup %{node: node} = context do
    # To whom the stand-in tells everything.
    :persistent_term.put(__MODULE__, self())

    Module.create(
      :telemetry,
      quote do
        def execute(event, measurements, metadata) do
          send(:persistent_term.get(unquote(__MODULE__)), {event, measurements, metadata})
          :ok
        end
      end,
      Macro.Env.location(__ENV__)
    )

    on_exit(fn ->
      :code.purge(:telemetry)
      :code.delete(:telemetry)
    end)

    lane = context[:lane] || :auto
    for role <- [:echo, :sleep], do: os_pid_of_worker(node, role)
    start_supervised!({Ringbridge, name: @name, nodes: [node], correlate: true, lane: lane})
    if lane != :auto, do: await_lane(@name, node, lane)
    start_supervised!({Ringbridge.Poller, instance: @name, every_ms: 100})
    :ok
  end

  for lane <- @lanes do
    @tag lane: lane
    test "hears of workers' health, of one that dies and of the next one (#{lane})", context do
      %{node: node, lane: lane} = context

      assert_receive {[:ringbridge, :poll, :stop], %{duration: _}, %{node: ^node, lane: ^lane}},
                     60_000

      assert_receive {[:ringbridge, :worker, :health], %{done: _, silent_ms: _},
                      %{role: "echo", state: :ready} = who},
                     60_000

      assert %{instance: @name, node: ^node, ready: true, kit: "c"} = who
      assert_receive {[:ringbridge, :role, :load], %{queued: 0}, %{role: "sleep"}}, 60_000

      Program.kill(who.os_pid, "KILL")
      worker = who.worker
      assert_receive {[:ringbridge, :worker, :down], _, %{worker: ^worker, why: why}}, 60_000
      assert why =~ "signal 9"
      assert_receive {[:ringbridge, :worker, :up], %{restarts: n}, %{role: "echo"}}, 60_000
      assert n > 0
    end
  end

  if :nif in @lanes do
    # What the one says that the other does not say is found here, whatever of the two was changed.
    @tag lane: :nif
    test "memory and the bridge's answer are the same events", %{node: node} do
      os_pid = os_pid_of_worker(node, :sleep)
      Program.kill(os_pid, "KILL")

      Lab.wait_until("another worker sleeps", 60_000, fn ->
        Enum.any?(workers(node, :sleep), &(&1.state == :ready and &1.os_pid != os_pid))
      end)

      for n <- 1..20, do: {:ok, _} = Ringbridge.call(@name, :echo, "#{n}")
      {:error, _} = Ringbridge.call(@name, :echo, :binary.copy("x", 70_000_000))
      {:error, _} = Ringbridge.call(@name, :sleep, "60000", timeout: 50)
      for _ <- 1..3, do: {:ok, _} = Ringbridge.call(@name, :sleep, "5")

      # One is of the last half second, the other of now.
      Lab.wait_until("both say the same", 60_000, fn ->
        from_memory(node) == from_bridge(node)
      end)

      # And say something: what is 0 in both proves nothing.
      {_, load, _} = event(from_memory(node), [:role, :load], "echo")
      assert load.accepted >= 20 and load.answered >= 20 and load.refused >= 1
      assert load.depth_max > 0
      {_, echo, _} = event(from_memory(node), [:worker, :health], "echo")
      assert echo.done >= 20 and echo.credit > 0
      {_, sleep, %{os_pid: _, kit: "c"}} = event(from_memory(node), [:worker, :health], "sleep")
      assert sleep.done >= 3 and sleep.restarts >= 1 and sleep.service_us > 0
    end

    @tag lane: :nif
    test "what is in flight and what waits is told in memory, too", %{node: node} do
      jobs = for _ <- 1..40, do: Ringbridge.async(@name, :sleep, "60000", timeout: 120_000)

      Lab.wait_until("both say the same of them", 60_000, fn ->
        {_, load, _} = event(from_memory(node), [:role, :load], "sleep")
        from_memory(node) == from_bridge(node) and load.running + load.queued == 40
      end)

      {_, sleep, _} = event(from_memory(node), [:worker, :health], "sleep")
      assert sleep.in_flight > 0
      for job <- jobs, do: Ringbridge.shutdown(job)
    end
  end

  defp from_memory(node) do
    {:ok, status} = Memory.status(Opener.any_lane(@name, node))
    events(status)
  end

  defp from_bridge(node) do
    {:ok, status} = Reach.ask(node, Ringbridge.Diagnostics, :status, 60_000)
    events(status)
  end

  # Without what is of the moment it was asked at.
  defp events(status) do
    seen = %{os_pid: status.os_pid, ready: %{}}
    {_seen, events} = Health.events(seen, status)

    events
    |> Enum.map(fn {name, measurements, who} ->
      {name, Map.drop(measurements, [:silent_ms, :still_ms]), who}
    end)
    |> Enum.sort()
  end

  defp event(events, name, role),
    do: Enum.find(events, &match?({^name, _, %{role: ^role}}, &1))

  test "a call's id leads to the worker's line in the log", %{bridge: bridge} do
    # rb-sleep says nothing of its own; what a worker's death leaves is in the log under its job.
    request = Ringbridge.async(@name, :sleep, "60000", meta: %{request: "r1"}, timeout: 120_000)
    Program.kill(await_begun(bridge.node, :sleep), "KILL")
    assert {:error, %{reason: {:worker_crashed, _}}} = Ringbridge.await(request)
    assert_receive {[:ringbridge, :job, :start], _, %{id: id, role: :sleep}}, 60_000
    assert_receive {[:ringbridge, :job, :stop], _, %{id: ^id, job: job, worker: worker}}, 60_000
    assert is_integer(worker)

    line = Program.await_line(bridge.program, ~r/"job": #{job}, .*"event": "job lost"/, 60_000)
    assert line =~ "r1"
  end

  test "a bridge that stands still is one exception after another, and no heap of questions", %{
    bridge: bridge,
    node: node
  } do
    assert {:ok, "x"} = Ringbridge.call(@name, :echo, "x")
    assert_receive {[:ringbridge, :job, :stop], %{run_us: _}, %{job: job}}, 60_000
    assert is_integer(job)

    Program.signal(bridge.program, "STOP")

    try do
      assert_receive {[:ringbridge, :poll, :exception], %{count: 1}, %{node: ^node} = seen},
                     60_000

      assert seen.reason.reason == :timeout
      {_, poller, _, _} = List.keyfind(children(), {Ringbridge.Poller, @name}, 0)
      assert map_size(:sys.get_state(poller).asking) <= 1
    after
      Program.signal(bridge.program, "CONT")
    end

    flush()
    assert_receive {[:ringbridge, :poll, :stop], _, %{node: ^node}}, 60_000
  end

  defp children, do: Supervisor.which_children(ExUnit.fetch_test_supervisor() |> elem(1))

  defp flush do
    receive do
      _ -> flush()
    after
      0 -> :ok
    end
  end
end
