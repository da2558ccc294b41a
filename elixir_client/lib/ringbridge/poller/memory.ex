defmodule Ringbridge.Poller.Memory do
  @moduledoc """
  What a bridge tells of its workers and roles in memory, for a node with a lane to it (docs/nif-lane.md): read in microseconds, without a
  question to the bridge, and also while its interpreter stands still.

  It is what `:status` of its Diagnostics says of them, as far as `Ringbridge.Poller.Health` needs it: `answered` and `refused` of a role are sums.
  The figures are of the last half second, who there is is as of now.
  """
  alias Ringbridge.Lane.{Layout, Native}

  # The relay writes twice a second while there is a lane. One that has not for so long stands still, or is very busy: it is asked.
  @old_ms 2_000

  # A copy that met a writer each time is made again, when others have run.
  @tries 3

  @typedoc "Why the bridge is to be asked instead."
  @type why :: :closed | :torn | :none | :other_layout | :old | :not_shown | :unreadable

  @doc "As of now; blocks for microseconds."
  @spec status(lane :: reference()) :: {:ok, map()} | {:error, why()}
  def status(lane) do
    # An older library that is still loaded would show other bytes.
    if Native.about() == {Layout.layout_version(), Layout.digest()},
      do: read(lane, @tries),
      else: {:error, :other_layout}
  rescue
    # The library was unloaded, or replaced by one that does not know this lane.
    _ in [ArgumentError, ErlangError, UndefinedFunctionError] -> {:error, :closed}
  end

  defp read(lane, tries) do
    case Native.telemetry(lane) do
      {:ok, now_ns, bytes} ->
        decode(bytes, now_ns)

      :torn when tries > 1 ->
        :erlang.yield()
        read(lane, tries - 1)

      :error ->
        {:error, :none}

      why ->
        {:error, why}
    end
  end

  @doc """
  The same of a copy. `now_ns`: the host's monotonic clock when it was made, by which it may be too old.

  Whatever the bytes are, it raises nothing.
  """
  @spec decode(binary(), non_neg_integer()) :: {:ok, map()} | {:error, why()}
  def decode(bytes, now_ns) do
    {figures, rest} = :erlang.split_binary(bytes, Layout.telemetry_figures_size())
    figures = Layout.decode_telemetry_figures(figures)
    {roles, rest} = records(rest, figures.roles, Layout.telemetry_role_size())
    {workers, rest} = records(rest, figures.workers, Layout.telemetry_worker_size())
    {list, rest} = :erlang.split_binary(rest, Layout.telemetry_list_size())
    list = Layout.decode_telemetry_list(list)
    {errors, rest} = records(rest, list.errors, Layout.telemetry_error_size())
    {places, ""} = records(rest, list.places, Layout.telemetry_place_size())
    age_ms = div(now_ns - figures.at_ns, 1_000_000)

    cond do
      # Also a clock that is not ours: of another time namespace.
      age_ms > @old_ms or now_ns < figures.at_ns -> {:error, :old}
      figures.roles_hidden + figures.workers_hidden + list.hidden > 0 -> {:error, :not_shown}
      true -> {:ok, joined(figures, roles, workers, errors, places, now_ns)}
    end
  rescue
    # What only a bridge that is broken, or lies, would write.
    _ in [MatchError, KeyError, FunctionClauseError, ArgumentError] -> {:error, :unreadable}
  end

  # No sizes in patterns: 1.20 wants them pinned, and 1.14 knows no pins there.
  defp records(bytes, count, size) do
    {all, rest} = :erlang.split_binary(bytes, count * size)
    {split(all, size), rest}
  end

  defp split("", _size), do: []

  defp split(all, size) do
    {one, rest} = :erlang.split_binary(all, size)
    [one | split(rest, size)]
  end

  # --- Two lists of workers are one ---------------------------------------------------------------------------

  defp joined(figures, roles, workers, errors, places, now_ns) do
    of_worker =
      for bytes <- workers,
          worker = Layout.decode_telemetry_worker(bytes),
          into: %{},
          do: {worker.worker, worker}

    %{
      os_pid: figures.os_pid,
      roles: Enum.map(roles, &role(Layout.decode_telemetry_role(&1))),
      workers:
        for bytes <- places,
            place = Layout.decode_telemetry_place(bytes),
            place.state != Layout.worker_none() do
          worker(place, of_worker, now_ns)
        end,
      recent_errors: Enum.map(errors, &error(Layout.decode_telemetry_error(&1)))
    }
  end

  defp role(role) do
    %{
      name: text(role.name),
      state: role_state(role.state),
      breaker: breaker(role.breaker),
      queued: role.queued,
      deferred: role.deferred,
      workers_ready: role.workers_ready,
      depth_max: role.depth_max,
      accepted: role.accepted,
      answered: role.answered,
      refused: role.refused
    }
  end

  # Figures are of one that runs; what the relay does not know of it (yet) is as the WorkerRegistry has it.
  defp worker(place, of_worker, now_ns) do
    state = state(place.state)
    alive? = state in [:starting, :ready, :draining]

    place
    |> who(state)
    |> Map.merge(figures(alive? && of_worker[place.worker], now_ns))
  end

  defp who(place, state) do
    %{
      id: place.worker,
      role: text(place.role),
      index: place.index,
      state: state,
      os_pid: some(place.os_pid, 0),
      kit: some(text(place.kit), ""),
      restarts: place.restarts
    }
  end

  defp figures(none, _now_ns) when none in [nil, false] do
    %{in_flight: 0, done: 0, lost: 0, credit: nil, service_us: nil}
    |> Map.merge(%{breaker: nil, silent_ms: nil, health: nil})
  end

  defp figures(worker, now_ns) do
    %{
      in_flight: worker.in_flight,
      done: worker.done,
      lost: worker.lost,
      credit: worker.credit,
      service_us: div(worker.service_ns, 1_000),
      breaker: breaker(worker.breaker),
      silent_ms: silent_ms(worker.heartbeat_ns, now_ns),
      health: %{
        ready: worker.unready == 0,
        waiting: worker.waiting,
        failed: worker.failed,
        last_code: worker.last_code,
        last_run_us: div(worker.run_ns, 1_000),
        pulses: worker.pulses,
        still_ms: div(worker.still_ns, 1_000_000)
      }
    }
  end

  # Copied, as text/1 does: events may be kept, and would keep all of what was read.
  defp error(error),
    do: %{worker: error.worker, why: :binary.copy(binary_part(error.why, 0, error.bytes))}

  defp silent_ms(0, _now_ns), do: nil
  defp silent_ms(heartbeat_ns, now_ns), do: div(max(now_ns - heartbeat_ns, 0), 1_000_000)

  defp some(nothing, nothing), do: nil
  defp some(value, _nothing), do: value

  defp text(padded), do: padded |> :binary.split(<<0>>) |> hd() |> :binary.copy()

  # --- Words --------------------------------------------------------------------------------------------------

  for {name, value} <- [
        starting: Layout.worker_starting(),
        ready: Layout.worker_ready(),
        draining: Layout.worker_draining(),
        restarting: Layout.worker_restarting(),
        drained: Layout.worker_drained(),
        given_up: Layout.worker_given_up(),
        finished: Layout.worker_finished(),
        stopped: Layout.worker_stopped()
      ],
      do: defp(state(unquote(value)), do: unquote(name))

  for {name, value} <- [
        running: Layout.role_running(),
        draining: Layout.role_draining(),
        given_up: Layout.role_given_up()
      ],
      do: defp(role_state(unquote(value)), do: unquote(name))

  for {name, value} <- [
        closed: Layout.breaker_closed(),
        open: Layout.breaker_open(),
        half_open: Layout.breaker_half_open(),
        reclosing: Layout.breaker_reclosing(),
        held_open: Layout.breaker_held_open(),
        held_closed: Layout.breaker_held_closed()
      ],
      do: defp(breaker(unquote(value)), do: unquote(name))
end
