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

  alias Ringbridge.BeamWorkerLoop.{Desk, Heart, Job, Lanes, Links, Options, Registration, State}

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
      {:ok, state} -> {:ok, State.new(options, state), {:continue, :greet}}
      {:error, reason} -> {:stop, reason}
    end
  end

  defp initialise(module, argument) do
    if function_exported?(module, :init, 1), do: module.init(argument), else: {:ok, argument}
  end

  @impl GenServer
  def handle_continue(:greet, loop), do: {:noreply, Registration.greet(loop)}

  @impl GenServer
  def handle_call(:info, _from, loop) do
    {running, waiting} = Lanes.counted(loop)
    {linked_done, linked_running} = Links.counted(loop)

    info = %{
      phase: loop.phase,
      workers: if(loop.bounds, do: loop.bounds.workers, else: []),
      links: loop.links |> Map.keys() |> Enum.sort(),
      running: running + linked_running,
      waiting: waiting,
      done: loop.done + linked_done
    }

    {:reply, info, loop}
  end

  def handle_call({:set_ready, ready?}, _from, loop) do
    if loop.heart, do: Heart.set_ready(loop.heart, ready?)
    Links.set_ready(loop, ready?)
    {:reply, :ok, %{loop | ready: ready?}}
  end

  # ---- messages: of itself, of the bridge, of jobs' processes, of slots' processes

  @impl GenServer
  def handle_info(:greet, loop), do: {:noreply, Registration.greet(loop)}

  def handle_info({:DOWN, it, :process, _, reason}, %{connecting: %{monitor: it}} = loop),
    do: {:noreply, Registration.tried(reason, loop)}

  def handle_info({:ringbridge_worker, kind, said}, loop), do: heard(kind, said, loop)

  def handle_info({:ringbridge_worker, :job, said, payload}, %{phase: phase} = loop)
      when phase in [:serving, :leaving],
      do: {:noreply, Lanes.take(said, payload, loop)}

  # The bridge is gone, or its desk, or the name that was greeted.
  def handle_info({:DOWN, watch, :process, _who, reason}, %{watch: watch} = loop),
    do: after_leaving(Registration.again_later(Registration.lost(reason, loop)))

  def handle_info({ref, kind, payload}, loop)
      when is_map_key(loop.running, ref) and kind in [:part, :progress],
      do: {:noreply, Lanes.said(ref, kind, payload, loop)}

  def handle_info({ref, :pulse}, loop) when is_map_key(loop.running, ref),
    do: {:noreply, Lanes.pulse(ref, loop)}

  def handle_info({ref, :done, outcome, run_us}, loop) when is_map_key(loop.running, ref),
    do: {:noreply, Lanes.finish(ref, outcome, run_us, loop)}

  def handle_info({:DOWN, monitor, :process, _pid, reason}, loop),
    do: {:noreply, Lanes.died(monitor, reason, loop)}

  def handle_info({:end_of, ref}, loop), do: {:noreply, Lanes.overdue(ref, loop)}

  def handle_info({:EXIT, heart, reason}, %{heart: heart} = loop), do: {:stop, reason, loop}

  def handle_info({:link, slot, worker, said}, loop),
    do: {:noreply, Links.ended(slot, worker, said, loop)}

  # One of our slots', that had not told of its end; or a job's.
  def handle_info({:EXIT, pid, reason}, loop), do: {:noreply, Links.exited(pid, reason, loop)}

  def handle_info({:links_again, desk}, %{desk: desk} = loop) when is_pid(desk),
    do: {:noreply, Links.again(loop)}

  # Of jobs, whose monitors tell; and of what is no longer ours: late words of a job that was ended.
  def handle_info(_other, loop), do: {:noreply, loop}

  # What the bridge says (docs/remote-workers.md).
  defp heard(:welcome, %{ref: hello} = said, %{phase: :greeting, hello: hello} = loop),
    do: {:noreply, Registration.welcomed(said, loop)}

  defp heard(:refused, %{ref: hello} = said, %{phase: :greeting, hello: hello} = loop) do
    loop = Registration.refused(said, loop)

    if said.again,
      do: {:noreply, Registration.again_later(loop)},
      else: stop({:refused, said.reason, said.why}, loop)
  end

  defp heard(:cancel, %{job: id}, loop), do: {:noreply, Lanes.cancel(id, loop)}

  defp heard(:demand, %{job: id, parts: parts}, loop),
    do: {:noreply, Lanes.demand(id, parts, loop)}

  defp heard(:link, said, %{phase: :serving} = loop), do: {:noreply, Links.start(said, loop)}

  # What these slots have is finished as ever; the end of it is the bridge's to tell.
  defp heard(:drain, _said, loop), do: {:noreply, loop}

  defp heard(:ended, said, %{phase: phase} = loop) when phase in [:serving, :leaving] do
    loop = Registration.ended(said, loop)

    cond do
      phase == :leaving -> after_leaving(loop)
      said.again -> {:noreply, Registration.again_later(loop)}
      true -> stop({said.reason, said.why}, loop)
    end
  end

  # Of a conversation that is over, or of a bridge that knows more than we.
  defp heard(_kind, _said, loop), do: {:noreply, loop}

  defp stop(why, loop), do: {:stop, {:shutdown, why}, loop}

  defp after_leaving(%{phase: :leaving} = loop), do: {:stop, :normal, loop}
  defp after_leaving(loop), do: {:noreply, loop}

  # ---- its end

  # Shut down: the bridge gives no more jobs, and those that are here come to their end. What is left then is ended: a
  # link does not tell of :normal, and who traps exits heeds none but :kill.
  @impl GenServer
  def terminate(_reason, %{phase: :serving} = loop) do
    Desk.tell(loop, :leave, %{})
    until = System.monotonic_time(:millisecond) + loop.options.drain_ms
    %{loop | phase: :leaving} |> drain(until) |> Registration.forget()
  end

  def terminate(_reason, loop), do: Registration.forget(loop)

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
end
