defmodule Ringbridge.Soak.Faults do
  @moduledoc "What goes wrong on purpose, all the while: workers die and hang, jobs are cancelled by others."

  alias Ringbridge.{Proc, Program}
  alias Ringbridge.Soak.{Callers, Calls, Judge, Settings}

  @kill_every_ms 1_000
  @stand_every_ms 4_000
  @cancel_every_ms 60

  # The bridge's hang_ms is 2,000. It counts from the look that saw a beat to the look that sees the next, and a beat
  # is due every 500 ms: a stand of up to 1,000 ms is 1,500 to it. Drawn shorter still, since a busy machine draws it
  # out; by how much is measured.
  @short_ms 500
  @short_ms_most 1_000
  # It has ended a hung worker within 3,000 ms. Whoever stands for so long has been forgotten.
  @patience_ms 30_000

  @doc "Processes that go on until the callers are told to stop."
  @spec start(Callers.t(), node()) :: [pid()]
  def start(callers, bridge) do
    for {fault, number} <- Enum.with_index([&kill/3, &stand/3, &cancel/3]) do
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

  # Workers stand still. For a short while, which is nobody's business; or for good, until the bridge finds out.
  defp stand(callers, bridge, number) do
    Process.sleep(@stand_every_ms)

    unless Callers.stopping?(callers) do
      if rem(number, 2) == 0,
        do: stand_long(callers, bridge, number),
        else: stand_short(callers, bridge, number)

      stand(callers, bridge, number + 1)
    end
  end

  # It goes on, or is killed as it stands.
  defp stand_short(callers, bridge, number) do
    with worker when worker != nil <- any_worker(bridge, Map.keys(Settings.workers())) do
      ms = :rand.uniform(@short_ms)
      Callers.move(callers, "worker #{worker.id} of #{worker.role} stands for #{ms} ms")
      began = now_ms()
      Program.kill(worker.os_pid, "STOP")
      Callers.count(callers, :worker, :sigstop)
      Process.sleep(ms)
      Program.kill(worker.os_pid, if(rem(number, 3) == 0, do: "KILL", else: "CONT"))
      if now_ms() - began > @short_ms_most, do: Callers.stands_long(callers, worker.id)
    end
  end

  # With a job of ours, which nobody else cancels. When it had begun it is told that its worker hung; when it had not
  # it moves to another worker; unless something else ends the worker first.
  defp stand_long(callers, bridge, number) do
    monitor = Process.monitor(callers.target)
    meta = %{stand: number}
    request = {:submit_async, :sleep, "#{2 * @patience_ms}", %{timeout: 60_000, meta: meta}}

    with {:ok, ref} <- GenServer.call(callers.target, request, 30_000),
         wait = %{ref: ref, monitor: monitor, meta: meta},
         {:stands, worker} <- stop_its_worker(callers, bridge, wait, nil) do
      how = found(callers, wait, worker, now_ms() + @patience_ms)
      Callers.count(callers, :stand, how)
      if Proc.stopped?(worker.os_pid), do: Program.kill(worker.os_pid, "KILL")
    else
      {:error, reason} -> Callers.count(callers, :stand, not_begun(callers, reason))
    end

    Process.demonitor(monitor, [:flush])
  end

  defp not_begun(callers, reason) do
    case Judge.reason(reason) do
      {:wrong, why} ->
        Callers.violation(callers, "a job that waits for a worker: #{why}") && :wrong

      label ->
        label
    end
  end

  # Where it is twice in half a second it has most likely begun: whatever ran before it there is short, or was cancelled.
  defp stop_its_worker(callers, bridge, wait, before) do
    case answer(callers, wait, 500) do
      %{state: :placed, worker: ^before} = job ->
        worker = Enum.find(workers(bridge), &(&1.id == job.worker))
        if worker, do: stop(callers, worker), else: stop_its_worker(callers, bridge, wait, nil)

      {:error, reason} ->
        {:error, reason}

      job ->
        stop_its_worker(callers, bridge, wait, job[:worker])
    end
  end

  defp stop(callers, worker) do
    Callers.move(callers, "worker #{worker.id} of sleep stands until it is found")
    Callers.stands_long(callers, worker.id)
    Program.kill(worker.os_pid, "STOP")
    Callers.count(callers, :worker, :sigstop)
    {:stands, worker}
  end

  defp found(callers, wait, worker, until) do
    %{id: id} = worker

    case answer(callers, wait, 20) do
      {:error, reason} ->
        not_begun(callers, reason)

      %{state: :placed, worker: ^id} ->
        if now_ms() < until do
          found(callers, wait, worker, until)
        else
          Callers.violation(callers, "worker #{id} stands for #{@patience_ms} ms: nobody ends it")
          :forgotten
        end

      nil ->
        found(callers, wait, worker, until)

      _moved ->
        GenServer.call(callers.target, {:cancel, wait.ref}, 30_000)
        {:error, _cancelled} = answer(callers, wait, @patience_ms)
        :moved
    end
  end

  # Of the job: the answer, if it comes within `ms`, or where it is; nil: an answer is on its way.
  defp answer(callers, %{ref: ref, monitor: monitor, meta: meta}, ms) do
    receive do
      {:ringbridge, ^ref, answer} -> answer
      {:DOWN, ^monitor, _, _, reason} -> raise "the bridge is gone: #{inspect(reason)}"
    after
      ms ->
        {:ok, jobs} = GenServer.call(callers.target, {:jobs, :sleep}, 30_000)
        Enum.find(jobs, &(&1[:meta] == meta))
    end
  end

  # One that has something to lose, if there is any, three times of four.
  defp any_worker(bridge, roles) do
    ready = Enum.filter(workers(bridge), &(&1.state == :ready and &1.role in roles))
    busy = Enum.filter(ready, &(&1.in_flight > 0))

    cond do
      busy != [] and :rand.uniform(4) > 1 -> Enum.random(busy)
      ready != [] -> Enum.random(ready)
      true -> nil
    end
  end

  defp workers(bridge) do
    {:ok, workers} = GenServer.call({Ringbridge.WorkerRegistry, bridge}, :list, 30_000)
    workers
  end

  defp cancel(callers, bridge, number) do
    Process.sleep(@cancel_every_ms)

    unless Callers.stopping?(callers) do
      {:ok, jobs} = GenServer.call(callers.target, {:jobs, :all}, 30_000)
      jobs = Enum.reject(jobs, &match?(%{meta: %{stand: _}}, &1))
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

  defp now_ms, do: System.monotonic_time(:millisecond)
end
