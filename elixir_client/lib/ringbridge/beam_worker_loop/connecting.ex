defmodule Ringbridge.BeamWorkerLoop.Connecting do
  @moduledoc false
  # One try to connect with the bridge's node, in a process of its own: the function is the user's, and may raise, be
  # killed or never return. However it goes, the loop hears one DOWN of `monitor`.

  @enforce_keys [:pid, :monitor, :timer]
  defstruct [:pid, :monitor, :timer]

  @type t :: %__MODULE__{pid: pid(), monitor: reference(), timer: :timer.tref()}

  @spec start((node() -> term()), node(), pos_integer()) :: t()
  def start(connect, node, within_ms) do
    {pid, monitor} = spawn_monitor(fn -> exit({:shutdown, {:connected, connect.(node)}}) end)
    # Ends it, too, should the loop itself have been killed.
    {:ok, timer} = :timer.kill_after(within_ms, pid)
    %__MODULE__{pid: pid, monitor: monitor, timer: timer}
  end

  @doc "What the reason of its DOWN says."
  @spec connected?(t(), term()) :: boolean()
  def connected?(its, reason) do
    :timer.cancel(its.timer)
    reason == {:shutdown, {:connected, true}}
  end

  @spec stop(t() | nil) :: :ok
  def stop(nil), do: :ok

  def stop(its) do
    Process.demonitor(its.monitor, [:flush])
    :timer.cancel(its.timer)
    Process.exit(its.pid, :kill)
    :ok
  end
end
