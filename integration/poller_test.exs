defmodule Ringbridge.PollerIntegrationTest do
  @moduledoc "The poller beside a bridge, whose workers die and which is gone: what telemetry hears. The package is a stand-in of its name."
  use Ringbridge.BridgeCase

  @moduletag capture_log: true

  @name __MODULE__.Compute

  setup %{node: node} do
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

    start_supervised!({Ringbridge, name: @name, nodes: [node], correlate: true})
    start_supervised!({Ringbridge.Poller, instance: @name, every_ms: 100})
    :ok
  end

  test "hears of workers' health, of one that dies and of the next one", %{node: node} do
    assert_receive {[:ringbridge, :worker, :health], %{done: _, silent_ms: _},
                    %{role: "echo"} = who},
                   60_000

    assert %{instance: @name, node: ^node, state: :ready, ready: true} = who
    assert_receive {[:ringbridge, :poll, :stop], %{duration: _}, %{node: ^node}}, 60_000
    assert_receive {[:ringbridge, :role, :load], %{queued: 0}, %{role: "sleep"}}, 60_000

    Program.kill(who.os_pid, "KILL")
    worker = who.worker
    assert_receive {[:ringbridge, :worker, :down], _, %{worker: ^worker, why: why}}, 60_000
    assert why =~ "signal 9"
    assert_receive {[:ringbridge, :worker, :up], %{restarts: 1}, %{role: "echo"}}, 60_000
  end

  test "a call's id leads to the worker's line in the log", %{bridge: bridge} do
    # rb-sleep says nothing of its own; what a worker's death leaves is in the log under its job.
    request = Ringbridge.async(@name, :sleep, "60000", meta: %{request: "r1"}, timeout: 120_000)
    Program.kill(await_busy(bridge.node, :sleep), "KILL")
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
