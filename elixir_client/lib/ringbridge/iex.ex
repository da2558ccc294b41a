defmodule Ringbridge.IEx do
  @moduledoc """
  Looking at a bridge from iex, in few words.

      iex> use Ringbridge.IEx

  imports `bridge/0`, `workers/0`, `workers/1`, `jobs/0`, `jobs/1`, `job/1`, `drain/1`, `trace/1` and `help/0`; `help()` says what each does. No
  instance is needed: the bridge is the one that is named,

      iex> use Ringbridge.IEx, node: :"bridge@127.0.0.1", cookie_file: "/run/bridge.cookie"

  or else the only one that this VM is connected to, or else `bridge@127.0.0.1`. `bridge(node)` chooses another, `bridge(MyApp.Compute)` that of
  an instance. A VM without a name becomes a hidden node (`Ringbridge.LocalNode`).

  What they print is for people; for programs there is `Ringbridge.Inspect.look/1`, and each is one `GenServer.call`
  (docs/calling.md, docs/operations.md).
  """
  alias Ringbridge.Inspect, as: Look
  alias Ringbridge.Inspect.{Jobs, Page, Table}
  alias Ringbridge.{Cookie, Deadline, Instance, Reach, Request}

  # IEx.dont_display_result/0, without the application :iex.
  @nothing :"do not show this result in output"
  @node {__MODULE__, :node}

  @trace_ms 5_000
  @look_ms 100
  @ask_ms 2_000

  @doc false
  defmacro __using__(options) do
    quote do
      import Ringbridge.IEx
      Ringbridge.IEx.begin(unquote(options))
    end
  end

  @doc false
  @spec begin(keyword()) :: atom()
  def begin(options) do
    known = Keyword.take(options, [:node, :cookie, :cookie_file])

    if known != options,
      do: raise(ArgumentError, "use Ringbridge.IEx takes :node, :cookie and :cookie_file")

    case options[:node] do
      nil -> say([[{:bright, "help()"}, " says what there is"]])
      node -> node |> connected(Cookie.source(options)) |> shown(&chosen/1)
    end
  end

  @doc "What there is."
  @spec help() :: atom()
  def help do
    [
      {"bridge()", "the bridge and its roles"},
      {"bridge(node)", "another bridge from now on, by its node or by an instance's name"},
      {"workers()", "all workers: state, ring, jobs, heartbeat"},
      {"workers(:echo)", "those of a role"},
      {"jobs()", "the jobs that wait or run"},
      {"jobs(:echo)", "those of a role"},
      {"job(id)", "one job, by its id or by the reference of a submit_async"},
      {"drain(3)", "worker 3 gets nothing new, finishes what it has and ends (admin nodes)"},
      {"trace(:echo)", "what comes and goes in a role for 5 seconds; trace(:echo, ms)"}
    ]
    |> Enum.map(fn {call, words} -> [{:bright, call}, words] end)
    |> Table.lines([{"", :left}, {"", :left}])
    |> tl()
    |> say()
  end

  @doc "The bridge that is looked at, and its roles."
  @spec bridge() :: atom()
  def bridge do
    asked(fn node ->
      with {:ok, look} <- Look.look(node) do
        [head | _rest] = Page.lines(look, nil)
        noteworthy = for words <- Look.noteworthy(look), do: [{:yellow, Table.clean(words)}]
        {:ok, [head, []] ++ Page.roles(look, nil) ++ noteworthy}
      end
    end)
  end

  @doc "Looks at another bridge from now on: one by its node, or that of an instance."
  @spec bridge(node() | Ringbridge.name()) :: atom()
  def bridge(target), do: target |> resolved() |> shown(&chosen/1)

  @doc "All workers."
  @spec workers() :: atom()
  def workers do
    asked(fn node ->
      with {:ok, workers} <- Reach.ask(node, Ringbridge.WorkerRegistry, :list),
           do: {:ok, Page.workers(workers)}
    end)
  end

  @doc "The workers of a role."
  @spec workers(Ringbridge.role()) :: atom()
  def workers(role) do
    asked(fn node ->
      with {:ok, role} <- Reach.ask(node, Ringbridge.WorkerRegistry, {:lookup, role}),
           do: {:ok, Page.workers(role.workers)}
    end)
  end

  @doc "The jobs that wait or run, a thousand at most."
  @spec jobs() :: atom()
  def jobs, do: jobs(:all)

  @doc "The same of a role."
  @spec jobs(Ringbridge.role() | :all) :: atom()
  def jobs(role) do
    asked(fn node ->
      with :ok <- known(node, role),
           {:ok, jobs} <- Reach.ask(node, Ringbridge.JobDispatcher, {:jobs, role}),
           do: {:ok, Jobs.lines(jobs)}
    end)
  end

  # {:jobs, role} of a role that is not there is an empty list.
  defp known(_node, :all), do: :ok

  defp known(node, role) do
    with {:ok, _role} <- Reach.ask(node, Ringbridge.WorkerRegistry, {:lookup, role}), do: :ok
  end

  @doc """
  One job: by the id that `detail: true`, `jobs/0` and the bridge's log tell, or by the reference of a plain `{:submit_async, ..}`. Of a
  request of `Ringbridge.async/4` it tells what the client knows: its job has no id here.
  """
  @spec job(non_neg_integer() | reference() | Request.t()) :: atom()
  def job(%Request{} = request) do
    ms =
      System.convert_time_unit(System.monotonic_time() - request.started, :native, :millisecond)

    at = if request.node, do: " at #{request.node}", else: ""

    told =
      "a #{request.verb} to #{inspect(request.role)}#{at}, made #{ms} ms ago by #{inspect(request.owner)}"

    say([[told], ["its job is among jobs(#{inspect(request.role)}), while it waits or runs"]])
  end

  def job(ref) when is_reference(ref) and node(ref) != node(),
    do: shown({:ok, node(ref)}, &one(&1, ref))

  def job(id_or_ref), do: asked(&one(&1, id_or_ref))

  defp one(node, id_or_ref) do
    with {:ok, job} <- Reach.ask(node, Ringbridge.JobDispatcher, {:status, id_or_ref}),
         do: {:ok, Jobs.lines([job])}
  end

  @doc "A worker gets nothing new, finishes what it has and ends. For admin nodes (docs/operations.md)."
  @spec drain(worker_id :: non_neg_integer()) :: atom()
  def drain(id) do
    asked(fn node ->
      with :ok <- Reach.ask(node, Ringbridge.WorkerRegistry, {:drain, id}),
           do: {:ok, [["worker #{id} finishes what it has, and ends"]]}
    end)
  end

  @doc """
  Tells what comes and goes in a role, for so long: jobs as they are seen in looks a tenth of a second apart, workers as
  they change. At the end how many jobs were answered, those that no look has seen included.
  """
  @spec trace(Ringbridge.role(), pos_integer()) :: atom()
  def trace(role, for_ms \\ @trace_ms) when is_integer(for_ms) and for_ms > 0,
    do: asked(&traced(&1, role, for_ms))

  # In a process of its own: what the registry sends it ends with it.
  defp traced(node, role, for_ms) do
    {pid, monitor} = spawn_monitor(fn -> exit({:traced, follow(node, role, for_ms)}) end)

    receive do
      {:DOWN, ^monitor, :process, ^pid, {:traced, outcome}} -> outcome
      {:DOWN, ^monitor, :process, ^pid, reason} -> exit(reason)
    end
  end

  defp follow(node, role, for_ms) do
    name = to_string(role)

    with :ok <- known(node, role),
         {:ok, then} <- role_of(node, name),
         {:ok, _watch} <- watched(node) do
      started = System.monotonic_time(:millisecond)
      say([["#{name}: for #{for_ms} ms; + has come, - has ended, * a worker"]])

      with :ok <- follow(node, name, [], started + for_ms),
           {:ok, now} <- role_of(node, name) do
        {:ok, [Jobs.summary(then, now, System.monotonic_time(:millisecond) - started)]}
      end
    end
  end

  defp follow(node, role, then, until_ms) do
    with {:ok, now} <- Reach.ask(node, Ringbridge.JobDispatcher, {:jobs, role}) do
      if (lines = changed_workers(role) ++ Jobs.changes(then, now)) != [], do: say(lines)

      case until_ms - System.monotonic_time(:millisecond) do
        left when left <= 0 ->
          :ok

        left ->
          Process.sleep(min(left, @look_ms))
          follow(node, role, now, until_ms)
      end
    end
  end

  defp role_of(node, role) do
    with {:ok, look} <- Look.look(node),
         {:ok, %{status: %{roles: [role]}}} <- Look.only(look, role),
         do: {:ok, role}
  end

  # Answers {:ok, ref, workers}.
  defp watched(node) do
    case GenServer.call({Ringbridge.WorkerRegistry, node}, :watch) do
      {:ok, ref, _workers} -> {:ok, ref}
      {:error, reason} -> {:error, %Ringbridge.Error{reason: reason, node: node}}
    end
  catch
    :exit, _reason -> {:error, %Ringbridge.Error{reason: {:down, :noconnection}, node: node}}
  end

  defp changed_workers(role) do
    receive do
      {:ringbridge_workers, _ref, workers} when is_list(workers) ->
        for(worker <- workers, to_string(worker.role) == role, do: Jobs.worker(worker)) ++
          changed_workers(role)

      {:ringbridge_workers, _ref, :missed} ->
        changed_workers(role)
    after
      0 -> []
    end
  end

  # ---- which bridge

  defp asked(fun), do: shown(current(), fun)

  defp shown({:ok, node}, fun) do
    case fun.(node) do
      {:ok, lines} -> say(lines)
      {:error, error} -> say([[{:red, Table.clean(Reach.words(error))}]])
    end
  end

  defp shown({:error, why}, _fun), do: say([[{:red, Table.clean(why)}]])

  defp chosen(node) do
    with {:ok, _stats} <- Reach.ask(node, Ringbridge.JobDispatcher, :stats) do
      Process.put(@node, node)
      {:ok, [["looking at #{node}; ", {:bright, "help()"}, " says what there is"]]}
    end
  end

  defp current do
    case Process.get(@node) || bridges() do
      node when is_atom(node) ->
        {:ok, node}

      [node] ->
        {:ok, node}

      [] ->
        connected(Reach.default_node(), nil)

      several ->
        {:error, "which one? bridge(node) chooses: " <> Enum.map_join(several, ", ", &inspect/1)}
    end
  end

  # Bridges are hidden nodes.
  defp bridges do
    for node <- Node.list(:hidden),
        match?({:ok, _}, Reach.ask(node, Ringbridge.JobDispatcher, :stats, @ask_ms)),
        do: node
  end

  defp resolved(target) when is_atom(target) do
    case Instance.fetch(target) do
      {:ok, instance} -> nearest(instance)
      {:error, _not_started} -> target |> Atom.to_string() |> named()
    end
  end

  defp resolved(other),
    do: {:error, "#{inspect(other)} is no bridge: give its node, or an instance's name"}

  defp nearest(%{mode: :inline, name: name}),
    do: {:error, "#{inspect(name)} has no bridge: its mode is :inline"}

  # As a call of the instance would find it, with as much patience.
  defp nearest(instance) do
    case Instance.target(instance, nil, [], Deadline.from_now(@ask_ms)) do
      {:ok, _lane, _to, {node, _epoch}} -> {:ok, node}
      {:error, _why} -> {:error, "no bridge of #{inspect(instance.name)} is connected"}
    end
  end

  defp named(text) do
    case Reach.node_name(text) do
      {:ok, node} -> connected(node, nil)
      {:error, _no_node} -> {:error, "there is no instance, and no node, of the name #{text}"}
    end
  end

  # A VM that is a node already and knows the way keeps what it has.
  defp connected(node, source) do
    case (source == nil and already?(node)) || Reach.connect(node, source) do
      {:error, why} -> {:error, why}
      _connected -> {:ok, node}
    end
  end

  defp already?(node), do: Node.alive?() and node in Node.list(:connected)

  defp say(lines) do
    styled? = IO.ANSI.enabled?()
    IO.write(Enum.map(lines, &[Table.render(&1, styled?), "\n"]))
    @nothing
  end
end
