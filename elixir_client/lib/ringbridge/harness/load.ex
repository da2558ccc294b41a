defmodule Ringbridge.Harness.Load do
  @moduledoc """
  The harness's callers of all kinds at once, while workers are killed: each answer is its caller's own, whole, or one of the reasons
  that there may be.
  """
  alias Ringbridge.Error
  alias Ringbridge.Harness.{Payload, Target}

  @callers 8
  @kill_every_ms 150
  @tell_every_ms 1_000

  # What a computation may be told instead: its worker was killed, or there is too much. Everything else is wrong.
  @allowed [:worker_crashed, :overloaded, :no_worker]

  @doc "Runs for `load_ms` of the settings."
  @spec run(Target.t(), map()) :: {:ok, String.t()}
  def run(target, settings) do
    counts = :ets.new(__MODULE__, [:public, :set, write_concurrency: true])
    until = now() + settings.load_ms

    callers =
      for n <- 1..@callers do
        {pid, monitor} = spawn_monitor(fn -> caller(target, settings.seed, n, until, counts) end)
        {monitor, pid}
      end

    watch(target, Map.new(callers), settings, now() + @tell_every_ms, now(), until, counts)
    # Those who gave up, or died, had theirs ended: nothing of them runs on.
    Ringbridge.Harness.settled!("no job is in flight", fn ->
      Target.books(target).in_flight == 0
    end)

    seen = Map.new(:ets.tab2list(counts))
    if Map.get(seen, :ok, 0) == 0, do: raise("no call was answered well")
    {:ok, told(seen)}
  end

  defp watch(_target, callers, _settings, _tell, _began, _until, _counts)
       when map_size(callers) == 0,
       do: :ok

  defp watch(target, callers, settings, tell, began, until, counts) do
    receive do
      {:DOWN, monitor, :process, _pid, :normal} when is_map_key(callers, monitor) ->
        watch(target, Map.delete(callers, monitor), settings, tell, began, until, counts)

      {:DOWN, monitor, :process, _pid, reason} when is_map_key(callers, monitor) ->
        for {_monitor, pid} <- callers, do: Process.exit(pid, :kill)
        raise "a caller: #{Exception.format_exit(reason)}"
    after
      @kill_every_ms ->
        if now() < until, do: crash(target, counts)
        tell = progress(tell, began, settings, counts)
        watch(target, callers, settings, tell, began, until, counts)
    end
  end

  defp crash(target, counts) do
    role = Enum.random([:compute, :gate])
    at = if target.kind == :bridge, do: :rand.uniform(2) - 1, else: 0

    with pid when is_pid(pid) <- Target.worker(target, role, at) do
      Process.exit(pid, :kill)
      count(counts, :workers_killed)
    end
  end

  defp progress(tell, began, settings, counts) do
    if now() >= tell do
      settings.say.("  #{div(now() - began, 1_000)} s: #{told(Map.new(:ets.tab2list(counts)))}")
      now() + @tell_every_ms
    else
      tell
    end
  end

  defp told(seen) do
    seen
    |> Enum.sort()
    |> Enum.map_join(", ", fn {what, count} -> "#{what} #{count}" end)
  end

  # ---- a caller

  defp caller(target, seed, n, until, counts) do
    :rand.seed(:exsss, {seed, n, 1})
    turn(target, n * 1_000_000_000, until, counts)
  end

  defp turn(target, number, until, counts) do
    if now() < until do
      one(target, kind(:rand.uniform(20)), number, counts)
      turn(target, number + 1, until, counts)
    end
  end

  defp kind(n) when n <= 13, do: :compute
  defp kind(n) when n <= 15, do: :echo
  defp kind(16), do: :late
  defp kind(17), do: :gives_up
  defp kind(18), do: :dies
  defp kind(19), do: :asks_later
  defp kind(20), do: :large

  defp one(target, :compute, number, counts), do: computed(target, number, size(), counts)
  defp one(target, :large, number, counts), do: computed(target, number, 262_144, counts)

  defp one(target, :echo, number, counts) do
    term = {number, self(), Payload.new(number, 64)}

    case Ringbridge.call(target.name, :echo, term) do
      {:ok, ^term} -> count(counts, :ok)
      other -> allowed!(other, [:overloaded], counts)
    end
  end

  # Its deadline passes while it is held, or waits.
  defp one(target, :late, _number, counts) do
    answer = Ringbridge.call(target.name, :gate, {:gate, gatekeeper(), :late}, timeout: 20)
    allowed!(answer, [:deadline_exceeded, :timeout | @allowed], counts)
  end

  defp one(target, :gives_up, _number, counts) do
    request = Ringbridge.async(target.name, :gate, {:gate, gatekeeper(), :given_up})
    answer = Ringbridge.yield(request, :rand.uniform(10))
    answer = answer || Ringbridge.shutdown(request)
    if answer, do: allowed!(answer, @allowed, counts), else: count(counts, :gave_up)
  end

  defp one(target, :dies, _number, counts) do
    keeper = gatekeeper()

    {pid, monitor} =
      spawn_monitor(fn -> Ringbridge.call(target.name, :gate, {:gate, keeper, :dead}) end)

    Process.sleep(:rand.uniform(5))
    Process.exit(pid, :kill)
    receive do: ({:DOWN, ^monitor, :process, ^pid, _reason} -> count(counts, :died))
  end

  defp one(target, :asks_later, number, counts) do
    size = size()
    request = Ringbridge.async(target.name, :compute, Payload.new(number, size))
    checked!(Ringbridge.await(request), number, size, counts)
  end

  # Whoever is told of a gate and opens none: the jobs there end with their callers or their time. Not the caller: what comes to it
  # stays in its mailbox.
  defp gatekeeper do
    with nil <- Process.get(:gatekeeper) do
      caller = self()

      pid =
        spawn(fn ->
          monitor = Process.monitor(caller)
          swallow(monitor)
        end)

      Process.put(:gatekeeper, pid)
      pid
    end
  end

  defp swallow(monitor) do
    receive do
      {:DOWN, ^monitor, _, _, _} -> :ok
      _gate -> swallow(monitor)
    end
  end

  # Small ones mostly, now and then up to 64 KiB.
  defp size, do: Payload.head_bytes() + :rand.uniform(Integer.pow(2, 2 + :rand.uniform(14)))

  defp computed(target, number, size, counts) do
    target.name
    |> Ringbridge.call(:compute, Payload.new(number, size))
    |> checked!(number, size, counts)
  end

  defp checked!({:ok, answer}, number, size, counts) do
    case Payload.check(answer, number, size) do
      :ok -> count(counts, :ok)
      why -> raise "the answer to #{number}, of #{size} bytes, #{why}"
    end
  end

  defp checked!(error, _number, _size, counts), do: allowed!(error, @allowed, counts)

  defp allowed!({:error, %Error{reason: reason}}, names, counts) do
    name = Error.name(reason)
    unless name in names, do: raise("#{inspect(reason)}, which there was no cause for")
    count(counts, name)
  end

  defp allowed!(other, _names, _counts), do: raise("it was answered #{inspect(other, limit: 10)}")

  defp count(counts, what), do: :ets.update_counter(counts, what, 1, {what, 0})
  defp now, do: System.monotonic_time(:millisecond)
end
