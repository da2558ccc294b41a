defmodule Ringbridge.Soak.Faults do
  @moduledoc "What goes wrong on purpose, all the while: workers die and hang, jobs are cancelled by others."

  alias Ringbridge.Program
  alias Ringbridge.Soak.{Callers, Calls, Settings}

  @kill_every_ms 1_000
  @hang_every_ms 4_000
  @hang_ms 2_500
  @cancel_every_ms 60

  @doc "Processes that go on until the callers are told to stop."
  @spec start(Callers.t(), node()) :: [pid()]
  def start(callers, bridge) do
    for {fault, number} <- Enum.with_index([&kill/3, &hang/3, &cancel/3]) do
      spawn(fn ->
        :rand.seed(:exsss, {callers.seed, -1, number})
        fault.(callers, bridge, 1)
      end)
    end
  end

  # Every third death is a job that kills its own worker; the others come from outside, whatever the
  # worker is doing.
  defp kill(callers, bridge, number) do
    Process.sleep(@kill_every_ms)

    unless Callers.stopping?(callers) do
      if rem(number, 3) == 0,
        do: die(callers),
        else: kill_one(callers, bridge, number)

      kill(callers, bridge, number + 1)
    end
  end

  defp die(callers) do
    calls = %Calls{target: callers.target, id: 0, may_lose: false, cuts: callers.cuts}
    Callers.move(callers, "a job that dies by SIGSEGV")

    case Calls.one(calls, :die) do
      {_calls, {:fine, label}} -> Callers.count(callers, :die, label)
      {_calls, {:wrong, why}} -> Callers.violation(callers, why)
    end
  end

  # One in four is of the role whose jobs must outlive it.
  defp kill_one(callers, bridge, number) do
    signal = if rem(number, 2) == 0, do: "SEGV", else: "KILL"
    roles = if rem(number, 4) == 1, do: [:again], else: Map.keys(Settings.workers())

    with worker when worker != nil <- any_worker(bridge, roles) do
      Callers.move(callers, "SIG#{signal} to worker #{worker.id} of #{worker.role}")
      Program.kill(worker.os_pid, signal)
      Callers.count(callers, :worker, String.to_atom("sig" <> String.downcase(signal)))
    end
  end

  # A worker stands still; its jobs reach their deadlines, or it goes on, or it is killed as it stands.
  defp hang(callers, bridge, number) do
    Process.sleep(@hang_every_ms)

    with false <- Callers.stopping?(callers),
         worker when worker != nil <- any_worker(bridge, Map.keys(Settings.workers())) do
      ms = :rand.uniform(@hang_ms)
      Callers.move(callers, "worker #{worker.id} of #{worker.role} stands for #{ms} ms")
      Program.kill(worker.os_pid, "STOP")
      Callers.count(callers, :worker, :sigstop)
      Process.sleep(ms)
      Program.kill(worker.os_pid, if(rem(number, 3) == 0, do: "KILL", else: "CONT"))
    end

    unless Callers.stopping?(callers), do: hang(callers, bridge, number + 1)
  end

  # One that has something to lose, if there is any, three times of four.
  defp any_worker(bridge, roles) do
    {:ok, workers} = GenServer.call({Ringbridge.WorkerRegistry, bridge}, :list, 30_000)
    ready = Enum.filter(workers, &(&1.state == :ready and &1.role in roles))
    busy = Enum.filter(ready, &(&1.in_flight > 0))

    cond do
      busy != [] and :rand.uniform(4) > 1 -> Enum.random(busy)
      ready != [] -> Enum.random(ready)
      true -> nil
    end
  end

  defp cancel(callers, bridge, number) do
    Process.sleep(@cancel_every_ms)

    unless Callers.stopping?(callers) do
      {:ok, jobs} = GenServer.call(callers.target, {:jobs, :all}, 30_000)
      if jobs != [], do: cancel_one(callers, Enum.random(jobs).job)
      cancel(callers, bridge, number)
    end
  end

  # Counted before it is asked for: its caller may be told before we are.
  defp cancel_one(callers, job) do
    Callers.count(callers, :cancel, :asked)
    {:ok, _} = status(callers, job)

    case GenServer.call(callers.target, {:cancel, job}, 30_000) do
      :ok -> Callers.count(callers, :cancel, :done)
      {:error, :unknown_job} -> Callers.count(callers, :cancel, :unknown_job)
      other -> Callers.violation(callers, "{:cancel, #{job}} was answered #{inspect(other)}")
    end
  end

  defp status(callers, job) do
    case GenServer.call(callers.target, {:status, job}, 30_000) do
      {:ok, %{job: ^job} = status} -> {:ok, status}
      {:error, :unknown_job} -> {:ok, nil}
      other -> Callers.violation(callers, "{:status, #{job}} was answered #{inspect(other)}")
    end
  end
end
