defmodule Ringbridge.Harness.Gate do
  @moduledoc """
  Jobs that are held until they are told to end, asked for by plain calls of a process each: what fills workers and queues to a count.
  """
  alias Ringbridge.Case.Wait

  @patience_ms 60_000

  @type ask :: {reference(), pid()}

  @doc "So many jobs, all of which run when it returns."
  @spec fill(GenServer.server(), pos_integer()) :: [ask()]
  def fill(to, count) do
    asks = ask(to, count, :running)

    for _ <- 1..count do
      receive do
        {:at_gate, :running, pid} -> send(self(), {:runs, pid})
      after
        @patience_ms -> raise "a gate was not reached"
      end
    end

    asks
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
