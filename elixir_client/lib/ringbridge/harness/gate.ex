defmodule Ringbridge.Harness.Gate do
  @moduledoc """
  Jobs that are held until they are told to end, asked for by plain calls of a process each: what fills workers and queues to a count.
  """
  alias Ringbridge.Case.Wait

  @patience_ms 60_000
  @again_ms 200

  @type ask :: {reference(), pid()}

  @doc """
  Jobs of which so many run when it returns. There may be more: a worker that has been quick is given several at once, and those behind
  the first one do not run.
  """
  @spec fill(GenServer.server(), pos_integer()) :: [ask()]
  def fill(to, count), do: fill(to, count, ask(to, count, :running), @patience_ms)

  defp fill(_to, 0, asks, _left_ms), do: asks

  defp fill(_to, count, _asks, left_ms) when left_ms <= 0,
    do: raise("#{count} workers more were to have a job under way")

  defp fill(to, count, asks, left_ms) do
    receive do
      {:at_gate, :running, pid} ->
        send(self(), {:runs, pid})
        fill(to, count - 1, asks, left_ms)
    after
      @again_ms -> fill(to, count, ask(to, 1, :running) ++ asks, left_ms - @again_ms)
    end
  end

  @doc "So many jobs, asked for by processes of their own."
  @spec ask(GenServer.server(), non_neg_integer(), atom()) :: [ask()]
  def ask(to, count, tag) do
    home = self()

    for _ <- 1..count//1 do
      ref = make_ref()

      pid =
        spawn(fn ->
          request = {:submit, :gate, {:gate, home, tag}, timeout: @patience_ms}
          send(home, {ref, GenServer.call(to, request, 2 * @patience_ms)})
        end)

      {ref, pid}
    end
  end

  @doc "Returns when so many jobs are in flight at the dispatcher."
  @spec accepted!(GenServer.server(), pos_integer()) :: :ok
  def accepted!(to, count) do
    Wait.until("#{count} jobs are accepted", @patience_ms, fn ->
      {:ok, stats} = GenServer.call(to, :stats)
      stats.in_flight >= count
    end)
  end

  @doc "The answer if there is one soon: a refusal comes at once."
  @spec answered(ask()) :: term() | nil
  def answered({ref, _pid}) do
    receive do
      {^ref, answer} -> answer
    after
      200 -> nil
    end
  end

  @doc "Lets every job end that comes to its gate, until all of `asks` are answered: their answers."
  @spec open([ask()]) :: [term()]
  def open(asks) do
    answers = open(Map.new(asks), %{})
    for {ref, _pid} <- asks, do: Map.fetch!(answers, ref)
  end

  defp open(asks, answers) when map_size(asks) == 0, do: answers

  defp open(asks, answers) do
    receive do
      {:runs, pid} ->
        send(pid, :open)
        open(asks, answers)

      {:at_gate, _tag, pid} ->
        send(pid, :open)
        open(asks, answers)

      {ref, answer} when is_map_key(asks, ref) ->
        open(Map.delete(asks, ref), Map.put(answers, ref, answer))
    after
      @patience_ms ->
        raise "#{map_size(asks)} jobs of #{map_size(answers) + map_size(asks)} have no answer"
    end
  end

  @doc "Ends the processes that asked, and what they would still say."
  @spec forget([ask()]) :: :ok
  def forget(asks) do
    for {ref, pid} <- asks do
      Process.exit(pid, :kill)

      receive do
        {^ref, _answer} -> :ok
      after
        0 -> :ok
      end
    end

    :ok
  end
end
