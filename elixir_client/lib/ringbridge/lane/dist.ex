defmodule Ringbridge.Lane.Dist do
  @moduledoc """
  The lane over the Erlang distribution: plain `GenServer` calls to the dispatcher on the bridge's node.

  The caller's monitor is its job's life (docs/cancel.md): who takes it back, or dies, cancels the job. The answer goes to
  the monitor's alias, so one that comes late comes to nobody. With `mode: :local` the same messages go to a
  `Ringbridge.LocalBridge`, by its pid.
  """
  @behaviour Ringbridge.Lane

  # The tag of a call by alias is such a list (gen.erl).
  @dialyzer :no_improper_lists

  alias Ringbridge.Lane.Parts

  # One function from the monitor to the receive: the compiler then lets the receive begin at the reference's making, and
  # a caller with a long mailbox does not search it.
  @impl Ringbridge.Lane
  def call(node, message, timeout), do: ask(dispatcher(node), message, timeout)

  @doc "The same call to another service of a bridge, `{name, node}`."
  @spec ask({atom(), node()}, term(), timeout()) :: Ringbridge.Lane.outcome() | :timeout
  def ask(to, message, timeout) do
    ref = :erlang.monitor(:process, to, alias: :reply_demonitor)
    hand(to, {:"$gen_call", {self(), [:alias | ref]}, message})

    receive do
      {[:alias | ^ref], answer} -> answered(ref, answer)
      {:DOWN, ^ref, _, _, reason} -> {:down, reason}
    after
      timeout ->
        case cancel(elem(to, 1), ref) do
          :ok -> :timeout
          outcome -> outcome
        end
    end
  rescue
    # From :erlang.monitor/3: distribution was stopped since the bridge was chosen.
    ArgumentError -> {:down, :noconnection}
  end

  @impl Ringbridge.Lane
  def submit(node, message) do
    to = dispatcher(node)
    ref = :erlang.monitor(:process, to, alias: :reply_demonitor)
    hand(to, {:"$gen_call", {self(), [:alias | ref]}, message})
    ref
  rescue
    ArgumentError -> lost(dispatcher(node))
  end

  # What the monitor would have said.
  defp lost(to) do
    ref = make_ref()
    send(self(), {:DOWN, ref, :process, to, :noconnection})
    ref
  end

  @impl Ringbridge.Lane
  def await(_node, ref, timeout) do
    receive do
      {[:alias | ^ref], answer} -> answered(ref, answer)
      {:DOWN, ^ref, _, _, reason} -> {:down, reason}
    after
      timeout -> :timeout
    end
  end

  @impl Ringbridge.Lane
  def cancel(node, ref) do
    # Takes alias and monitor back at once; the bridge hears of it and cancels.
    Process.demonitor(ref, [:flush])
    # No process hears of another's demonitor; the relay does, a LocalBridge has to be told.
    if is_pid(node), do: send(node, {:left, self(), ref})

    receive do
      {[:alias | ^ref], answer} -> {:answer, answer}
    after
      0 -> :ok
    end
  end

  @impl Ringbridge.Lane
  def check(_node, ref, {[:alias | ref], answer}), do: answered(ref, answer)
  def check(_node, ref, {:DOWN, ref, _, _, reason}), do: {:down, reason}
  def check(_node, _ref, _message), do: :other

  @impl Ringbridge.Lane
  def cast(node, message) do
    # An alias that is no more: the answer ends on this node. A plain tag would bring it into the mailbox.
    ref = :erlang.alias()
    :erlang.unalias(ref)

    case hand(dispatcher(node), {:"$gen_call", {self(), [:alias | ref]}, message}) do
      :ok -> :ok
      :noconnect -> {:down, :noconnection}
    end
  end

  @impl Ringbridge.Lane
  def parts(bridge, _job, _demand, _until_ms) when is_pid(bridge),
    do: [{:end, {:bad_request, "a local bridge has no streams"}}]

  def parts(node, job, demand, until_ms),
    do: Parts.stream({Ringbridge.Streams, node}, job, demand, until_ms)

  defp answered(ref, answer) do
    Process.demonitor(ref, [:flush])
    {:answer, answer}
  end

  # Over the connection that the monitor watches, or not at all: else a job whose caller has been told of the loss would go out over
  # the next one (gen.erl does the same).
  defp hand(to, message), do: Process.send(to, message, [:noconnect])

  # A pid is a LocalBridge's.
  defp dispatcher(bridge) when is_pid(bridge), do: bridge
  defp dispatcher(node), do: {Ringbridge.JobDispatcher, node}
end
