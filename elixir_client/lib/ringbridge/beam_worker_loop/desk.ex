defmodule Ringbridge.BeamWorkerLoop.Desk do
  @moduledoc false
  # Says things to the bridge's end of a loop, its desk: {:ringbridge_worker, kind, said} and, with a payload, one more
  # (docs/remote-workers.md). Nothing here connects by itself, or waits for a connection: a loop does that in its own time.
  alias Ringbridge.BeamWorkerLoop.State

  @doc """
  To the desk of a loop that has one. Only ever from the loop's process, so that what it says of a slot arrives in its order.
  """
  @spec tell(State.t(), atom(), map()) :: :ok | :noconnect
  def tell(%{desk: desk}, kind, said) when is_pid(desk), do: say(desk, kind, said)

  @spec tell(State.t(), atom(), map(), {:raw | :term, binary()}) :: :ok | :noconnect
  def tell(%{desk: desk}, kind, said, payload) when is_pid(desk),
    do: post(desk, {:ringbridge_worker, kind, said, payload})

  @doc "To whoever is to hear it: the name that a loop greets, or a desk from a process beside the loop."
  @spec say(pid() | {atom(), node()}, atom(), map()) :: :ok | :noconnect
  def say(whom, kind, said), do: post(whom, {:ringbridge_worker, kind, said})

  # Without :nosuspend the answer is :ok or :noconnect.
  defp post(whom, message), do: :erlang.send(whom, message, [:noconnect])
end
