defmodule Ringbridge.Instance do
  @moduledoc """
  One instance: a supervisor under the instance's name, with a connection for each bridge, and a table of that name.

  The table belongs to the supervisor and ends with it. Calls read it in their own process: no process stands between a
  caller and its bridge. Its rows are `{:instance, t()}` and those of `Ringbridge.Route` and `Ringbridge.Lane.Opener`.
  """
  use Supervisor

  alias Ringbridge.{
    Backoff,
    Connection,
    Cookie,
    Deadline,
    Error,
    Lane,
    LocalNode,
    Options,
    Route,
    Server
  }

  @table [:named_table, :public, :set, read_concurrency: true]

  @enforce_keys [:name, :nodes, :mode, :timeout, :connect_timeout]
  defstruct [
    :name,
    :nodes,
    :mode,
    :timeout,
    :connect_timeout,
    :roles,
    :bridge,
    :cookie,
    :telemetry?,
    :server,
    correlate?: false,
    lane: :auto
  ]

  @type t :: %__MODULE__{
          name: atom(),
          nodes: [node()],
          mode: :dist | :inline | :local,
          timeout: timeout() | :role,
          connect_timeout: non_neg_integer(),
          roles: term(),
          bridge: GenServer.server() | nil,
          cookie: Cookie.source(),
          telemetry?: boolean(),
          correlate?: boolean(),
          lane: :auto | :dist | :nif,
          server: Server.name() | nil
        }

  @doc """
  Starts it. Returns before a bridge is connected: calls wait for that. Raises `ArgumentError` for wrong options;
  `{:error, {:shutdown, why}}` when this VM cannot become a node.
  """
  @spec start_link(keyword()) :: Supervisor.on_start()
  def start_link(options) do
    options = Options.validate!(options)
    Ringbridge.LayoutLoader.load()

    with {:ok, options} <- with_server(options),
         instance = new(options),
         :ok <- fit_to_connect(instance) do
      # Not the options: a cookie may be among them, and supervisors print their arguments.
      backoff = %Backoff{min_ms: options[:backoff_min_ms], max_ms: options[:backoff_max_ms]}
      Supervisor.start_link(__MODULE__, {instance, backoff}, name: instance.name)
    end
  end

  # The node of a server is known before its bridge runs.
  defp with_server(options) do
    case {options[:server], Server.node(options[:server])} do
      {nil, _none} ->
        {:ok, options}

      {_server, {:ok, node}} ->
        {:ok, Keyword.put(options, :nodes, Enum.uniq([node | options[:nodes]]))}

      {server, {:error, :not_started}} ->
        {:error,
         {:shutdown,
          "#{inspect(options[:name])}: there is no server #{inspect(server)} (option :server): is {Ringbridge.Server, ..} " <>
            "before this child in the tree?"}}
    end
  end

  # As any cookie it is asked for at each attempt to connect.
  defp server_cookie(nil), do: nil

  defp server_cookie(name) do
    fn ->
      case Server.fetch(name) do
        {:ok, server} -> server.cookie.()
        {:error, :not_started} -> {:error, "server #{inspect(name)} has ended"}
      end
    end
  end

  defp new(options) do
    %__MODULE__{
      name: options[:name],
      nodes: options[:nodes],
      mode: options[:mode],
      timeout: options[:timeout],
      connect_timeout: options[:connect_timeout],
      roles: Ringbridge.Job.Fake.roles(options[:roles]),
      bridge: options[:bridge],
      cookie: Cookie.source(options) || server_cookie(options[:server]),
      telemetry?: Ringbridge.Telemetry.available?(),
      correlate?: options[:correlate],
      lane: options[:lane],
      server: options[:server]
    }
  end

  defp fit_to_connect(%{mode: mode}) when mode in [:inline, :local], do: :ok

  defp fit_to_connect(instance) do
    case LocalNode.ensure(instance.nodes, instance.cookie) do
      :ok -> :ok
      {:error, why} -> {:error, {:shutdown, "#{inspect(instance.name)}: #{why}"}}
    end
  end

  @impl Supervisor
  def init({instance, backoff}) do
    _name = :ets.new(instance.name, @table)
    :ets.insert(instance.name, {:instance, instance})

    connections =
      for node <- instance.nodes do
        Supervisor.child_spec({Connection, {instance, node, backoff}}, id: {Connection, node})
      end

    # First: a connection tells its opener when it is up.
    Supervisor.init(openers(instance) ++ connections, strategy: :one_for_one)
  end

  defp openers(%{lane: :dist}), do: []

  defp openers(instance) do
    for node <- instance.nodes,
        do: Supervisor.child_spec({Lane.Opener, {instance, node}}, id: {Lane.Opener, node})
  end

  @doc "The instance of that name, as calls need it."
  @spec fetch(atom()) :: {:ok, t()} | {:error, Error.t()}
  def fetch(name) do
    [{:instance, instance}] = :ets.lookup(name, :instance)
    {:ok, instance}
  rescue
    # No table of that name: it was never started, or is being started again.
    _ in [ArgumentError, MatchError] -> {:error, %Error{reason: :not_started}}
  end

  @doc """
  Where a job goes: the lane, its address, and the bridge with its epoch. Without a connection it waits until `until_ms`
  (monotonic, or `:infinity`) and no longer than `connect_timeout`; not if a bridge has refused the job already.
  """
  @spec target(t(), term(), Route.tried(), integer() | :infinity) ::
          {:ok, module(), term(), {node() | nil, Route.epoch()}}
          | {:error, :not_connected | :not_started}
  def target(%{mode: :inline} = instance, _role, _tried, _until_ms),
    do: {:ok, Lane.Inline, instance.roles, {nil, nil}}

  # Looked for at each call: it may have been started again.
  def target(%{mode: :local} = instance, _role, _tried, _until_ms) do
    case GenServer.whereis(instance.bridge) do
      pid when is_pid(pid) -> {:ok, Lane.Dist, pid, {nil, nil}}
      _nobody -> {:error, :not_connected}
    end
  end

  def target(instance, role, tried, until_ms) do
    case pick(instance, role, tried) do
      {node, epoch} ->
        over(instance, node, epoch)

      nil ->
        if Enum.all?(tried, &is_tuple/1),
          do: wait(instance, role, tried, patience(instance, until_ms)),
          else: {:error, :not_connected}
    end
  end

  @doc "The bridges that are connected now, the nearest first."
  @spec connected(t()) :: [node()]
  def connected(instance) do
    Route.connected(instance.name, instance.nodes)
  rescue
    # No table any more.
    ArgumentError -> []
  end

  # One look is not enough: a bridge that came may be gone again, and a connection that is begun anew knows nobody who
  # waits.
  defp wait(instance, role, tried, until_ms) do
    with :ok <- Connection.await_any(instance, tried, until_ms),
         nil <- pick(instance, role, tried) do
      if Deadline.past?(until_ms),
        do: {:error, :not_connected},
        else: wait(instance, role, tried, until_ms)
    else
      {:error, why} -> {:error, why}
      {node, epoch} -> over(instance, node, epoch)
    end
  end

  defp over(instance, node, epoch) do
    case Lane.Opener.lane(instance, node, epoch) do
      nil -> {:ok, Lane.Dist, node, {node, epoch}}
      lane -> {:ok, Lane.Nif, {lane, node}, {node, epoch}}
    end
  end

  defp patience(instance, until_ms),
    do: min(until_ms, Deadline.from_now(instance.connect_timeout))

  defp pick(instance, role, tried) do
    Route.pick(instance.name, instance.nodes, role, tried)
  rescue
    # The table went between two looks.
    ArgumentError -> nil
  end
end
