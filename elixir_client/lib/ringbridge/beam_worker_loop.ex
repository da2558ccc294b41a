defmodule Ringbridge.BeamWorkerLoop do
  @moduledoc """
  A worker in pure Elixir: a process that takes a role's jobs from a bridge and runs them on this node.

      defmodule MyApp.Reports do
        @behaviour Ringbridge.BeamWorkerLoop

        @impl true
        def handle_job(job, _state), do: {:ok, MyApp.render(job.payload)}
      end

      children = [
        {Ringbridge.BeamWorkerLoop,
         bridge: :"bridge@10.0.0.5", role: "reports", module: MyApp.Reports, slots: 4}
      ]

  The bridge's settings must let this node serve the role: `[roles.reports.remote] nodes = ["app*@10.0.0.?"]`. Callers
  notice nothing; they submit to the role as always.

  Each job runs in a process of its own: a crash is that job's failure (code 65282, with the exception's text), and a job
  that nobody waits for any more is ended at once, or with `:cancel_ms` after so many milliseconds in which
  `Ringbridge.BeamWorkerLoop.Job.cancelled?/1` tells. When the bridge or the connection goes, what runs is ended, and the loop registers
  again by itself, with growing pauses. When its supervisor shuts it down it lets the bridge drain it first.

  Options:

    * `:bridge` (required) - the bridge's node, or the pid of a `Ringbridge.LocalBridge`
    * `:role` (required) - an atom or a binary
    * `:module` (required) - has `handle_job/2`, and perhaps `init/1`
    * `:init_arg` - for `init/1`; `nil` by default
    * `:slots` - how many jobs at once, 1 to 64; the number of schedulers by default
    * `:credit` - how many jobs a slot may hold, the one under way included, 1 to 256; 8 by default. They hide the way to
      the bridge and back; a job that waits here waits for this slot alone, so use 1 for long jobs
    * `:cancel_ms` - how long a cancelled job may go on; 0 by default. Below the role's `cancel_term_ms + cancel_kill_ms`
    * `:drain_ms` - how long jobs may take when the loop is shut down; 5000 by default
    * `:ops` - a list of `%{opcode: .., name: .., takes: [..]}`: what it serves; everything by default
    * `:safe` - whether a payload that is a term may name only atoms and functions that this VM has; false by default. Atoms are
      never forgotten: with true, callers cannot fill their table, and a job with a new one has failed (65282)
    * `:lane` - `:auto` (the default): where the bridge is on this host and grants it, jobs come over shared memory, else as messages;
      `:nif`: the same, also where the bridge's name does not tell that it is on this host, and with a warning where it is not to be had;
      `:dist`: messages. What a handler sees is the same
    * `:name` - a name for the process
    * `:connect` - a function of the bridge's node that connects to it, `&Node.connect/1` by default; true when it did
    * `:connect_ms` - how long that may take; 15000 by default

  The messages are laid down in `docs/remote-workers.md`.
  """
  use GenServer

  alias Ringbridge.BeamWorkerLoop.{Connecting, Heart, Job, Links, Options, Runner}

  require Logger

  @version 1
  @service Ringbridge.RemoteWorkers
  @pause_min_ms 50
  @pause_max_ms 5_000
  # Who was let in, and was ended before it had served so long or done a job, pauses longer the next time.
  @settled_ms 10_000

  @doc "Before the first job, in the loop's process; the state is given to every job. `{:ok, init_arg}` without it."
  @callback init(init_arg :: term()) :: {:ok, state :: term()} | {:error, reason :: term()}

  @doc """
  Runs one job. A binary is a raw answer, any other value a term; `{:ok, {:term, value}}` makes a binary a term, too.
  """
  @callback handle_job(Job.t(), state :: term()) ::
              {:ok, term()} | {:error, code :: 0..65_535, message :: binary()} | :cancelled

  @optional_callbacks init: 1

  @doc "Options: see the module. Raises ArgumentError that names the option."
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(options) do
    options = Options.check!(options)
    GenServer.start_link(__MODULE__, options, Keyword.take(Map.to_list(options), [:name]))
  end

  @doc """
  For a supervisor. `restart: :transient`: a loop that the bridge refuses for good, or that an operator has drained, ends
  with `{:shutdown, why}` and stays ended.
  """
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(options) do
    %{
      id: Keyword.get(options, :name, {__MODULE__, options[:bridge], options[:role]}),
      start: {__MODULE__, :start_link, [options]},
      restart: :transient,
      shutdown: Keyword.get(options, :drain_ms, 5_000) + 1_000
    }
  end

  @doc """
  What the loop does: `:phase` (`:away`, `:greeting`, `:serving` or `:leaving`), the ids of its slots in the bridge's registry,
  the slots whose jobs come over shared memory (`:links`), the jobs that run and wait, and how many it has ended.
  """
  @spec info(GenServer.server()) :: %{
          phase: atom(),
          workers: [pos_integer()],
          links: [non_neg_integer()],
          running: non_neg_integer(),
          waiting: non_neg_integer(),
          done: non_neg_integer()
        }
  def info(loop), do: GenServer.call(loop, :info)

  @doc "Whether jobs are wanted: one that is not ready is given none until it is again."
  @spec set_ready(GenServer.server(), boolean()) :: :ok
  def set_ready(loop, ready?) when is_boolean(ready?),
    do: GenServer.call(loop, {:set_ready, ready?})

  # ---- its life

  @impl GenServer
  def init(options) do
    Process.flag(:trap_exit, true)

    case initialise(options.module, options.init_arg) do
      {:ok, state} ->
        loop = %{
          options: options,
          state: state,
          phase: :away,
          hello: nil,
          watch: nil,
          desk: nil,
          heart: nil,
          bounds: nil,
          connecting: nil,
          welcome_ms: nil,
          pauses: 0,
          ready: true,
          done: 0,
          # Of each slot that has any, its jobs: the one that runs or is next first.
          lanes: %{},
          # Slots whose jobs come over shared memory (Links).
          links: %{},
          counts: Links.counts(options.slots),
          links_lost: 0,
          link_lost_ms: nil,
          # What runs: ref -> {job id, slot, pid, monitor, timer of its end}
          running: %{}
        }

        {:ok, loop, {:continue, :greet}}

      {:error, reason} ->
        {:stop, reason}
    end
  end

  defp initialise(module, argument) do
    if function_exported?(module, :init, 1), do: module.init(argument), else: {:ok, argument}
  end

  @impl GenServer
  def handle_continue(:greet, loop), do: {:noreply, greet(loop)}

  @impl GenServer
  def handle_call(:info, _from, loop) do
    waiting = loop.lanes |> Map.values() |> Enum.map(&:queue.len/1) |> Enum.sum()
    running = map_size(loop.running)
    workers = if loop.bounds, do: loop.bounds.workers, else: []

    {linked_done, linked_running} = Links.counted(loop)

    info = %{phase: loop.phase, workers: workers, done: loop.done + linked_done}
    info = Map.put(info, :links, loop.links |> Map.keys() |> Enum.sort())

    jobs = %{running: running + linked_running, waiting: waiting - running}
    {:reply, Map.merge(info, jobs), loop}
  end

  def handle_call({:set_ready, ready?}, _from, loop) do
    if loop.heart, do: Heart.set_ready(loop.heart, ready?)
    Links.set_ready(loop, ready?)
    {:reply, :ok, %{loop | ready: ready?}}
  end

  @impl GenServer
  def handle_info(:greet, loop), do: {:noreply, greet(loop)}

  def handle_info({:ringbridge_worker, kind, said}, loop), do: heard(kind, said, loop)

  def handle_info({:ringbridge_worker, :job, said, payload}, %{phase: phase} = loop)
      when phase in [:serving, :leaving],
      do: {:noreply, take_job(said, payload, loop)}

  def handle_info({ref, kind, payload}, loop)
      when is_map_key(loop.running, ref) and kind in [:part, :progress] do
    {job, _, _, _, _} = loop.running[ref]
    tell(loop, kind, %{job: job}, payload)
    {:noreply, loop}
  end

  def handle_info({ref, :pulse}, loop) when is_map_key(loop.running, ref) do
    {job, _, _, _, _} = loop.running[ref]
    tell(loop, :pulse, %{job: job})
    {:noreply, loop}
  end

  def handle_info({ref, :done, outcome, run_us}, loop) when is_map_key(loop.running, ref),
    do: {:noreply, finish(ref, outcome, run_us, loop)}

  # The bridge is gone, or its desk, or the name that was greeted.
  def handle_info({:DOWN, watch, :process, _who, reason}, %{watch: watch} = loop) do
    Logger.info(
      "worker of #{loop.options.role}: #{inspect(loop.options.bridge)} is away: #{inspect(reason)}"
    )

    after_leaving(pause(forget(%{loop | watch: nil})))
  end

  def handle_info({:DOWN, it, :process, _, reason}, %{connecting: %{monitor: it} = its} = loop) do
    loop = %{loop | connecting: nil}
    {:noreply, if(Connecting.connected?(its, reason), do: greet(loop), else: pause(loop))}
  end

  def handle_info({:DOWN, monitor, :process, _pid, reason}, loop) do
    case Enum.find(loop.running, fn {_, {_, _, _, its, _}} -> its == monitor end) do
      {ref, _} -> {:noreply, finish(ref, Runner.died(reason), 0, loop)}
      nil -> {:noreply, loop}
    end
  end

  def handle_info({:end_of, ref}, loop) do
    with {_, _, pid, _, _} <- loop.running[ref], do: Process.exit(pid, :kill)
    {:noreply, loop}
  end

  def handle_info({:EXIT, heart, reason}, %{heart: heart} = loop), do: {:stop, reason, loop}

  def handle_info({:link, slot, worker, said}, loop),
    do: {:noreply, Links.ended(slot, worker, said, loop)}

  # One of our slots', that had not told of its end; or a job's.
  def handle_info({:EXIT, pid, reason}, loop), do: {:noreply, Links.exited(pid, reason, loop)}

  def handle_info({:links_again, desk}, %{desk: desk} = loop) when is_pid(desk),
    do: {:noreply, Links.again(loop)}

  # Of jobs, whose monitors tell; and of what is no longer ours: late words of a job that was ended.
  def handle_info(_other, loop), do: {:noreply, loop}

  # Shut down: the bridge gives no more jobs, and those that are here come to their end. What is left then is ended: a
  # link does not tell of :normal, and who traps exits heeds none but :kill.
  @impl GenServer
  def terminate(_reason, %{phase: :serving} = loop) do
    tell(loop, :leave, %{})
    until = System.monotonic_time(:millisecond) + loop.options.drain_ms
    %{loop | phase: :leaving} |> drain(until) |> forget()
  end

  def terminate(_reason, loop), do: forget(loop)

  defp drain(loop, until) do
    receive do
      message ->
        case drained_by(message, loop) do
          {:noreply, %{phase: :leaving} = loop} -> drain(loop, until)
          {:noreply, loop} -> loop
          {:stop, _reason, loop} -> loop
        end
    after
      max(until - System.monotonic_time(:millisecond), 0) -> loop
    end
  end

  defp drained_by({:"$gen_call", from, request}, loop) do
    {:reply, answer, loop} = handle_call(request, from, loop)
    GenServer.reply(from, answer)
    {:noreply, loop}
  end

  defp drained_by(message, loop), do: handle_info(message, loop)

  # ---- registering

  defp greet(%{phase: :away, connecting: nil, options: options} = loop) do
    hello = make_ref()
    {kit, kit_version} = Links.kit()

    said = %{
      version: @version,
      ref: hello,
      pid: self(),
      role: options.role,
      slots: options.slots,
      credit: options.credit,
      kit: kit,
      kit_version: kit_version,
      ops: options.ops,
      features: []
    }

    message = {:ringbridge_worker, :hello, Links.with_memory(said, options)}

    service = service(options.bridge)

    case send_to(service, message) do
      :ok ->
        # It tells, too, when nobody has the name.
        watch = Process.monitor(service)
        %{loop | phase: :greeting, hello: hello, watch: watch}

      :noconnect ->
        connecting = Connecting.start(options.connect, options.bridge, options.connect_ms)
        %{loop | connecting: connecting}
    end
  end

  defp greet(loop), do: loop

  defp service(pid) when is_pid(pid), do: pid
  defp service(node), do: {@service, node}

  defp send_to(destination, message) do
    case :erlang.send(destination, message, [:noconnect]) do
      :ok -> :ok
      :noconnect -> :noconnect
    end
  end

  defp pause(%{phase: :leaving} = loop), do: loop

  defp pause(loop) do
    pause_ms = min(@pause_min_ms * 2 ** min(loop.pauses, 10), @pause_max_ms)
    # Many loops that lost one bridge do not come back at one moment.
    Process.send_after(self(), :greet, div(pause_ms, 2) + :rand.uniform(div(pause_ms, 2)))
    %{loop | pauses: loop.pauses + 1}
  end

  # ---- what the bridge says

  defp heard(:welcome, %{ref: hello} = said, %{phase: :greeting, hello: hello} = loop) do
    Process.demonitor(loop.watch, [:flush])
    heart = Heart.start_link(said.desk, said.heartbeat_ms, loop.ready)
    watch = Process.monitor(said.desk)

    Logger.info(
      "worker of #{loop.options.role} at #{inspect(loop.options.bridge)}: slots #{inspect(said.workers, charlists: :as_lists)}"
    )

    loop = %{loop | phase: :serving, watch: watch, desk: said.desk, heart: heart}
    {:noreply, %{loop | bounds: said, welcome_ms: System.monotonic_time(:millisecond)}}
  end

  defp heard(:refused, %{ref: hello} = said, %{phase: :greeting, hello: hello} = loop) do
    Process.demonitor(loop.watch, [:flush])

    Logger.warning(
      "worker of #{loop.options.role} refused by #{inspect(loop.options.bridge)}: #{said.why}"
    )

    loop = %{loop | phase: :away, watch: nil}

    if said.again,
      do: {:noreply, pause(loop)},
      else: stop({:refused, said.reason, said.why}, loop)
  end

  defp heard(:cancel, %{job: id}, loop), do: {:noreply, cancel(id, loop)}

  defp heard(:demand, %{job: id, parts: parts}, loop) do
    case running(id, loop) do
      {ref, {_, _, pid, _, _}} -> send(pid, {ref, :demand, parts})
      nil -> :ok
    end

    {:noreply, update_job(id, loop, &%{&1 | parts: parts})}
  end

  defp heard(:link, said, %{phase: :serving} = loop), do: {:noreply, Links.start(said, loop)}

  # What these slots have is finished as ever; the end of it is the bridge's to tell.
  defp heard(:drain, _said, loop), do: {:noreply, loop}

  defp heard(:ended, said, %{phase: phase} = loop) when phase in [:serving, :leaving] do
    Process.demonitor(loop.watch, [:flush])

    Logger.info(
      "worker of #{loop.options.role} ended by #{inspect(loop.options.bridge)}: #{said.why}"
    )

    loop = forget(%{loop | watch: nil})

    cond do
      phase == :leaving -> after_leaving(loop)
      said.again -> {:noreply, pause(loop)}
      true -> stop({said.reason, said.why}, loop)
    end
  end

  # Of a conversation that is over, or of a bridge that knows more than we.
  defp heard(_kind, _said, loop), do: {:noreply, loop}

  defp stop(why, loop), do: {:stop, {:shutdown, why}, loop}

  defp after_leaving(%{phase: :leaving} = loop), do: {:stop, :normal, loop}
  defp after_leaving(loop), do: {:noreply, loop}

  # Nothing that was given out is answered any more: what runs is ended.
  defp forget(loop) do
    loop = Links.forget(loop)

    for {_ref, {_, _, pid, monitor, timer}} <- loop.running do
      Process.demonitor(monitor, [:flush])
      if timer, do: Process.cancel_timer(timer)
      Process.exit(pid, :kill)
    end

    if loop.heart, do: Heart.stop(loop.heart)
    Connecting.stop(loop.connecting)
    phase = if loop.phase == :leaving, do: :leaving, else: :away
    loop = %{loop | phase: phase, pauses: pauses(loop), welcome_ms: nil, connecting: nil}
    %{loop | desk: nil, heart: nil, bounds: nil, lanes: %{}, running: %{}}
  end

  defp pauses(%{welcome_ms: nil} = loop), do: loop.pauses

  defp pauses(loop) do
    served_ms = System.monotonic_time(:millisecond) - loop.welcome_ms
    if served_ms < @settled_ms, do: loop.pauses, else: 0
  end

  # ---- jobs

  defp take_job(said, payload, loop) do
    # The clock is cut to milliseconds, so one more: what is found too late here is too late for the bridge.
    deadline =
      said.deadline_ms &&
        System.monotonic_time(:millisecond) + said.deadline_ms + min(said.deadline_ms, 1)

    job = %Job{
      id: said.job,
      slot: said.slot,
      opcode: said.opcode,
      payload: payload,
      deadline: deadline,
      priority: said.priority,
      trace: said.trace,
      parts: said.parts,
      progress?: said.progress,
      term?: elem(payload, 0) == :term,
      loop: self(),
      server: self(),
      ref: make_ref()
    }

    lane = Map.get(loop.lanes, job.slot, :queue.new())
    idle? = :queue.is_empty(lane)
    loop = put_lane(loop, job.slot, :queue.in(job, lane))
    if idle?, do: next(job.slot, loop), else: loop
  end

  # The first job of the slot is begun, if there is one; those that nobody waits for, or are too late, are ended unbegun.
  defp next(slot, loop) do
    case :queue.peek(Map.get(loop.lanes, slot, :queue.new())) do
      :empty ->
        loop

      {:value, job} ->
        if job.ref && Job.time_left(job) > 0 do
          begin(job, slot, loop)
        else
          complete(job.id, :cancelled, nil, loop)
          next(slot, drop_first(slot, %{loop | done: loop.done + 1}))
        end
    end
  end

  defp begin(job, slot, loop) do
    tell(loop, :started, %{job: job.id})
    most = loop.bounds.answer_bytes_max
    {pid, monitor} = Runner.start(loop.options, loop.state, job, most)
    put_in(loop.running[job.ref], {job.id, slot, pid, monitor, nil})
  end

  defp finish(ref, outcome, run_us, loop) do
    {{id, slot, _pid, monitor, timer}, running} = Map.pop(loop.running, ref)
    Process.demonitor(monitor, [:flush])
    if timer, do: Process.cancel_timer(timer)
    # A job that was told to stop and was ended for it has not failed.
    outcome = if timer && match?({:failed, 65_282, _}, outcome), do: :cancelled, else: outcome
    complete(id, outcome, run_us, loop)
    loop = %{loop | running: running, done: loop.done + 1, pauses: 0}
    next(slot, drop_first(slot, loop))
  end

  defp complete(id, :cancelled, _run_us, loop),
    do: tell(loop, :complete, %{job: id, status: :cancelled})

  defp complete(id, {:ok, payload}, run_us, loop),
    do: tell(loop, :complete, %{job: id, status: :ok, run_us: run_us}, payload)

  defp complete(id, {:failed, code, message}, run_us, loop) do
    said = %{job: id, status: :failed, code: code, run_us: run_us}
    tell(loop, :complete, said, {:raw, message})
  end

  defp cancel(id, loop) do
    case running(id, loop) do
      {ref, {id, slot, pid, monitor, nil}} ->
        send(pid, {ref, :cancel})
        timer = Process.send_after(self(), {:end_of, ref}, loop.options.cancel_ms)
        put_in(loop.running[ref], {id, slot, pid, monitor, timer})

      {_ref, _told} ->
        loop

      nil ->
        update_job(id, loop, &%{&1 | ref: nil})
    end
  end

  defp running(id, loop),
    do: Enum.find(loop.running, fn {_, running} -> elem(running, 0) == id end)

  # A job that waits; one that runs has its own copy.
  defp update_job(id, loop, change) do
    lanes =
      Map.new(loop.lanes, fn {slot, lane} ->
        {slot, :queue.filter(&if(&1.id == id, do: [change.(&1)], else: true), lane)}
      end)

    %{loop | lanes: lanes}
  end

  defp put_lane(loop, slot, lane), do: %{loop | lanes: Map.put(loop.lanes, slot, lane)}
  defp drop_first(slot, loop), do: put_lane(loop, slot, :queue.drop(loop.lanes[slot]))

  # Only ever from this process, so that what it says of a slot arrives in its order.
  defp tell(%{desk: desk}, kind, said) when is_pid(desk),
    do: send_to(desk, {:ringbridge_worker, kind, said})

  defp tell(%{desk: desk}, kind, said, payload) when is_pid(desk),
    do: send_to(desk, {:ringbridge_worker, kind, said, payload})
end
