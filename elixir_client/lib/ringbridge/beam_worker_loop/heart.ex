defmodule Ringbridge.BeamWorkerLoop.Heart do
  @moduledoc false
  # Beats for a loop, in a process of its own: whatever the loop and its jobs do, the bridge hears that this node lives.
  alias Ringbridge.BeamWorkerLoop.Desk

  @spec start_link(pid(), pos_integer(), boolean()) :: pid()
  def start_link(desk, every_ms, ready?) do
    spawn_link(fn ->
      beat(desk, ready?)
      run(desk, every_ms, ready?)
    end)
  end

  @doc "Told to the bridge at once."
  @spec set_ready(pid(), boolean()) :: :ok
  def set_ready(heart, ready?) do
    send(heart, {:set_ready, ready?})
    :ok
  end

  @spec stop(pid()) :: :ok
  def stop(heart) do
    Process.unlink(heart)
    Process.exit(heart, :kill)
    :ok
  end

  defp run(desk, every_ms, ready?) do
    receive do
      {:set_ready, ready?} ->
        beat(desk, ready?)
        run(desk, every_ms, ready?)
    after
      every_ms ->
        beat(desk, ready?)
        run(desk, every_ms, ready?)
    end
  end

  defp beat(desk, ready?), do: Desk.say(desk, :heartbeat, %{ready: ready?})
end
