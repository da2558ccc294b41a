defmodule Ringbridge.Poller.Health do
  @moduledoc """
  What a bridge's status, or what it tells in memory, says of its workers and roles, as events of telemetry; and which workers have come and gone since the last one.

  Pure: a status in, events out. What the bridge does not know of a worker (one that is starting has no figures) is left out.
  """

  @typedoc "What was seen last of a bridge: its life, and its workers that took jobs."
  @type seen :: %{os_pid: integer(), ready: %{integer() => map()}} | nil

  @typedoc "The end of an event's name, its measurements, its metadata."
  @type event :: {[atom()], map(), map()}

  @figures [
    :in_flight,
    :done,
    :lost,
    :credit,
    :service_us,
    :silent_ms,
    :restarts
  ]
  @of_health [:waiting, :failed, :last_run_us, :pulses, :still_ms]

  @doc "The events of one status. Of the first one of a bridge's life nobody comes or goes."
  @spec events(seen(), map()) :: {seen(), [event()]}
  def events(seen, status) do
    ready =
      for worker <- status.workers, worker.state == :ready, into: %{}, do: {worker.id, worker}

    now = %{os_pid: status.os_pid, ready: ready}

    events =
      Enum.map(status.roles, &load(&1, status.workers)) ++
        Enum.map(status.workers, &health/1) ++
        changes(seen, now, status)

    {now, events}
  end

  defp load(role, workers) do
    running =
      for worker <- workers, to_string(worker.role) == role.name, reduce: 0 do
        sum -> sum + (worker.in_flight || 0)
      end

    measurements = %{
      queued: role.queued,
      deferred: role.deferred,
      running: running,
      workers_ready: role.workers_ready,
      accepted: role.accepted,
      answered: sum(role.answered),
      refused: sum(role.refused)
    }

    metadata = %{role: role.name, state: role.state, breaker: role.breaker}
    {[:role, :load], put_known(measurements, :depth_max, role[:depth_max]), metadata}
  end

  # By reason, as the Diagnostics have them; or a sum already, as it stands in memory.
  defp sum(count) when is_integer(count), do: count
  defp sum(counts), do: counts |> Map.values() |> Enum.sum()

  defp health(worker) do
    health = worker.health || %{}
    measurements = Enum.reduce(@figures, %{}, &put_known(&2, &1, Map.get(worker, &1)))
    measurements = Enum.reduce(@of_health, measurements, &put_known(&2, &1, health[&1]))
    {[:worker, :health], measurements, Map.put(who(worker), :ready, health[:ready])}
  end

  defp who(worker) do
    %{
      role: to_string(worker.role),
      worker: worker.id,
      index: worker.index,
      state: worker.state,
      breaker: worker.breaker,
      os_pid: worker.os_pid,
      kit: worker.kit
    }
  end

  # Each life of a worker has an id of its own.
  defp changes(%{os_pid: os_pid} = then, %{os_pid: os_pid} = now, status) do
    came = for {id, worker} <- now.ready, not is_map_key(then.ready, id), do: up(worker)
    gone = for {id, worker} <- then.ready, not is_map_key(now.ready, id), do: down(worker, status)
    gone ++ came
  end

  defp changes(_none_or_another_life, _now, _status), do: []

  defp up(worker), do: {[:worker, :up], %{count: 1, restarts: worker.restarts}, who(worker)}

  defp down(worker, status) do
    now = Enum.find(status.workers, worker, &(&1.id == worker.id))
    state = if Enum.any?(status.workers, &(&1.id == worker.id)), do: now.state, else: :gone

    why =
      Enum.find_value(Map.get(status, :recent_errors, []), &(&1.worker == worker.id && &1.why))

    measurements = put_known(%{count: 1}, :done, worker.done)
    {[:worker, :down], measurements, %{who(worker) | state: state} |> Map.put(:why, why)}
  end

  defp put_known(map, _key, nil), do: map
  defp put_known(map, key, value), do: Map.put(map, key, value)
end
