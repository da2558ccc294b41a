defmodule Ringbridge.Lane.Parts do
  @moduledoc """
  A job's parts as an Enumerable: a consumer of docs/streams.md in a process of its own.

  The process stands between the bridge and the caller so that no part comes into the caller's mailbox unasked, and
  none after a stream was halted. It is not linked to the caller but watches it: when the caller ends, or halts the
  stream, it ends too, and the bridge stops the worker. At most `demand` parts wait in it.
  """
  use GenServer

  @enforce_keys [:producer, :ref, :owner]
  defstruct [:producer, :ref, :owner, :wanted, :ended, buffer: []]

  @doc "See `c:Ringbridge.Lane.parts/3`. Each enumeration is a job of its own."
  @spec stream(GenServer.server(), tuple(), pos_integer()) :: Enumerable.t()
  def stream(producer, job, demand) do
    Stream.resource(
      fn ->
        {:ok, pump} = GenServer.start(__MODULE__, {self(), producer, job, demand})
        pump
      end,
      &next/1,
      &stop/1
    )
  end

  defp next(:ended), do: {:halt, :ended}

  defp next(pump) do
    ref = :erlang.monitor(:process, pump, alias: :reply_demonitor)
    send(pump, {:next, ref})

    receive do
      {^ref, {:parts, _parts} = parts} -> {[parts], pump}
      {^ref, {:end, _reason} = ended} -> {[ended], :ended}
      {:DOWN, ^ref, _, _, reason} -> {[{:end, {:down, reason}}], :ended}
    end
  end

  defp stop(:ended), do: :ok
  defp stop(pump), do: send(pump, :halted)

  @impl GenServer
  def init({owner, producer, job, demand}) do
    ref = Process.monitor(producer)
    state = %__MODULE__{producer: producer, ref: ref, owner: Process.monitor(owner)}
    say(state, {:subscribe, nil, [job: job, max_demand: demand, cancel: :transient]})
    say(state, {:ask, demand})
    {:ok, state}
  end

  @impl GenServer
  def handle_info({:next, wanted}, state), do: serve(%{state | wanted: wanted})

  def handle_info({:"$gen_consumer", {_pid, ref}, parts}, %{ref: ref} = state)
      when is_list(parts) do
    serve(%{state | buffer: [parts | state.buffer]})
  end

  def handle_info({:"$gen_consumer", {_pid, ref}, {:cancel, reason}}, %{ref: ref} = state) do
    serve(%{state | ended: {:end, reason}})
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
