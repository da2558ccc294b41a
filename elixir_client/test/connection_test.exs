defmodule Ringbridge.ConnectionTest do
  @moduledoc "A connection's timers over several connections to the same bridge. Its callbacks, run by the test."
  use ExUnit.Case

  alias Ringbridge.{Backoff, Connection, Instance, Route}

  @moduletag capture_log: true

  setup do
    table = :ets.new(:connection, [:public])

    instance = %Instance{
      name: table,
      nodes: [node()],
      mode: :dist,
      timeout: 0,
      connect_timeout: 0
    }

    # We are its process: its timers come to us.
    backoff = %Backoff{min_ms: 1, max_ms: 1}
    {:ok, state: %Connection{instance: instance, node: node(), backoff: backoff, probe_ms: 10}}
  end

  # The dispatcher's answer to a probe that was sent just now.
  defp answered(state) do
    ref = make_ref()
    probe = {ref, System.monotonic_time(:microsecond)}
    state = %{state | probe: probe, monitor: state.monitor || make_ref()}
    {:noreply, state} = Connection.handle_info({[:alias | ref], {:ok, %{}}}, state)
    state
  end

  defp lost(state) do
    {:noreply, state} =
      Connection.handle_info({:DOWN, state.monitor, :process, {:a, node()}, :noconnection}, state)

    state
  end

  defp distance(state) do
    [{_key, _pid, :up, distance, _epoch}] =
      :ets.lookup(state.instance.name, {:bridge, state.node})

    distance
  end

  test "a probe of the connection before makes none late now", %{state: state} do
    state = state |> answered() |> lost() |> answered()
    near = distance(state)
    # Both timers: that of the connection that was lost, and that of this one.
    assert_receive first, 60_000
    {:noreply, state} = Connection.handle_info(first, state)
    timers = if first == :connect, do: 2, else: 1

    state =
      for _ <- 1..timers, reduce: state do
        state ->
          assert_receive message, 60_000
          {:noreply, state} = Connection.handle_info(message, state)
          state
      end

    refute distance(state) == Route.distance(true, :late)
    assert distance(state) == near
    assert {_ref, _sent_us} = state.probe
  end

  test "those who wait are looked through by one timer", %{state: state} do
    far = Ringbridge.Deadline.from_now(600_000)
    {:noreply, state} = Connection.handle_info({:wait, make_ref(), [], far}, state)
    assert first = state.sweep
    {:noreply, state} = state |> answered() |> lost() |> then(&{:noreply, &1})
    {:noreply, state} = Connection.handle_info({:wait, make_ref(), [], far}, state)
    assert state.sweep == first
    over = Ringbridge.Deadline.now_ms()
    {:noreply, state} = Connection.handle_info({:wait, make_ref(), [], over}, state)
    {:noreply, state} = Connection.handle_info(:sweep, state)
    assert [{_ref, ^far}] = state.waiting
    assert state.sweep != first
  end
end
