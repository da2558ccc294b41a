defmodule Ringbridge.Server do
  @moduledoc """
  A bridge that belongs to this VM: started by it, guarded, and ended with it, however it dies.

      children = [
        {Ringbridge.Server, name: MyApp.Bridge, config: "ringbridge.toml"},
        {Ringbridge, name: MyApp.Compute, server: MyApp.Bridge}
      ]

  The bridge is a process of the operating system beside the VM; a program written in C stands between the two, the
  shepherd, as the program of a port:

      VM ==port==> ringbridge-shepherd port ==> ringbridge serve ==> a shepherd and its worker, for each

    * **The VM ends**, also by `kill -9`: the shepherd reads end of file, asks the bridge to end, and half a second later kills
      it. Each worker's own shepherd ends that worker when the bridge is gone.
    * **The shepherd is killed**: the kernel kills the bridge with it, and the server starts both again.
    * **The bridge ends**: it is started again, after a pause that doubles with each failure.
    * **The process that owns the port is killed**: the port closes, which the shepherd reads as the VM's end. The new owner starts
      its bridge when the old one has ended: `Ringbridge.Server.Watcher` knows, and helps where the shepherd cannot.
    * **The tree is stopped**: instances first, as they stand behind the server in the tree; then the bridge takes no
      new jobs, its workers finish what they have, and it ends.

  What the bridge logs goes to this VM's Logger, with `bridge: node` as metadata. Several servers run side by side. The guide is
  docs/server.md.
  """
  # OTP's own, for its `auto_shutdown`, which Elixir's knows from 1.15 on.
  @behaviour :supervisor

  alias Ringbridge.{Cookie, LocalNode}
  alias Ringbridge.Server.{Options, Owner, Programs, ReadyGate, Watcher}

  @table [:named_table, :public, :set, read_concurrency: true]

  # How much longer than `:shutdown` the owner may take: the kill that follows it, and its word.
  @last_words_ms 5_000

  @enforce_keys [:name, :node, :config, :cookie, :programs]
  defstruct @enforce_keys ++
              [
                :cookie_file,
                :env,
                :log_level,
                :shutdown,
                :backoff_min_ms,
                :backoff_max_ms,
                :max_failures
              ]

  @type name :: atom()

  @type t :: %__MODULE__{
          name: name(),
          node: node(),
          config: Path.t(),
          cookie: (() -> {:ok, atom()} | {:error, String.t()}),
          programs: Programs.t(),
          cookie_file: Path.t() | nil,
          env: (() -> Enumerable.t()),
          log_level: Logger.level(),
          shutdown: non_neg_integer(),
          backoff_min_ms: pos_integer(),
          backoff_max_ms: pos_integer(),
          max_failures: pos_integer() | :infinity
        }

  @typedoc """
  How a bridge ended: its exit status or the signal that ended it, or `:shepherd_killed` when nobody could say; and the last
  errors that it told of.
  """
  @type ending :: %{
          how:
            {:status, 0..255}
            | {:signal, pos_integer()}
            | {:not_started, String.t()}
            | :shepherd_killed,
          said: String.t()
        }

  @typedoc """
  `:starting` until the bridge has said that it answers, then `:ready`; `:waiting` for the next attempt. `failures`: ends in a row.
  """
  @type status :: %{
          state: :starting | :ready | :waiting,
          node: node(),
          os_pid: pos_integer() | nil,
          shepherd_os_pid: pos_integer() | nil,
          starts: non_neg_integer(),
          failures: non_neg_integer(),
          last_end: ending() | nil
        }

  @doc """
  A bridge for a supervision tree.

  #{Options.docs()}
  """
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(options) do
    # What is wrong is said by start_link/1, when the tree starts.
    options = Options.conceal(options)
    id = if Keyword.keyword?(options), do: {__MODULE__, options[:name]}, else: __MODULE__
    %{id: id, start: {__MODULE__, :start_link, [options]}, type: :supervisor}
  end

  @doc """
  Starts the server, linked to the calling process, as a supervisor does. Returns before the bridge is ready unless
  `:ready_timeout` says otherwise.

  Raises `ArgumentError` for wrong options; `{:error, {:shutdown, why}}` when a program or the settings are not there, or the
  bridge is not ready in time.
  """
  @spec start_link(keyword()) :: Supervisor.on_start()
  def start_link(options) do
    options = Options.validate!(options)

    with :ok <- free(options[:name]),
         {:ok, config} <- config(options[:config]),
         {:ok, programs} <- Programs.find(options[:command], options[:shepherd]) do
      server = new(options, config, programs)
      :supervisor.start_link({:local, server.name}, __MODULE__, {server, options[:ready_timeout]})
    else
      {:error, why} -> {:error, {:shutdown, "#{inspect(options[:name])}: #{why}"}}
    end
  end

  # A server's name is that of a table, too. That the name is another process's is said by the supervisor.
  defp free(name) do
    if :ets.info(name, :owner) in [:undefined, Process.whereis(name)],
      do: :ok,
      else: {:error, "option :name: there is a table of that name, which is none of a server's"}
  end

  defp config(path) do
    path = Path.expand(path)

    if File.regular?(path),
      do: {:ok, path},
      else: {:error, "option :config: there is no file #{path}"}
  end

  defp new(options, config, programs) do
    %__MODULE__{
      name: options[:name],
      node: options[:node] || made_name(options[:name]),
      config: config,
      cookie: cookie(options),
      programs: programs,
      cookie_file: options[:cookie_file],
      env: options[:env],
      log_level: options[:log_level],
      shutdown: options[:shutdown],
      backoff_min_ms: options[:backoff_min_ms],
      backoff_max_ms: options[:backoff_max_ms],
      max_failures: options[:max_failures]
    }
  end

  # Known before the bridge runs, the same after each restart of it, and nobody else's on this host: MyApp.Bridge and :myapp_bridge read
  # alike, so a few digits tell them apart, and long ones. A VM with a short name connects to short names only.
  defp made_name(name) do
    stem = name |> Atom.to_string() |> String.replace_prefix("Elixir.", "") |> String.downcase()
    stem = stem |> String.replace(~r/[^a-z0-9_]+/, "_") |> String.slice(0, 64)
    digits = name |> :erlang.phash2(0x10000) |> Integer.to_string(16) |> String.downcase()
    host = if LocalNode.named() == :shortnames, do: "localhost", else: "127.0.0.1"
    :"#{stem}_#{digits}_#{System.pid()}@#{host}"
  end

  # Made once, and used only if there is no other.
  defp cookie(options) do
    made = :"#{Base.encode16(:crypto.strong_rand_bytes(16))}"

    case Cookie.source(options) do
      nil -> fn -> LocalNode.own_cookie(made) end
      source -> source
    end
  end

  @impl :supervisor
  def init({server, ready_timeout}) do
    Enum.each([Owner, Watcher], &await_predecessor(server, &1))
    _name = :ets.new(server.name, @table)
    :ets.insert(server.name, {:server, server})

    children = [
      %{
        id: Watcher,
        start: {Watcher, :start_link, [server]},
        shutdown: server.shutdown + 2 * @last_words_ms
      },
      %{
        id: Owner,
        start: {Owner, :start_link, [server]},
        restart: :transient,
        significant: true,
        shutdown: server.shutdown + @last_words_ms
      }
    ]

    gate = %{
      id: ReadyGate,
      start: {ReadyGate, :start_link, [server.name, ready_timeout]},
      restart: :temporary
    }

    children = if ready_timeout > 0, do: children ++ [gate], else: children

    # An owner that has given up takes the server along; one that was killed is started again.
    flags = %{strategy: :one_for_one, intensity: 3, period: 5, auto_shutdown: :any_significant}
    {:ok, {flags, children}}
  end

  # When a server's supervisor was killed, its children end the bridge before they end, and have their names until then: a start in the
  # meantime would fail at once, and again, as often as the supervisor above allows.
  defp await_predecessor(server, child) do
    ref =
      server.name |> Module.concat(child |> Module.split() |> List.last()) |> Process.monitor()

    receive do
      {:DOWN, ^ref, :process, _name, _reason} -> :ok
    after
      # Then it is said that it is still there.
      server.shutdown + 2 * @last_words_ms -> Process.demonitor(ref, [:flush])
    end
  end

  @doc "The node of this server's bridge. It stays the same as long as the VM runs."
  @spec node(name()) :: {:ok, node()} | {:error, :not_started}
  def node(name) do
    with {:ok, server} <- fetch(name), do: {:ok, server.node}
  end

  @doc false
  @spec fetch(name()) :: {:ok, t()} | {:error, :not_started}
  def fetch(name) do
    [{:server, server}] = :ets.lookup(name, :server)
    {:ok, server}
  rescue
    _no_table in [ArgumentError, MatchError] -> {:error, :not_started}
  end

  # For the connections of instances.

  @doc false
  @spec announce_to(name(), node(), term()) :: :ok
  def announce_to(name, node, message) do
    with {:ok, %{node: ^node}} <- fetch(name), do: :ets.insert(name, {{:told, self()}, message})
    :ok
  rescue
    ArgumentError -> :ok
  end

  @doc false
  @spec announce(t()) :: :ok
  def announce(server) do
    for {{:told, pid}, message} <- :ets.match_object(server.name, {{:told, :_}, :_}) do
      if Process.alive?(pid),
        do: send(pid, message),
        else: :ets.delete(server.name, {:told, pid})
    end

    :ok
  end

  @doc false
  @spec starting?(name() | nil, node()) :: boolean()
  def starting?(nil, _node), do: false

  def starting?(name, node),
    do: match?({:ok, %{node: ^node, state: state}} when state != :ready, status(name))

  @doc """
  Returns when the bridge answers. Never exits: `{:error, :timeout}`, `{:error, :not_started}` when there is no such server, and
  `{:error, {:gave_up, ending}}`.
  """
  @spec await(name(), timeout()) ::
          :ok | {:error, :timeout | :not_started | {:gave_up, ending() | nil}}
  def await(name, timeout \\ 30_000), do: Owner.await(name, timeout)

  @doc "How it does."
  @spec status(name()) :: {:ok, status()} | {:error, :not_started}
  def status(name) do
    with {:ok, server} <- fetch(name) do
      case :ets.lookup(name, :status) do
        [{:status, status}] -> {:ok, status}
        [] -> {:ok, Owner.first_status(server)}
      end
    end
  rescue
    ArgumentError -> {:error, :not_started}
  end
end
