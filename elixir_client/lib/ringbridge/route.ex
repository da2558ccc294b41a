defmodule Ringbridge.Route do
  @moduledoc """
  Which bridge is asked: the nearest that is connected, was not tried by this call, and did not just say that it
  takes no jobs of the role.

  Pure but for the instance's table, which holds what the connections and the callers have found out:

      {{:bridge, node}, connection_pid, :up | :down, distance, epoch}
      {{:shunned, node, role}, until_ms}

  A distance is compared as a term: `{answers late?, on another host?, size of the round trip}`.
  """

  # A bridge, or one role of it, that drains is asked again that soon: one call then finds out for all.
  @shunned_ms 2_000

  @type distance :: {0 | 1, 0 | 1, non_neg_integer()}

  @typedoc "Tells one connection to a bridge from the next one to the same bridge."
  @type epoch :: integer() | nil

  @typedoc "What a call will not try again: a bridge that refused, or a connection that was lost under it."
  @type tried :: [node() | {node(), epoch()}]

  @doc """
  The distance of a bridge. Round trips that need as many binary digits count as equal: the order of `:nodes` decides.

      iex> Ringbridge.Route.distance(true, 100) < Ringbridge.Route.distance(false, 50)
      true
      iex> Ringbridge.Route.distance(true, 70) == Ringbridge.Route.distance(true, 120)
      true
      iex> Ringbridge.Route.distance(false, 5_000) < Ringbridge.Route.distance(true, :late)
      true
  """
  @spec distance(boolean(), non_neg_integer() | :late) :: distance()
  def distance(same_host?, :late), do: {1, elsewhere(same_host?), 0}

  def distance(same_host?, round_trip_us) do
    {0, elsewhere(same_host?), length(Integer.digits(round_trip_us, 2))}
  end

  defp elsewhere(same_host?), do: if(same_host?, do: 0, else: 1)

  @doc "The bridge to ask and its epoch, or `nil` when none that is connected is left."
  @spec pick(:ets.table(), [node()], term(), tried()) :: {node(), epoch()} | nil
  def pick(table, nodes, role, tried) do
    case for({_, node, epoch} = row <- up(table, nodes), not tried?(node, epoch, tried), do: row) do
      [] -> nil
      [{_distance, node, epoch}] -> {node, epoch}
      several -> nearest(table, several, role)
    end
  end

  @doc "Whether a call has had enough of the bridge, or of this connection to it."
  @spec tried?(node(), epoch(), tried()) :: boolean()
  def tried?(node, epoch, tried), do: node in tried or {node, epoch} in tried

  # min_by takes the first of equals: the order of `:nodes`.
  defp nearest(table, several, role) do
    now_ms = System.monotonic_time(:millisecond)

    {_distance, node, epoch} =
      Enum.min_by(several, fn {distance, node, _epoch} ->
        {shunned?(table, node, role, now_ms), distance}
      end)

    {node, epoch}
  end

  @doc "Remembers for a while that the bridge takes no jobs of the role."
  @spec shun(:ets.table(), node(), term()) :: true
  def shun(table, node, role) do
    until_ms = System.monotonic_time(:millisecond) + @shunned_ms
    :ets.insert(table, {{:shunned, node, role}, until_ms})
  end

  @doc "The bridges that are connected, the nearest first."
  @spec connected(:ets.table(), [node()]) :: [node()]
  def connected(table, nodes) do
    for {_distance, node, _epoch} <- Enum.sort_by(up(table, nodes), &elem(&1, 0)), do: node
  end

  defp up(table, nodes) do
    for node <- nodes,
        {_key, _pid, :up, distance, epoch} <- :ets.lookup(table, {:bridge, node}),
        do: {distance, node, epoch}
  end

  defp shunned?(table, node, role, now_ms) do
    case :ets.lookup(table, {:shunned, node, role}) do
      [{_key, until_ms}] -> until_ms > now_ms
      [] -> false
    end
  end
end
