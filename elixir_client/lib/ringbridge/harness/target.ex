defmodule Ringbridge.Harness.Target do
  @moduledoc """
  What the harness stresses: a loopback in this VM, or two real bridges whose workers are in this VM, too.

  Two bridges, so that there is one to fall back to. Their roles are the harness's own; `echo` is served by the program
  `rb-echo` where that lies beside the command, through shared memory.
  """
  alias Ringbridge.Case.Bridge
  alias Ringbridge.{BeamWorkerLoop, Case, Loopback}
  alias Ringbridge.Harness.Worker

  # Small, so that full is soon.
  @slots 2
  @depth 16
  @limit_bytes 65_536

  @enforce_keys [:kind, :name, :supervisor]
  defstruct [:kind, :name, :supervisor, :directory, nodes: [], native?: false]

  @type t :: %__MODULE__{
          kind: :loopback | :bridge,
          name: Ringbridge.name(),
          supervisor: pid(),
          directory: Path.t() | nil,
          nodes: [node()],
          native?: boolean()
        }

  @doc "How many jobs of a role run at once."
  @spec slots() :: pos_integer()
  def slots, do: @slots

  @doc "How many jobs of a role may wait."
  @spec depth() :: pos_integer()
  def depth, do: @depth

  @doc "The role `small` takes so many bytes; of a real bridge only."
  @spec limit_bytes() :: pos_integer()
  def limit_bytes, do: @limit_bytes

  @doc """
  Starts one, linked to the caller: `:loopback`, or `{:bridge, command}` with the program `ringbridge`. `compute` is whose work the role
  `compute` is: of the harness's own tests.
  """
  @spec start(:loopback | {:bridge, [String.t()]}, atom()) :: {:ok, t()} | {:error, term()}
  def start(kind, compute \\ :compute)

  def start(:loopback, compute) do
    name = name()

    roles =
      for role <- Worker.roles(), do: {role, work(if role == :compute, do: compute, else: role)}

    options = [name: name, roles: roles, slots: @slots, depth_max: @depth, timeout: 30_000]

    with {:ok, supervisor} <-
           Supervisor.start_link([{Loopback, options}], strategy: :one_for_one),
         do: {:ok, %__MODULE__{kind: :loopback, name: name, supervisor: supervisor}}
  end

  def start({:bridge, command}, compute) do
    directory = Path.join(System.tmp_dir!(), "ringbridge-harness-#{System.pid()}-#{unique()}")
    File.mkdir_p!(directory)
    config = Path.join(directory, "ringbridge.toml")
    echo = rb_echo(command)
    File.write!(config, settings(echo))
    # The workers are killed on purpose, and often.
    patient = [strategy: :one_for_one, max_restarts: 1_000, max_seconds: 1]
    {:ok, supervisor} = Supervisor.start_link([], patient)

    target = %__MODULE__{
      kind: :bridge,
      name: name(),
      supervisor: supervisor,
      directory: directory
    }

    with {:ok, first} <- bridge(supervisor, :first, config, command),
         {:ok, second} <- bridge(supervisor, :second, config, command) do
      for {node, at} <- Enum.with_index([first, second]),
          role <- Worker.roles(),
          not (role == :echo and echo != nil),
          do:
            start_loop(supervisor, node, at, role, if(role == :compute, do: compute, else: role))

      {:ok, connect(%{target | nodes: [first, second], native?: echo != nil})}
    else
      {:error, why} ->
        File.rm_rf!(directory)
        {:error, why}
    end
  end

  defp work(role), do: fn _payload, job -> Worker.handle_job(job, role) end
  defp name, do: :"ringbridge_harness_#{unique()}"
  defp unique, do: System.unique_integer([:positive])

  defp bridge(supervisor, id, config, command) do
    spec = Supervisor.child_spec({Bridge, config: config, command: command}, id: id)
    with {:ok, pid} <- Supervisor.start_child(supervisor, spec), do: {:ok, Bridge.node(pid)}
  end

  defp start_loop(supervisor, node, at, role, work) do
    options = [
      bridge: node,
      role: role,
      module: Worker,
      init_arg: work,
      slots: @slots,
      credit: 1,
      drain_ms: 0,
      name: loop_name(node, role)
    ]

    spec = Supervisor.child_spec({BeamWorkerLoop, options}, id: {at, role})
    {:ok, _pid} = Supervisor.start_child(supervisor, spec)
  end

  defp loop_name(node, role), do: :"#{node}.harness.#{role}"

  defp connect(target) do
    cookies = for node <- target.nodes, do: Bridge.cookie(node)

    for {node, [cookie: cookie]} <- Enum.zip(target.nodes, cookies),
        do: Node.set_cookie(node, cookie)

    # Each bridge has a cookie of its own, set above: the instance's would be for all.
    instance = {Ringbridge, name: target.name, nodes: target.nodes, timeout: 30_000}
    {:ok, _pid} = Supervisor.start_child(target.supervisor, instance)

    for node <- target.nodes, role <- Worker.roles() do
      Case.Wait.until("#{role} has workers at #{node}", 60_000, fn -> ready(node, role) > 0 end)
    end

    target
  end

  @doc "Starts a role's workers at a bridge again, where they have ended since they were drained."
  @spec work_again(t(), atom(), node()) :: :ok
  def work_again(target, role, node) do
    id = {Enum.find_index(target.nodes, &(&1 == node)), role}

    Case.Wait.until("the drained loop has ended", 60_000, fn ->
      match?({:ok, _pid}, Supervisor.restart_child(target.supervisor, id))
    end)

    Case.Wait.until("#{role} has workers at #{node}", 60_000, fn -> ready(node, role) > 0 end)
  end

  defp ready(node, role) do
    case GenServer.call({Ringbridge.WorkerRegistry, node}, {:lookup, role}) do
      {:ok, %{workers: workers}} -> Enum.count(workers, &(&1.state == :ready))
      {:error, _} -> 0
    end
  end

  @doc "Ends it; whatever of it is left then, as texts."
  @spec stop(t()) :: [String.t()]
  def stop(target) do
    processes = if target.kind == :loopback, do: Loopback.processes(target.name), else: []

    family =
      Enum.flat_map(bridges(target), fn pid ->
        [Bridge.os_pid(pid) | Bridge.descendants(Bridge.os_pid(pid))]
      end)

    Process.unlink(target.supervisor)
    Supervisor.stop(target.supervisor, :shutdown, 60_000)
    if target.directory, do: File.rm_rf!(target.directory)

    case Case.Wait.settled(10_000, fn -> left(processes, family) end) do
      :ok -> []
      text -> [text]
    end
  end

  defp left(processes, family) do
    alive = Enum.filter(processes, &Process.alive?/1)
    running = Enum.filter(family, &running?/1)
    if alive == [] and running == [], do: :ok, else: "left: #{inspect(alive)} #{inspect(running)}"
  end

  # A zombie runs nothing; init reaps it.
  defp running?(os_pid) do
    case File.read("/proc/#{os_pid}/stat") do
      {:ok, stat} -> not (stat |> String.split(") ") |> List.last() |> String.starts_with?("Z"))
      {:error, _} -> false
    end
  end

  @doc "The processes of its bridges that still live."
  @spec bridges(t()) :: [pid()]
  def bridges(target) do
    for {id, pid, _, _} <- Supervisor.which_children(target.supervisor),
        id in [:first, :second],
        is_pid(pid),
        do: pid
  end

  @doc "The books of all its dispatchers together."
  @spec books(t()) :: %{
          accepted: non_neg_integer(),
          answered: map(),
          in_flight: non_neg_integer()
        }
  def books(target) do
    for to <- dispatchers(target), reduce: %{accepted: 0, answered: %{}, in_flight: 0} do
      books ->
        {:ok, stats} = GenServer.call(to, :stats)

        %{
          accepted: books.accepted + stats.accepted,
          in_flight: books.in_flight + stats.in_flight,
          answered: Map.merge(books.answered, stats.answered, fn _, a, b -> a + b end)
        }
    end
  end

  @doc "Where plain calls go."
  @spec dispatchers(t()) :: [GenServer.server()]
  def dispatchers(%{kind: :loopback} = target), do: [Loopback.bridge(target.name)]

  def dispatchers(target) do
    for node <- target.nodes,
        Process.whereis(:"#{node}.bridge"),
        do: {Ringbridge.JobDispatcher, node}
  end

  @doc "The worker of a role that this VM runs; of the bridge of that number."
  @spec worker(t(), atom(), non_neg_integer()) :: pid() | nil
  def worker(target, role, at \\ 0)
  def worker(%{kind: :loopback} = target, role, _at), do: Loopback.worker(target.name, role)

  def worker(target, role, at),
    do: target.nodes |> Enum.at(at) |> loop_name(role) |> Process.whereis()

  # ringbridge stands in .venv/bin; what it was built with in build/bin.
  defp rb_echo(command) do
    roots = [
      File.cwd!()
      | for(part <- command, do: part |> Path.expand() |> Path.dirname() |> Path.join("../.."))
    ]

    roots |> Enum.map(&Path.expand("build/bin/rb-echo", &1)) |> Enum.find(&File.regular?/1)
  end

  defp settings(echo) do
    roles =
      for {role, more} <- [
            echo: "",
            compute: "idempotent = true",
            gate: "idempotent = true",
            small: "payload_bytes_max = #{@limit_bytes}"
          ] do
        native? = role == :echo and echo != nil

        """
        [roles.#{role}]
        #{if native?, do: ~s(command = ["#{echo}"]), else: "workers = 0"}
        depth_max = #{@depth}
        max_restarts = 10_000
        backoff_max_ms = 100
        #{more}
        #{unless native?, do: ~s([roles.#{role}.remote]\nnodes = ["*@*"])}
        """
      end

    "[node]\ndrain_ms = 500\nadmin_nodes = [\"*@*\"]\n\n" <> Enum.join(roles, "\n")
  end
end
