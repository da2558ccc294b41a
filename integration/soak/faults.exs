defmodule Ringbridge.Soak.Faults do
  @moduledoc "What goes wrong on purpose, all the while: workers die, jobs are cancelled by others."

  alias Ringbridge.Program
  alias Ringbridge.Soak.{Callers, Calls}

  @kill_every_ms 1_000
  @cancel_every_ms 60

  @doc "Processes that go on until the callers are told to stop."
  @spec start(Callers.t(), node()) :: [pid()]
  def start(callers, bridge) do
    [spawn(fn -> kill(callers, bridge) end), spawn(fn -> cancel(callers) end)]
  end

  # Every third death is a job that kills its own worker; the others come from outside, whatever the
  # worker is doing.
  defp kill(callers, bridge, number \\ 1) do
    Process.sleep(@kill_every_ms)

    unless Callers.stopping?(callers) do
      if rem(number, 3) == 0,
        do: die(callers),
        else: kill_one(callers, bridge, if(rem(number, 2) == 0, do: "SEGV", else: "KILL"))

      kill(callers, bridge, number + 1)
    end
  end

  defp die(callers) do
    calls = %Calls{target: callers.target, id: 0, may_lose: false, cuts: callers.cuts}

    case Calls.one(calls, :die) do
      {_calls, {:fine, label}} -> Callers.count(callers, :die, label)
      {_calls, {:wrong, why}} -> Callers.violation(callers, why)
    end
  end

  defp kill_one(callers, bridge, signal) do
    {:ok, workers} = GenServer.call({Ringbridge.WorkerRegistry, bridge}, :list, 30_000)

    case Enum.filter(workers, &(&1.state == :ready)) do
      [] ->
        :ok

      ready ->
        Program.kill(Enum.random(ready).os_pid, signal)
        Callers.count(callers, :worker, String.to_atom("sig" <> String.downcase(signal)))
    end
  end

  defp cancel(callers) do
    Process.sleep(@cancel_every_ms)

    unless Callers.stopping?(callers) do
      {:ok, jobs} = GenServer.call(callers.target, {:jobs, :all}, 30_000)
      if jobs != [], do: cancel_one(callers, Enum.random(jobs).job)
      cancel(callers)
    end
  end

  # Counted before it is asked for: its caller may be told before we are.
  defp cancel_one(callers, job) do
    Callers.count(callers, :cancel, :asked)

    case GenServer.call(callers.target, {:cancel, job}, 30_000) do
      :ok -> Callers.count(callers, :cancel, :done)
      {:error, :unknown_job} -> Callers.count(callers, :cancel, :unknown_job)
      other -> Callers.violation(callers, "{:cancel, #{job}} was answered #{inspect(other)}")
    end
  end
end
