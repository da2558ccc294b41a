defmodule Ringbridge.Lane.Parts do
  @moduledoc """
  A job's parts as an Enumerable: a consumer of docs/streams.md in a process of its own.

  The process stands between the bridge and the caller so that no part comes into the caller's mailbox unasked, and
  none after a stream was halted. It is not linked to the caller but watches it: when the caller ends, or halts the
  stream, it ends too, and the bridge stops the worker. At most `demand` parts wait in it. It keeps the deadline, too: parts that
  have come by then are given also to a consumer that was slower.
  """
  use GenServer

  alias Ringbridge.Deadline

  # How long the pump may take to answer after its deadline. It is of this VM; but what it sends to a bridge that stands
  # still may suspend it.
  @pump_ms 1_000

  @enforce_keys [:producer, :owner]
  defstruct [:producer, :ref, :owner, :wanted, :ended, buffer: []]

  @doc "See `c:Ringbridge.Lane.parts/3`. Each enumeration is a job of its own."
  @spec stream(GenServer.server(), tuple(), pos_integer(), Deadline.t()) :: Enumerable.t()
  def stream(producer, job, demand, until_ms) do
    Stream.resource(
      fn ->
        {:ok, pump} = GenServer.start(__MODULE__, {self(), producer, job, demand, until_ms})
        {pump, until_ms}
      end,
      &next/1,
      &stop/1
    )
  end

  defp next(:ended), do: {:halt, :ended}

  defp next({pump, until_ms} = state) do
    ref = :erlang.monitor(:process, pump, alias: :reply_demonitor)
    send(pump, {:next, ref})

    receive do
      {^ref, {:parts, _parts} = parts} -> {[parts], state}
      {^ref, {:end, _reason} = ended} -> {[ended], :ended}
      {:DOWN, ^ref, _, _, reason} -> {[{:end, {:down, reason}}], :ended}
    after
      max(Deadline.left(until_ms), @pump_ms) -> give_up(pump, ref)
    end
  end

  defp give_up(pump, ref) do
    Process.demonitor(ref, [:flush])
    Process.exit(pump, :kill)

    receive do
      {^ref, _late} -> {[{:end, :timeout}], :ended}
    after
      0 -> {[{:end, :timeout}], :ended}
    end
  end

  defp stop(:ended), do: :ok
  defp stop({pump, _until_ms}), do: send(pump, :halted)

  # What may suspend it comes after its start, which the consumer waits for without an end.
  @impl GenServer
  def init({owner, producer, job, demand, until_ms}) do
    if until_ms != :infinity, do: Process.send_after(self(), :late, Deadline.left(until_ms))
    state = %__MODULE__{producer: producer, owner: Process.monitor(owner)}
    {:ok, state, {:continue, {:subscribe, job, demand}}}
  end

  @impl GenServer
  def handle_continue({:subscribe, job, demand}, state) do
    state = %{state | ref: Process.monitor(state.producer)}
    say(state, {:subscribe, nil, [job: job, max_demand: demand, cancel: :transient]})
    say(state, {:ask, demand})
    {:noreply, state}
  end

  @impl GenServer
  def handle_info({:next, wanted}, state), do: serve(%{state | wanted: wanted})

  def handle_info({:"$gen_consumer", {_pid, ref}, parts}, %{ref: ref, ended: nil} = state)
      when is_list(parts) do
    serve(%{state | buffer: [parts | state.buffer]})
  end

  def handle_info(
        {:"$gen_consumer", {_pid, ref}, {:cancel, reason}},
        %{ref: ref, ended: nil} = state
      ) do
    serve(%{state | ended: {:end, reason}})
  end

  # The consumer is told first.
  def handle_info(:late, %{ended: nil} = state) do
    outcome = serve(%{state | ended: {:end, :timeout}})
    say(state, {:cancel, :normal})
    outcome
  end

  # After the bridge's own cancel the end is known already.
  def handle_info({:DOWN, ref, _, _, reason}, %{ref: ref, ended: nil} = state) do
    serve(%{state | ended: {:end, {:down, reason}}})
  end

  def handle_info({:DOWN, owner, _, _, _}, %{owner: owner} = state), do: leave(state)
  def handle_info(:halted, state), do: leave(state)
  def handle_info(_other, state), do: {:noreply, state}

  defp serve(%{wanted: nil} = state), do: {:noreply, state}

  defp serve(%{buffer: [_ | _]} = state) do
    parts = state.buffer |> Enum.reverse() |> Enum.concat()
    send(state.wanted, {state.wanted, {:parts, parts}})
    if state.ended == nil, do: say(state, {:ask, length(parts)})
    {:noreply, %{state | buffer: [], wanted: nil}}
  end

  defp serve(%{ended: nil} = state), do: {:noreply, state}

  defp serve(state) do
    send(state.wanted, {state.wanted, state.ended})
    {:stop, :normal, state}
  end

  defp leave(state) do
    if state.ended == nil, do: say(state, {:cancel, :normal})
    {:stop, :normal, state}
  end

  defp say(state, what), do: send(state.producer, {:"$gen_producer", {self(), state.ref}, what})
end
