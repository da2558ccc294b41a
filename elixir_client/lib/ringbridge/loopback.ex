defmodule Ringbridge.Loopback do
  @moduledoc """
  An instance with its bridge and its workers, all in this VM: nothing native, no port, no node.

      children = [
        {Ringbridge.Loopback,
         name: MyApp.Compute, roles: %{echo: &{:ok, &1}, reports: MyApp.Reports}}
      ]

  It is for tests (`Ringbridge.Case` starts one for each), for `mix ringbridge.harness`, and for machines that have no bridge. Unlike
  `mode: :inline` it has what a bridge has: queues that are full, deadlines, workers that die in a job and come back, callers whose
  end takes their jobs along. A role's work is a `Ringbridge.BeamWorkerLoop`'s module, which may serve behind a bridge unchanged, or a
  function of the payload, or of the payload and the `Ringbridge.BeamWorkerLoop.Job`, with what `handle_job/2` returns.

      iex> {:ok, _pid} = Ringbridge.Loopback.start_link(name: DocLoop, roles: %{half: &{:ok, div(&1, 2)}})
      iex> Ringbridge.call(DocLoop, :half, 84)
      {:ok, 42}
      iex> {:error, error} = Ringbridge.call(DocLoop, :half, "84")
      iex> Ringbridge.Error.name(error.reason)
      :job_failed

  Options:

    * `:name` (required) - of the instance that calls name
    * `:roles` (required) - a map or a keyword list of roles to modules or functions
    * `:slots` - how many jobs of a role run at once, 1 to 64; 4 by default
    * `:credit` - how many jobs a slot may hold, the one that runs included; 1 by default
    * `:depth_max` - how many jobs of a role may wait; more are `:overloaded`. 1024 by default
    * `:timeout` - of a call that names none, in milliseconds; 5000 by default
    * `:cancel_ms` - how long a cancelled job may go on; 0 by default

  Several stand side by side. What a `Ringbridge.LocalBridge` does not know (streams, batches, stages) is `:bad_request` here, too.
  """
  @behaviour Supervisor

  alias Ringbridge.{BeamWorkerLoop, LocalBridge}

  @options [:name, :roles, :slots, :credit, :depth_max, :timeout, :cancel_ms]

  @typedoc "What a role does."
  @type work ::
          module()
          | (Ringbridge.payload() -> outcome())
          | (Ringbridge.payload(), BeamWorkerLoop.Job.t() -> outcome())

  @typedoc "What a worker's handler gives."
  @type outcome :: {:ok, term()} | {:error, code :: 0..65_535, message :: binary()} | :cancelled

  @doc "For a supervision tree; options: see the module."
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(options) do
    id = {__MODULE__, options[:name]}
    %{id: id, start: {__MODULE__, :start_link, [options]}, type: :supervisor}
  end

  @doc "Options: see the module. Raises `ArgumentError` that names the option."
  @spec start_link(keyword()) :: Supervisor.on_start()
  def start_link(options) do
    for {key, _} <- options,
        key not in @options,
        do: raise(ArgumentError, "Loopback has no option #{inspect(key)}")

    name = options[:name]

    unless is_atom(name) and name not in [nil, true, false],
      do: raise(ArgumentError, "Loopback: :name is an atom, not #{inspect(name)}")

    roles = roles!(options[:roles])
    Supervisor.start_link(__MODULE__, {name, roles, options}, name: name(name, "loopback"))
  end

  defp roles!(roles) do
    if (is_map(roles) and map_size(roles) > 0) or (Keyword.keyword?(roles) and roles != []) do
      for {role, work} <- roles, do: {role, work!(role, work)}
    else
      raise ArgumentError, "Loopback: :roles is a map of roles to work, not #{inspect(roles)}"
    end
  end

  defp work!(role, work) do
    cond do
      is_function(work, 1) or is_function(work, 2) ->
        work

      is_atom(work) and Code.ensure_loaded?(work) and function_exported?(work, :handle_job, 2) ->
        work

      true ->
        raise ArgumentError,
              "Loopback: the role #{inspect(role)} is a module with handle_job/2 or a function of one or two " <>
                "parameters, not #{inspect(work)}"
    end
  end

  @doc "Ends what `start_link/1` has started."
  @spec stop(Ringbridge.name()) :: :ok
  def stop(name), do: Supervisor.stop(name(name, "loopback"))

  @doc "The process of its `Ringbridge.LocalBridge`, which answers plain `GenServer.call`s; nil when it is not there."
  @spec bridge(Ringbridge.name()) :: pid() | nil
  def bridge(name), do: Process.whereis(name(name, "bridge"))

  @doc "The process of a role's worker, a `Ringbridge.BeamWorkerLoop`; nil when it is not there."
  @spec worker(Ringbridge.name(), Ringbridge.role()) :: pid() | nil
  def worker(name, role), do: Process.whereis(name(name, "worker.#{role}"))

  @doc "Whether the role's worker takes jobs."
  @spec serving?(Ringbridge.name(), Ringbridge.role()) :: boolean()
  def serving?(name, role) do
    case worker(name, role) do
      nil -> false
      loop -> BeamWorkerLoop.info(loop).phase == :serving
    end
  catch
    # It died between the two.
    :exit, _ -> false
  end

  @doc """
  All processes of the instance: supervisors, bridge, workers, and what those are linked with, the processes of jobs included;
  also what jobs have started as a `Task`, a server or the like (`$ancestors`), with or without a link.
  """
  @spec processes(Ringbridge.name()) :: [pid()]
  def processes(name) do
    case Process.whereis(name(name, "loopback")) do
      nil -> []
      top -> top |> linked() |> and_descendants()
    end
  end

  defp linked(top), do: walk([top], parents(top))

  defp and_descendants(family) do
    known = MapSet.new(family)

    started =
      for pid <- Process.list(),
          not MapSet.member?(known, pid),
          Enum.any?(ancestors(pid), &MapSet.member?(known, &1)),
          do: pid

    family ++ started
  end

  defp ancestors(pid) do
    with {:dictionary, dictionary} <- Process.info(pid, :dictionary),
         [_ | _] = ancestors <- dictionary[:"$ancestors"],
         do: Enum.map(ancestors, &if(is_atom(&1), do: Process.whereis(&1), else: &1)),
         else: (_ -> [])
  end

  # Links lead to a process's children, and back to its parent: who started the whole is not part of it.
  defp parents(top) do
    top |> ancestors() |> Enum.take(1) |> MapSet.new()
  end

  defp walk(pids, known, found \\ [])
  defp walk([], _known, found), do: Enum.reverse(found)

  defp walk([pid | rest], known, found) do
    if MapSet.member?(known, pid) do
      walk(rest, known, found)
    else
      linked = with {:links, links} <- Process.info(pid, :links), do: links
      more = for linked <- List.wrap(linked), is_pid(linked), node(linked) == node(), do: linked
      walk(more ++ rest, MapSet.put(known, pid), [pid | found])
    end
  end

  @impl Supervisor
  def init({name, roles, options}) do
    bridge = name(name, "bridge")

    names = for {role, _work} <- roles, do: role
    # Its workers always come back.
    its = [roles: names, register: false, starting: true] ++ Keyword.take(options, [:depth_max])
    workers = for {role, work} <- roles, do: worker_spec(name, role, work, options)
    # Tests kill workers, so many deaths in a row are no reason to give up.
    patient = [strategy: :one_for_one, max_restarts: 1_000, max_seconds: 1]
    timeout = Keyword.get(options, :timeout, 5_000)

    children = [
      %{id: LocalBridge, start: {__MODULE__, :start_bridge, [bridge, its]}},
      {Ringbridge, name: name, mode: :local, bridge: bridge, timeout: timeout},
      %{
        id: :workers,
        start: {Supervisor, :start_link, [workers, patient]},
        type: :supervisor
      }
    ]

    # A worker knows its bridge by its pid.
    Supervisor.init(children, strategy: :rest_for_one)
  end

  defp worker_spec(name, role, work, options) do
    {module, argument} = if is_atom(work), do: {work, nil}, else: {__MODULE__.Worker, work}

    its =
      options
      |> Keyword.take([:cancel_ms])
      |> Keyword.merge(
        role: role,
        module: module,
        init_arg: argument,
        slots: Keyword.get(options, :slots, 4),
        credit: Keyword.get(options, :credit, 1),
        drain_ms: 0,
        name: name(name, "worker.#{role}")
      )

    %{
      id: {BeamWorkerLoop, role},
      start: {__MODULE__, :start_worker, [name, its]},
      restart: :permanent,
      shutdown: 5_000
    }
  end

  @doc false
  @spec start_bridge(atom(), keyword()) :: GenServer.on_start()
  def start_bridge(name, options) do
    with {:ok, pid} <- LocalBridge.start_link(options) do
      Process.register(pid, name)
      {:ok, pid}
    end
  end

  @doc false
  @spec start_worker(atom(), keyword()) :: GenServer.on_start()
  def start_worker(name, options),
    do: BeamWorkerLoop.start_link([{:bridge, bridge(name)} | options])

  defp name(name, part), do: :"#{inspect(name)}.#{part}"
end
