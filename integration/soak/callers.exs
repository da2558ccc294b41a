defmodule Ringbridge.Soak.Callers do
  @moduledoc """
  Processes that make one call after the other until they are told to stop, and what they have seen.

  Steady ones stay for every answer. Mortal ones are killed wherever they happen to be, and replaced.
  """

  alias __MODULE__
  alias Ringbridge.Soak.{Calls, Payloads}

  @moves_kept 60

  @enforce_keys [:target, :table, :flag, :cuts, :seed, :may_lose]
  defstruct [:target, :table, :flag, :cuts, :seed, :may_lose, first_id: 0, pids: []]

  @type t :: %Callers{
          target: {atom(), node()},
          table: :ets.table(),
          flag: :atomics.atomics_ref(),
          cuts: :atomics.atomics_ref(),
          seed: integer(),
          may_lose: boolean(),
          first_id: non_neg_integer(),
          pids: [pid()]
        }

  @spec start({atom(), node()}, keyword()) :: t()
  def start(target, options) do
    Payloads.prepare()

    callers = %Callers{
      target: target,
      table: :ets.new(:soak, [:public, :ordered_set, write_concurrency: true]),
      flag: :atomics.new(1, []),
      cuts: :atomics.new(1, []),
      seed: Keyword.fetch!(options, :seed),
      may_lose: Keyword.get(options, :may_lose, false),
      first_id: Keyword.get(options, :first_id, 0)
    }

    steady =
      for id <- 1..Keyword.fetch!(options, :steady), do: spawn(fn -> steady(callers, id) end)

    mortal =
      for id <- 1..Keyword.fetch!(options, :mortal),
          do: spawn(fn -> reap(callers, 1_000 + id) end)

    %{callers | pids: steady ++ mortal}
  end

  @doc "Tells all to stop and waits; whoever does not end is a violation, with what it was doing."
  @spec stop(t(), timeout()) :: :ok
  def stop(callers, timeout_ms) do
    :atomics.put(callers.flag, 1, 1)
    deadline = System.monotonic_time(:millisecond) + timeout_ms

    for pid <- callers.pids do
      ref = Process.monitor(pid)

      receive do
        {:DOWN, ^ref, _, _, reason} when reason in [:normal, :noproc] -> :ok
        {:DOWN, ^ref, _, _, reason} -> violation(callers, "a caller ended: #{inspect(reason)}")
      after
        max(0, deadline - System.monotonic_time(:millisecond)) ->
          violation(callers, "a caller hangs: #{inspect(Process.info(pid, :current_stacktrace))}")
          Process.exit(pid, :kill)
      end
    end

    :ok
  end

  @doc "How often each kind of call ended how: `%{{kind, label} => count}`."
  @spec counts(t()) :: %{{atom(), atom()} => pos_integer()}
  def counts(callers) do
    for {{:count, kind, label}, count} <- :ets.tab2list(callers.table),
        into: %{},
        do: {{kind, label}, count}
  end

  @doc "How often calls ended so, of all kinds."
  @spec by_label(t()) :: %{atom() => pos_integer()}
  def by_label(callers) do
    Enum.reduce(counts(callers), %{}, fn {{_kind, label}, count}, sum ->
      Map.update(sum, label, count, &(&1 + count))
    end)
  end

  @spec violations(t()) :: [String.t()]
  def violations(callers),
    do: for({{:violation, _}, text} <- :ets.tab2list(callers.table), do: text)

  @spec count(t(), atom(), atom()) :: integer()
  def count(callers, kind, label) do
    key = {:count, kind, label}
    :ets.update_counter(callers.table, key, 1, {key, 0})
  end

  @spec violation(t(), String.t()) :: true
  def violation(callers, text) do
    move(callers, "VIOLATION #{text}")
    :ets.insert(callers.table, {{:violation, System.unique_integer([:monotonic])}, text})
  end

  @doc "The worker of this id was left standing for so long that the bridge may find it hung; no other may it find so."
  @spec stands_long(t(), pos_integer()) :: true
  def stands_long(callers, worker), do: :ets.insert(callers.table, {{:stood, worker}, true})

  @doc "All of these."
  @spec stood_long(t()) :: [pos_integer()]
  def stood_long(callers),
    do: for({{:stood, worker}, true} <- :ets.tab2list(callers.table), do: worker)

  @doc "Notes what was done on purpose, so that the last moves before a failure can be told."
  @spec move(t(), String.t()) :: true
  def move(callers, text) do
    number = :ets.update_counter(callers.table, :moves, 1, {:moves, 0})
    :ets.delete(callers.table, {:move, number - @moves_kept})
    :ets.insert(callers.table, {{:move, number}, System.monotonic_time(:millisecond), text})
  end

  @doc "The last moves, with the time in ms at which each was made."
  @spec moves(t()) :: [{integer(), String.t()}]
  def moves(callers),
    do: for({{:move, _}, at, text} <- :ets.tab2list(callers.table), do: {at, text})

  @doc "Whether they have been told to stop."
  @spec stopping?(t()) :: boolean()
  def stopping?(callers), do: :atomics.get(callers.flag, 1) == 1

  @doc """
  The whole life of a node that is cut off from the bridge now and then, and killed in the end.
  It says what was wrong, and how many calls it has made, on its standard output.
  """
  @spec elsewhere({atom(), node()}, integer(), pos_integer()) :: no_return()
  def elsewhere({_name, bridge} = target, seed, number) do
    first_id = number * 10_000
    options = [seed: seed, may_lose: true, first_id: first_id, steady: 6, mortal: 2]
    callers = start(target, options)
    :rand.seed(:exsss, {seed, first_id, 0})
    told(callers, bridge, 0)
  end

  defp told(callers, bridge, told) do
    Process.sleep(200 + :rand.uniform(800))
    :atomics.add(callers.cuts, 1, 1)
    Node.disconnect(bridge)
    :atomics.add(callers.cuts, 1, 1)
    violations = violations(callers)
    for text <- Enum.drop(violations, told), do: IO.puts("violation: #{text}")
    IO.puts("calls #{callers |> counts() |> Map.values() |> Enum.sum()}")
    told(callers, bridge, length(violations))
  end

  defp new_calls(callers, id) do
    id = callers.first_id + id
    :rand.seed(:exsss, {callers.seed, id, 0})
    %Calls{target: callers.target, id: id, may_lose: callers.may_lose, cuts: callers.cuts}
  end

  defp steady(callers, id), do: callers |> new_calls(id) |> steady_on(callers)

  defp steady_on(calls, callers) do
    if stopping?(callers) do
      Calls.barrier(calls)
      tell(callers, :last, Calls.alone(:quiet))
    else
      {calls, kind, verdict} = Calls.any(calls)
      tell(callers, kind, verdict)
      pause(verdict)
      steady_on(calls, callers)
    end
  end

  defp pause({:fine, label}) when label in [:overloaded, :draining, :circuit_open],
    do: Process.sleep(:rand.uniform(20))

  # The connection is made again by the next call; all callers at once need not ask for it.
  defp pause({:fine, :lost}), do: Process.sleep(:rand.uniform(20))
  defp pause(_verdict), do: :ok

  defp tell(callers, kind, {:fine, label}), do: count(callers, kind, label)
  defp tell(callers, _kind, {:wrong, why}), do: violation(callers, why)

  defp reap(callers, id) do
    calls = new_calls(callers, id)
    reap_on(callers, calls)
  end

  defp reap_on(callers, calls) do
    unless stopping?(callers) do
      # Each goes on where the one before it may have been, so that payloads stay unlike.
      calls = %{calls | number: calls.number + 10_000}
      seed = :rand.uniform(1_000_000_000)

      {pid, ref} =
        spawn_monitor(fn ->
          :rand.seed(:exsss, {seed, calls.id, calls.number})
          mortal_on(callers, calls)
        end)

      Process.sleep(:rand.uniform(60) - 1)
      Process.exit(pid, :kill)

      receive do
        {:DOWN, ^ref, _, _, :killed} -> count(callers, :caller, :killed)
        {:DOWN, ^ref, _, _, reason} -> violation(callers, "a caller ended: #{inspect(reason)}")
      end

      reap_on(callers, calls)
    end
  end

  defp mortal_on(callers, calls) do
    {calls, kind, verdict} = Calls.any(calls)
    tell(callers, kind, verdict)
    pause(verdict)
    mortal_on(callers, calls)
  end
end
