defmodule Ringbridge.Lab do
  @moduledoc """
  What the integration tests stand on: a private epmd, a cookie, and bridges as processes of their own.

  The cookie reaches a bridge by its environment, never by an argument: any user can read those.
  """
  import ExUnit.Callbacks, only: [start_supervised!: 1]

  alias Ringbridge.Program

  @root Path.expand("../..", __DIR__)
  @patience_ms 60_000

  # Tests kill workers more often than a role would bear that is not being tested.
  @patient """
  max_restarts = 10_000
  backoff_max_ms = 100
  """

  defstruct [:node, :program, :config, :directory]

  @type t :: %__MODULE__{
          node: node(),
          program: pid(),
          config: Path.t(),
          directory: Path.t()
        }

  @spec root() :: Path.t()
  def root, do: @root

  @spec cookie() :: atom()
  def cookie, do: :persistent_term.get({__MODULE__, :cookie})

  @doc "Makes this VM a hidden node that listens nowhere, in a cluster of our own; its epmd."
  @spec open() :: pid()
  def open do
    {:ok, [[port]]} = :init.get_argument(:epmd_port)
    epmd = {["epmd", "-port", "#{port}", "-address", "127.0.0.1"], name: "epmd"}
    {:ok, epmd} = Program.start_link(epmd)
    wait_until("epmd answers", fn -> match?({:ok, _}, epmd_names()) end)

    cookie = :crypto.strong_rand_bytes(12) |> Base.encode16() |> String.to_atom()
    :persistent_term.put({__MODULE__, :cookie}, cookie)
    name = :"test#{System.pid()}@127.0.0.1"
    options = %{name_domain: :longnames, hidden: true, dist_listen: false}
    {:ok, _pid} = :net_kernel.start(name, options)
    Node.set_cookie(cookie)
    write_cookie(cookie)
    epmd
  end

  # For the VMs that we start: a home with the cookie in it, as any user has one.
  defp write_cookie(cookie) do
    home = Path.join(System.tmp_dir!(), "ringbridge-home-#{System.pid()}")
    File.mkdir_p!(home)
    path = Path.join(home, ".erlang.cookie")
    File.write!(path, Atom.to_string(cookie))
    File.chmod!(path, 0o400)
    :persistent_term.put({__MODULE__, :home}, home)
    System.at_exit(fn _status -> File.rm_rf!(home) end)
  end

  @doc """
  Starts a bridge under the test's supervisor and returns when it can be called.

  Options: `:name` (before the @), `:roles` (more TOML for the configuration), `:env`, `:config` (a whole
  configuration instead of the tests' own), `:await` (false: return at once).
  """
  @spec start_bridge(keyword()) :: t()
  def start_bridge(options \\ []) do
    name = Keyword.get(options, :name, unique("bridge"))
    directory = Path.join(System.tmp_dir!(), "ringbridge-#{System.pid()}-#{name}")
    File.mkdir_p!(directory)
    ExUnit.Callbacks.on_exit(fn -> File.rm_rf!(directory) end)
    config = Path.join(directory, "ringbridge.toml")
    settings = Keyword.get(options, :config, config(Keyword.get(options, :roles, "")))
    File.write!(config, settings <> tls(System.get_env("RINGBRIDGE_TEST_TLS")))

    env = [
      {"RINGBRIDGE_COOKIE", Keyword.get(options, :cookie, Atom.to_string(cookie()))},
      {"PYTHONPATH", @root}
    ]

    argv = ["serve", "--config", config, "--name", "#{name}@127.0.0.1"]

    program =
      start_supervised!({Program, {command() ++ argv, program_options(options, env, name)}})

    bridge = %__MODULE__{node: :"#{name}@127.0.0.1", program: program, config: config}
    bridge = %{bridge | directory: directory}
    if Keyword.get(options, :await, true), do: await(bridge)
    bridge
  end

  # RINGBRIDGE_TEST_TLS is a folder of scripts/make-test-certificates; this VM then has -proto_dist inet_tls
  # (tls_test.exs starts it so).
  defp tls(nil), do: ""

  defp tls(folder) do
    """

    [tls]
    cert = "#{folder}/node.pem"
    key = "#{folder}/node.key"
    ca = "#{folder}/ca.pem"
    """
  end

  defp program_options(options, env, name) do
    [name: name, env: env ++ Keyword.get(options, :env, []), cd: @root]
  end

  @doc "Returns when the bridge is connected to and answers; raises with its log when it does not."
  @spec await(t()) :: :ok
  def await(bridge) do
    wait_until("#{bridge.node} answers", @patience_ms, fn ->
      if Program.ended?(bridge.program), do: raise("#{bridge.node} has ended")
      Node.connect(bridge.node) == true
    end)

    {:ok, _stats} = GenServer.call({Ringbridge.JobDispatcher, bridge.node}, :stats)
    :ok
  rescue
    error ->
      said = bridge.program |> Program.lines() |> Enum.take(-30) |> Enum.join("\n")
      reraise "#{Exception.message(error)}; it said:\n#{said}", __STACKTRACE__
  end

  @doc "A home directory with the cluster's cookie in it, for programs that look there."
  @spec home() :: Path.t()
  def home, do: :persistent_term.get({__MODULE__, :home})

  @doc "Starts another Elixir node, hidden, that evaluates the expression; its program."
  @spec start_node(String.t()) :: pid()
  def start_node(expression) do
    name = unique("other")
    argv = ["elixir", "--name", "#{name}@127.0.0.1", "--hidden", "--no-halt", "-e", expression]
    start_supervised!({Program, {argv, name: name, env: [{"HOME", home()}]}})
  end

  @doc """
  Starts another Elixir node with a GenServer `:desk`, and connects to it; its name. What it is asked to
  `{:forward, request}` it hands on to `to`, which answers in its stead.
  """
  @spec start_desk(GenServer.server()) :: node()
  def start_desk(to) do
    program =
      start_node("""
      defmodule Desk do
        use GenServer
        def init(to), do: {:ok, to}

        def handle_call({:forward, request}, from, to) do
          send(to, {:"$gen_call", from, request})
          {:noreply, to}
        end
      end

      {:ok, _} = GenServer.start_link(Desk, #{inspect(to)}, name: :desk)
      IO.puts("I am " <> Atom.to_string(node()))
      """)

    "I am " <> name = Program.await_line(program, ~r/^I am /)
    node = String.to_atom(name)
    true = Node.connect(node)
    node
  end

  @doc "The program `ringbridge`, run by the interpreter that the project was set up with."
  @spec command() :: [String.t()]
  def command do
    [python(), "-c", "import sys; from bridge.cli import main; sys.exit(main())"]
  end

  @spec python() :: Path.t()
  def python, do: System.get_env("PYTHON_FOR_TESTS") || Path.join(@root, ".venv/bin/python")

  @doc "The tests' configuration: the default roles, one that takes little, and `roles`."
  @spec config(String.t()) :: String.t()
  def config(roles \\ "") do
    """
    [node]
    drain_ms = 1_000
    admin_nodes = ["test*@127.0.0.1"]

    [roles.echo]
    command = ["#{@root}/build/bin/rb-echo"]
    #{@patient}
    [roles.sleep]
    command = ["#{@root}/build/bin/rb-sleep"]
    #{@patient}

    [roles.simulation]
    command = ["#{@root}/build/bin/rb-simulation"]
    timeout_default_ms = 300_000

    [roles.small]
    command = ["#{@root}/build/bin/rb-echo"]
    payload_bytes_max = 65_536

    #{roles}
    """
  end

  @doc "A name for a node that no other test has."
  @spec unique(String.t()) :: String.t()
  def unique(stem), do: "#{stem}#{System.unique_integer([:positive])}"

  @doc """
  Looks until it is true, and returns what was seen then. For what cannot tell us itself (other processes, counters of the bridge); a test
  that can be told uses `assert_receive`.
  """
  @spec wait_until(String.t(), pos_integer(), (() -> as_boolean(seen))) :: seen when seen: term()
  def wait_until(what, timeout_ms \\ @patience_ms, ready) do
    deadline = System.monotonic_time(:millisecond) + timeout_ms
    look(what, timeout_ms, deadline, ready)
  end

  defp look(what, timeout_ms, deadline, ready) do
    cond do
      seen = ready.() ->
        seen

      System.monotonic_time(:millisecond) > deadline ->
        raise "not within #{timeout_ms} ms: #{what}"

      true ->
        Process.sleep(10)
        look(what, timeout_ms, deadline, ready)
    end
  end

  defp epmd_names, do: :erl_epmd.names({127, 0, 0, 1})
end
