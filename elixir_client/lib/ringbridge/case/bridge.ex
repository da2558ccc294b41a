defmodule Ringbridge.Case.Bridge do
  @moduledoc """
  A real bridge for tests and for `mix ringbridge.harness`: the program `ringbridge serve` with a node's name and a cookie of its own.

  It ends with the process that started it, and with the VM (by `setpriv`, where there is one). What it logs is kept, and told when it
  does not come up. An application has its bridge under `Ringbridge.Server`; this is none for production.

  It is no such server on purpose. What a test or the harness kills has to stay away until it is looked at, and a server starts it again; its lines
  are read by whoever tests, not told to the VM's Logger; and it needs no program but `ringbridge` itself, while a server's shepherd has to be found
  as well.
  """
  use GenServer

  alias Ringbridge.Case.Wait

  @ready_ms 60_000
  @grace_ms 10_000
  @lines_max 500

  @type option ::
          {:config, Path.t()}
          | {:command, Path.t() | [String.t()]}
          | {:env, [{String.t(), String.t()}]}

  @doc """
  Starts it and returns when it answers and its workers are there.

  `:config` (required) is its ringbridge.toml, `:command` the program with its first arguments (`command/0` by default), `:env`
  more of its environment.
  """
  @spec start_link([option()]) :: GenServer.on_start()
  def start_link(options), do: GenServer.start_link(__MODULE__, options, timeout: 2 * @ready_ms)

  @doc false
  @spec child_spec([option()]) :: Supervisor.child_spec()
  def child_spec(options) do
    %{
      id: __MODULE__,
      start: {__MODULE__, :start_link, [options]},
      restart: :temporary,
      shutdown: @grace_ms + 2_000
    }
  end

  @doc "The program `ringbridge`, from the PATH or from `.venv/bin`; nil when there is none."
  @spec command() :: Path.t() | nil
  def command do
    in_venv = Path.expand(".venv/bin/ringbridge")
    System.find_executable("ringbridge") || if File.regular?(in_venv), do: in_venv
  end

  @doc "The bridge's node."
  @spec node(GenServer.server()) :: node()
  def node(bridge), do: GenServer.call(bridge, :node)

  @doc "Its process id at the operating system."
  @spec os_pid(GenServer.server()) :: pos_integer()
  def os_pid(bridge), do: GenServer.call(bridge, :os_pid)

  @doc "The last lines that it has logged, the oldest first."
  @spec lines(GenServer.server()) :: [String.t()]
  def lines(bridge), do: GenServer.call(bridge, :lines)

  @doc "The option of an instance that is to be connected with it."
  @spec cookie(node()) :: [cookie: atom()]
  def cookie(node), do: [cookie: :persistent_term.get({__MODULE__, node})]

  @doc """
  `:ok` when it has as many processes below it as when it was started (a shepherd, an init and a worker for each worker), else a text.
  """
  @spec whole(node()) :: :ok | String.t()
  def whole(node) do
    bridge = name(node)
    {os_pid, at_first} = GenServer.call(bridge, :family)

    case length(descendants(os_pid)) do
      ^at_first -> :ok
      now -> "it has #{now} processes below it, and had #{at_first}"
    end
  end

  @doc """
  Children, grandchildren and so on of a process of the operating system; of all its threads, for shepherds are forked by a thread of
  their own. Linux only.
  """
  @spec descendants(pos_integer()) :: [pos_integer()]
  def descendants(os_pid) do
    children =
      for file <- Path.wildcard("/proc/#{os_pid}/task/*/children"),
          {:ok, text} <- [File.read(file)],
          child <- String.split(text),
          do: String.to_integer(child)

    children ++ Enum.flat_map(children, &descendants/1)
  end

  @impl GenServer
  def init(options) do
    Process.flag(:trap_exit, true)
    node = :"case#{System.pid()}x#{System.unique_integer([:positive])}@127.0.0.1"
    cookie = :crypto.strong_rand_bytes(12) |> Base.encode16() |> String.to_atom()

    with {:ok, argv} <- argv(options, node),
         state = open(argv, options, node, cookie),
         {:ok, state} <- ready(state) do
      :persistent_term.put({__MODULE__, node}, cookie)
      Process.register(self(), name(node))
      complete(state)
    else
      {:error, why} -> {:stop, {:shutdown, why}}
    end
  end

  defp argv(options, node) do
    case List.wrap(options[:command] || command()) do
      [] ->
        {:error, "no program ringbridge in the PATH or in .venv/bin; name it by :command"}

      [program | arguments] ->
        config = Path.expand(Keyword.fetch!(options, :config))
        serve = ~w(serve --config #{config} --name #{node} --ready-fd 1)

        case System.find_executable(program) do
          nil -> {:error, "no program #{program}"}
          path -> {:ok, guarded([path | arguments] ++ serve)}
        end
    end
  end

  # The VM's own child that starts programs ends with it, and the kernel then ends this one.
  defp guarded(argv) do
    case System.find_executable("setpriv") do
      nil -> argv
      setpriv -> [setpriv, "--pdeathsig", "KILL" | argv]
    end
  end

  defp open([program | arguments], options, node, cookie) do
    env = [{"RINGBRIDGE_COOKIE", Atom.to_string(cookie)} | Keyword.get(options, :env, [])]

    port =
      Port.open({:spawn_executable, program}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        line: 16_384,
        args: arguments,
        env: for({key, value} <- env, do: {to_charlist(key), to_charlist(value)})
      ])

    {:os_pid, os_pid} = Port.info(port, :os_pid)
    %{port: port, os_pid: os_pid, node: node, cookie: cookie, lines: [], ended: nil, family: 0}
  end

  # Its only line on stdout; all the others are its log's.
  defp ready(%{port: port} = state) do
    receive do
      {^port, {:data, {_, ~s({"name": ) <> _}}} -> {:ok, state}
      {^port, {:data, {_, line}}} -> ready(keep(line, state))
      {^port, {:exit_status, status}} -> failed("ended with status #{status}", state)
    after
      @ready_ms ->
        stop(state)
        failed("was not ready in #{@ready_ms} ms", state)
    end
  end

  defp failed(what, state) do
    said = state.lines |> Enum.take(20) |> Enum.reverse() |> Enum.join("\n")
    {:error, "the bridge #{what}; it said:\n#{said}"}
  end

  defp complete(state) do
    with :ok <- Ringbridge.LocalNode.ensure([state.node], fn -> {:ok, state.cookie} end),
         true <- Node.connect(state.node) do
      case Wait.settled(@ready_ms, fn -> workers(state.node) end) do
        :ok -> {:ok, %{state | family: length(descendants(state.os_pid))}}
        why -> useless(state, why)
      end
    else
      why -> useless(state, "cannot connect with #{state.node}: #{inspect(why)}")
    end
  end

  # Who is stopped in init/1 has no terminate/2.
  defp useless(state, why) do
    :persistent_term.erase({__MODULE__, state.node})
    stop(state)
    {:stop, {:shutdown, why}}
  end

  # A worker that was given up at its start will not come; its role's calls say so.
  defp workers(node) do
    {:ok, workers} = GenServer.call({Ringbridge.WorkerRegistry, node}, :list)

    case for %{state: state} = worker <- workers, state in [:starting, :restarting], do: worker.id do
      [] -> :ok
      ids -> "workers #{inspect(ids)} are starting"
    end
  end

  @impl GenServer
  def handle_call(:node, _from, state), do: {:reply, state.node, state}
  def handle_call(:os_pid, _from, state), do: {:reply, state.os_pid, state}
  def handle_call(:lines, _from, state), do: {:reply, Enum.reverse(state.lines), state}
  def handle_call(:family, _from, state), do: {:reply, {state.os_pid, state.family}, state}

  @impl GenServer
  def handle_info({port, {:data, {_, line}}}, %{port: port} = state),
    do: {:noreply, keep(line, state)}

  def handle_info({port, {:exit_status, status}}, %{port: port} = state),
    do: {:noreply, %{state | ended: status}}

  # Of the port; and its owner's, which ends us by itself.
  def handle_info({:EXIT, _from, _reason}, state), do: {:noreply, state}

  @impl GenServer
  def terminate(_reason, state) do
    :persistent_term.erase({__MODULE__, state.node})
    if state.ended == nil, do: stop(state)
  end

  defp stop(%{port: port} = state) do
    kill(state, "TERM")

    receive do
      {^port, {:exit_status, _}} -> :ok
    after
      @grace_ms -> kill(state, "KILL")
    end
  end

  defp kill(state, signal),
    do: System.cmd("kill", ["-#{signal}", "#{state.os_pid}"], stderr_to_stdout: true)

  defp keep(line, state), do: %{state | lines: Enum.take([line | state.lines], @lines_max)}
  defp name(node), do: :"#{node}.bridge"
end
