defmodule Ringbridge.Harness.Fallbacks do
  @moduledoc """
  The harness's checks of what happens when a worker or a bridge is lost, full, or wants no more: who waits is told or served by
  another, and what comes next is served again.
  """
  alias Ringbridge.{BeamWorkerLoop, Case, Error, Loopback}
  alias Ringbridge.Case.{Bridge, Wait}
  alias Ringbridge.Harness.{Buffers, Gate, Target}

  @patience_ms 60_000
  @deaths 10

  @doc "The worker of a running job is killed: its caller is told so, and the next job is done."
  @spec worker_dies(Target.t(), map()) :: {:ok, String.t()}
  def worker_dies(target, _settings) do
    for n <- 1..@deaths do
      {request, job} = held(target, [])
      Process.exit(loop_of(job), :kill)
      told!(Ringbridge.await(request), [:worker_crashed])
      Case.await_workers(target.name, :gate)
      Buffers.computed!(target, n, 100 + n)
    end

    {:ok, "#{@deaths} deaths, #{@deaths} callers told"}
  end

  # A job that runs: its request, and the process that runs it.
  defp held(target, options) do
    tag = make_ref()
    options = [{:timeout, @patience_ms} | options]
    request = Ringbridge.async(target.name, :gate, {:gate, self(), tag}, options)
    {request, reached(tag)}
  end

  defp reached(tag) do
    receive do
      {:at_gate, ^tag, job} -> job
    after
      @patience_ms -> raise "a job was not begun"
    end
  end

  # A handler's process knows whose it is, as one of proc_lib does.
  defp loop_of(job) do
    {:dictionary, dictionary} = Process.info(job, :dictionary)
    hd(dictionary[:"$ancestors"])
  end

  defp told!({:error, %Error{reason: reason}}, names) do
    unless Error.name(reason) in names,
      do: raise("#{inspect(reason)} instead of one of #{inspect(names)}")
  end

  defp told!(other, names), do: raise("#{inspect(other)} instead of one of #{inspect(names)}")

  @doc "Workers say that they want no jobs for now: jobs wait, and run when they want them again."
  @spec not_ready(Target.t(), map()) :: {:ok, String.t()}
  def not_ready(target, _settings) do
    loops = loops(target, :gate)
    for loop <- loops, do: :ok = BeamWorkerLoop.set_ready(loop, false)
    {request, tag} = waits(target, 100)
    for loop <- loops, do: :ok = BeamWorkerLoop.set_ready(loop, true)
    send(reached(tag), :open)
    {:ok, ^tag} = Ringbridge.await(request)
    {:ok, "a job waited for #{length(loops)} workers"}
  end

  # Nobody tells when a bridge has heard of it, so the first few jobs may still be begun.
  defp waits(_target, 0), do: raise("workers that want no jobs were given 100")

  defp waits(target, left) do
    tag = make_ref()
    request = Ringbridge.async(target.name, :gate, {:gate, self(), tag}, timeout: @patience_ms)
    if Ringbridge.yield(request, 100) != nil, do: raise("it was answered by nobody")

    receive do
      {:at_gate, ^tag, job} ->
        send(job, :open)
        {:ok, ^tag} = Ringbridge.await(request)
        waits(target, left - 1)
    after
      0 -> {request, tag}
    end
  end

  defp loops(%{kind: :loopback} = target, role), do: [Loopback.worker(target.name, role)]

  defp loops(target, role),
    do: for(at <- 0..(length(target.nodes) - 1), do: Target.worker(target, role, at))

  @doc """
  The nearest bridge is full: a call goes to the other one. Alone, a loopback refuses with the milliseconds after which it is worth to
  try again, and takes it when there is room.
  """
  @spec overloaded(Target.t(), map()) :: {:ok, String.t()}
  def overloaded(%{kind: :loopback} = target, _settings) do
    [to] = Target.dispatchers(target)
    running = Gate.fill(to, Target.slots())
    all = Target.slots() + Target.depth()
    asks = running ++ Gate.ask(to, all - length(running), :waiting)
    Gate.accepted!(to, all)
    answer = Ringbridge.call(target.name, :gate, {:gate, self(), :more})
    told!(answer, [:overloaded])
    {:error, error} = answer
    ms = Error.retry_after_ms(error)
    unless is_integer(ms), do: raise("it does not say when to try again")
    for {:error, reason} <- Gate.open(asks), do: raise("accepted, and then #{inspect(reason)}")
    {request, job} = held(target, [])
    send(job, :open)
    {:ok, _tag} = Ringbridge.await(request)
    {:ok, "refused for #{ms} ms, then taken"}
  end

  def overloaded(target, _settings) do
    {near, far} = near_and_far(target)
    to = {Ringbridge.JobDispatcher, near}
    asks = Gate.fill(to, Target.slots())
    # More than fit: which of them are refused is not asked.
    more = Gate.ask(to, 2 * Target.depth(), :waiting)
    Gate.accepted!(to, Target.slots() + Target.depth())
    more = until_refused(to, more)
    # A call: what async/4 has asked for goes elsewhere only when its answer is fetched.
    {home, tag} = {self(), make_ref()}
    task = Task.async(fn -> Ringbridge.call(target.name, :gate, {:gate, home, tag}) end)
    job = reached(tag)
    at!(job, target, far)
    send(job, :open)
    {:ok, ^tag} = Task.await(task, @patience_ms)
    _answers = Gate.open(asks ++ more)
    {:ok, "#{near} was full, #{far} took it"}
  end

  # How many jobs a worker holds beside the queue goes by how quick it has been.
  defp until_refused(to, asks) do
    [ask] = Gate.ask(to, 1, :waiting)

    case Gate.answered(ask) do
      nil -> until_refused(to, [ask | asks])
      {:error, {:overloaded, _}} -> asks
    end
  end

  @doc "Every worker of a role is drained at the nearest bridge: calls go to the other one."
  @spec drains(Target.t(), map()) :: {:ok, String.t()} | {:skipped, String.t()}
  def drains(%{kind: :loopback}, _settings), do: {:skipped, "a loopback has one bridge"}

  def drains(target, _settings) do
    {near, far} = near_and_far(target)
    registry = {Ringbridge.WorkerRegistry, near}
    {:ok, %{workers: workers}} = GenServer.call(registry, {:lookup, :compute})
    for %{id: id} <- workers, do: GenServer.call(registry, {:drain, id})
    for n <- 1..50, do: Buffers.computed!(target, n, 200)
    # Whichever bridge is killed in the end, the other one has all roles.
    Target.work_again(target, :compute, near)
    {:ok, "#{length(workers)} workers of #{near} drained, #{far} took 50 jobs"}
  end

  @doc """
  A bridge is killed with jobs under way: their callers are told at once; one whose job may run twice is served by the other bridge. What
  comes next is served.
  """
  @spec bridge_lost(Target.t(), map()) :: {:ok, String.t()}
  def bridge_lost(%{kind: :loopback} = target, _settings) do
    {request, _job} = held(target, [])
    Process.exit(Loopback.bridge(target.name), :kill)
    told!(Ringbridge.await(request), [:down])

    Wait.until("a job is done again", @patience_ms, fn ->
      match?({:ok, _}, Ringbridge.call(target.name, :echo, "again"))
    end)

    for n <- 1..20, do: Buffers.computed!(target, n, 300)
    {:ok, "its caller was told; it was back for the next"}
  end

  def bridge_lost(target, _settings) do
    {near, far} = near_and_far(target)
    {once, _job} = held(target, [])
    home = self()
    # The next one to reach this gate is the second run: it may end.
    keeper = spawn_link(fn -> keep(home) end)
    options = [timeout: @patience_ms, idempotent: true]
    again = Ringbridge.async(target.name, :gate, {:gate, keeper, :again}, options)
    receive do: (:at_gate -> :ok), after: (@patience_ms -> raise("a job was not begun"))
    pid = Process.whereis(:"#{near}.bridge")
    {_output, 0} = System.cmd("kill", ["-KILL", "#{Bridge.os_pid(pid)}"])
    told!(Ringbridge.await(once), [:down])
    {:ok, :again} = Ringbridge.await(again)
    for n <- 1..20, do: Buffers.computed!(target, n, 300)
    {:ok, "#{near} was killed; #{far} took what may run twice, and what came next"}
  end

  defp keep(home) do
    receive do: ({:at_gate, :again, _job} -> send(home, :at_gate))
    receive do: ({:at_gate, :again, job} -> send(job, :open))
  end

  # Where the next call goes, and where it does not.
  defp near_and_far(target) do
    {request, job} = held(target, [])
    at = Enum.find_index(loops(target, :gate), &(&1 == loop_of(job)))
    send(job, :open)
    {:ok, _tag} = Ringbridge.await(request)
    near = Enum.at(target.nodes, at)
    {near, hd(target.nodes -- [near])}
  end

  defp at!(job, target, node) do
    at = Enum.find_index(target.nodes, &(&1 == node))

    if Target.worker(target, :gate, at) != loop_of(job),
      do: raise("the job did not go to #{node}")
  end
end
