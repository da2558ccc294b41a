defmodule Ringbridge.Soak.Books do
  @moduledoc """
  The bridge's accounts, read all along: accepted = answered + in flight, whatever is going on; told overloaded =
  the sum over the rules; nothing counts backwards. And at rest: nothing is in flight, and the roles' accounts add up
  to the relay's, reason by reason.
  """

  alias Ringbridge.Soak.Callers

  @every_ms 50

  @doc "A process that reads until the callers are told to stop."
  @spec start(Callers.t(), node()) :: pid()
  def start(callers, bridge), do: spawn(fn -> read(callers, bridge, nil) end)

  defp read(callers, bridge, before) do
    unless Callers.stopping?(callers) do
      {:ok, stats} = GenServer.call({Ringbridge.JobDispatcher, bridge}, :stats, 30_000)
      for why <- uneven(stats) ++ backwards(before, stats), do: Callers.violation(callers, why)
      Callers.count(callers, :books, :read)
      Process.sleep(@every_ms)
      read(callers, bridge, stats)
    end
  end

  @doc "What is wrong with a snapshot."
  @spec uneven(map()) :: [String.t()]
  def uneven(stats) do
    answered = sum(stats.answered)
    overloaded = Map.get(stats.answered, :overloaded, 0) + Map.get(stats.refused, :overloaded, 0)
    ruled = sum(stats.overloaded_by)

    for {true, why} <- [
          {stats.accepted != answered + stats.in_flight,
           "accepted #{stats.accepted}, answered #{answered}, in flight #{stats.in_flight}"},
          {overloaded != ruled, "#{overloaded} were told overloaded, #{ruled} by a rule"}
        ],
        do: why
  end

  defp backwards(nil, _stats), do: []

  defp backwards(before, stats) do
    for {name, counts} <- [answered: before.answered, refused: before.refused],
        {reason, count} <- counts,
        Map.fetch!(stats[name], reason) < count,
        do: "#{name}.#{reason} went back from #{count}"
  end

  @doc "What is wrong with the accounts of the relay and its roles when nothing is under way."
  @spec uneven_at_rest(node()) :: [String.t()]
  def uneven_at_rest(bridge) do
    {:ok, stats} = GenServer.call({Ringbridge.JobDispatcher, bridge}, :stats)
    {:ok, status} = GenServer.call({Ringbridge.Diagnostics, bridge}, :status)
    busy = if stats.in_flight > 0, do: ["#{stats.in_flight} jobs in flight"], else: []
    held = for w <- status.workers, w.in_flight > 0, do: "worker #{w.id} has #{w.in_flight} jobs"
    streams = if status.relay.streams > 0, do: ["#{status.relay.streams} streams open"], else: []

    busy ++
      held ++
      streams ++
      uneven(stats) ++ Enum.flat_map(status.roles, &role/1) ++ reasons(stats, status.roles)
  end

  defp role(role) do
    waiting = for key <- [:queued, :deferred], role[key] > 0, do: {key, role[key]}
    open = role.accepted - sum(role.answered)

    for {true, why} <- [
          {waiting != [], "#{role.name} has #{inspect(waiting)}"},
          {open != 0, "#{role.name} has accepted #{open} more than it has answered"}
        ],
        do: why
  end

  defp reasons(stats, roles) do
    for {reason, count} <- stats.answered,
        of_roles = roles |> Enum.map(&Map.get(&1.answered, reason, 0)) |> Enum.sum(),
        of_roles != count,
        do: "#{count} were answered #{reason}, #{of_roles} by the roles' accounts"
  end

  defp sum(counts), do: counts |> Map.values() |> Enum.sum()
end
