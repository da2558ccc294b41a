defmodule Ringbridge.Server.Watcher do
  @moduledoc """
  Sees that a bridge without an owner ends, and says when it has.

  The shepherd covers the VM's death, this process the owner's: when the owner ends, its port closes, and the shepherd ends the
  bridge. Should it not be able to (somebody has stopped it), nothing else in a living VM would: this process wakes it after a while, and
  later kills it, with which the kernel kills the bridge. Both ways may be gone twice, and by both: they signal only what is still
  there.

  A new owner asks here first (`clear/1`), so the next life begins when the last has ended: two bridges cannot hold one name.

  What lives is written in the server's table by the owner, so a watcher that was itself killed knows it again.
  """
  use GenServer

  require Logger

  alias Ringbridge.Server
  alias Ringbridge.Server.OsProcess

  @look_ms 20

  # The shepherd gives half a second of grace and kills (port_protocol.h): a second past that something is wrong with it.
  @wake_after_ms 1_500
  @kill_after_ms 3_000

  defstruct [:name, :owner, :since_ms, :asker, life: [], helped: nil, timer: nil]

  @doc "One for a server, beside its owner."
  @spec start_link(Server.t()) :: GenServer.on_start()
  def start_link(server) do
    GenServer.start_link(__MODULE__, server.name, name: registered(server.name))
  end

  @doc """
  Called by a new owner: returns when nothing of the life before is left, and watches the caller from then on. Exits as
  `GenServer.call/3` does: an owner without a watcher does not start.
  """
  @spec clear(Server.name()) :: :ok
  def clear(name), do: GenServer.call(registered(name), :clear, :infinity)

  @doc "Told by the owner: who lives by its port. The table is for a watcher that comes later."
  @spec note(Server.name(), [OsProcess.t()]) :: :ok
  def note(name, life) do
    :ets.insert(name, {:life, self(), life})
    GenServer.cast(registered(name), {:life, self(), life})
  end

  @impl GenServer
  def init(name) do
    # So that terminate/2 runs: the end of the tree is the last chance to look.
    Process.flag(:trap_exit, true)

    case :ets.lookup(name, :life) do
      [{:life, owner, life}] -> {:ok, watch(%__MODULE__{name: name, life: life}, owner)}
      [] -> {:ok, %__MODULE__{name: name}}
    end
  end

  @impl GenServer
  def handle_call(:clear, from, state) do
    {:noreply, look(%{state | asker: from, since_ms: state.since_ms || now_ms()})}
  end

  @impl GenServer
  def handle_cast({:life, owner, life}, state),
    do: {:noreply, watch(%{state | life: life}, owner)}

  @impl GenServer
  def handle_info({:DOWN, ref, :process, _pid, _reason}, %{owner: {_owner, ref}} = state) do
    {:noreply, look(%{state | owner: nil, since_ms: now_ms()})}
  end

  def handle_info(:look, state), do: {:noreply, look(%{state | timer: nil})}
  def handle_info(_other, state), do: {:noreply, state}

  # The owner ends before us, unless the supervisor itself was killed: then it is ending the bridge now, and what it leaves
  # is ours.
  @impl GenServer
  def terminate(_reason, state) do
    with {_owner, ref} <- state.owner do
      receive do
        {:DOWN, ^ref, :process, _pid, _reason} -> :ok
      end
    end

    finish(%{state | since_ms: now_ms()})
  end

  defp finish(state) do
    if left(state) != [] do
      Process.sleep(@look_ms)
      state |> help() |> finish()
    end
  end

  # One look after the other as long as something is left that should not be.
  defp look(%{since_ms: nil} = state), do: state

  defp look(state) do
    if left(state) == [] do
      state = %{state | life: [], since_ms: nil, helped: nil}
      if state.asker, do: cleared(state), else: state
    else
      state = help(state)
      %{state | timer: state.timer || Process.send_after(self(), :look, @look_ms)}
    end
  end

  defp cleared(%{asker: {pid, _tag} = asker} = state) do
    GenServer.reply(asker, :ok)
    watch(%{state | asker: nil}, pid)
  end

  defp watch(%{owner: {owner, _ref}} = state, owner), do: state

  defp watch(state, owner) do
    with {_other, ref} <- state.owner, do: Process.demonitor(ref, [:flush])
    %{state | owner: {owner, Process.monitor(owner)}}
  end

  defp help(state) do
    waited_ms = now_ms() - state.since_ms

    cond do
      waited_ms > @kill_after_ms and state.helped != :killed -> signal(state, "KILL", :killed)
      waited_ms > @wake_after_ms and state.helped == nil -> signal(state, "CONT", :woken)
      true -> state
    end
  end

  defp signal(state, signal, helped) do
    for process <- left(state) do
      Logger.warning(
        "#{inspect(state.name)}: process #{process.os_pid} of a bridge without an owner is still there; sending SIG#{signal}"
      )

      OsProcess.signal(process, signal)
    end

    %{state | helped: helped}
  end

  defp left(state), do: Enum.filter(state.life, &OsProcess.alive?/1)
  defp registered(name), do: Module.concat(name, Watcher)
  defp now_ms, do: System.monotonic_time(:millisecond)
end
