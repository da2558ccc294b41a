defmodule Ringbridge.Server.Owner do
  @moduledoc """
  Owns the port to the shepherd: starts a bridge, says when it is ready, passes on what it logs, and starts it again.

  A life begins when the watcher says that the last one is over, and ends with the port's `:exit_status`: what the shepherd
  said before that (`Ringbridge.Server.Wire`) tells how. A shepherd that ends without a word was killed, and the kernel kills its bridge.

  Nothing here waits but for the watcher, and in `terminate/2` for the bridge's end.
  """
  use GenServer

  require Logger

  alias Ringbridge.{Backoff, Deadline, Server, Telemetry}
  alias Ringbridge.Server.{Options, OsProcess, Output, Watcher, Wire}

  # The shepherd's kill, and its word of it.
  @last_words_ms 3_000

  defstruct [
    :server,
    :port,
    :shepherd,
    :bridge,
    :backoff,
    :how,
    :begun_us,
    :ready_us,
    :last_end,
    :timer,
    telemetry?: false,
    state: :starting,
    starts: 0,
    failures: 0,
    output: %Output{},
    waiting: []
  ]

  @doc "One for a server, under its supervisor."
  @spec start_link(Server.t()) :: GenServer.on_start()
  def start_link(server),
    do: GenServer.start_link(__MODULE__, server, name: registered(server.name))

  @doc "See `Ringbridge.Server.await/2`."
  @spec await(Server.name(), timeout()) ::
          :ok | {:error, :timeout | :not_started | {:gave_up, Server.ending() | nil}}
  def await(name, timeout) do
    await_until(name, Deadline.from_now(timeout))
  end

  # An owner that was killed has a successor, which is asked again.
  defp await_until(name, until_ms) do
    GenServer.call(registered(name), :await, Deadline.left(until_ms))
  catch
    :exit, {:timeout, _call} ->
      {:error, :timeout}

    :exit, {{:shutdown, {:gave_up, ending}}, _call} ->
      {:error, {:gave_up, ending}}

    :exit, {:noproc, _call} ->
      await_again(name, until_ms)

    :exit, {:killed, _call} ->
      await_again(name, until_ms)

    :exit, {_ended, _call} ->
      {:error, :not_started}
  end

  defp await_again(name, until_ms) do
    cond do
      Server.fetch(name) == {:error, :not_started} ->
        {:error, :not_started}

      Deadline.past?(until_ms) ->
        {:error, :timeout}

      true ->
        Process.sleep(10)
        await_until(name, until_ms)
    end
  end

  @doc "What is known of a server whose owner has not begun."
  @spec first_status(Server.t()) :: Server.status()
  def first_status(server), do: status(%__MODULE__{server: server})

  @impl GenServer
  def init(server) do
    # So that terminate/2 runs and the bridge ends in order. A port's end is a message, too.
    Process.flag(:trap_exit, true)
    backoff = %Backoff{min_ms: server.backoff_min_ms, max_ms: server.backoff_max_ms}

    {:ok, %__MODULE__{server: server, backoff: backoff, telemetry?: Telemetry.available?()},
     {:continue, :begin}}
  end

  @impl GenServer
  def handle_continue(:begin, state), do: begin(state)

  @impl GenServer
  def handle_call(:await, _from, %{state: :ready} = state), do: {:reply, :ok, state}

  def handle_call(:await, from, state),
    do: {:noreply, %{state | waiting: [from | state.waiting]}}

  @impl GenServer
  def handle_info({port, {:data, bytes}}, %{port: port} = state) do
    {:noreply, bytes |> Wire.decode() |> heard(state) |> told()}
  end

  def handle_info({port, {:exit_status, _status}}, %{port: port} = state), do: ended(state)

  # A shepherd that ended before it had read all of a frame: the port ends by EPIPE, and there is no :exit_status.
  def handle_info({:EXIT, port, _reason}, %{port: port} = state), do: ended(state)
  def handle_info(:begin, state), do: begin(%{state | timer: nil})

  # The EXIT of a port whose :exit_status has come before it; words of a port that was closed.
  def handle_info(_other, state), do: {:noreply, state}

  @impl GenServer
  def terminate(_reason, %{port: nil}), do: :ok

  def terminate(_reason, state) do
    grace_ms = state.server.shutdown
    command(state.port, Wire.stop(grace_ms))
    await_end(state, Deadline.from_now(grace_ms + @last_words_ms))
  end

  # The port closes with this process, should it not have ended by then.
  defp await_end(%{port: port} = state, until_ms) do
    receive do
      {^port, {:data, bytes}} -> bytes |> Wire.decode() |> heard(state) |> await_end(until_ms)
      {^port, {:exit_status, _status}} -> state |> close_output() |> stopped()
      {:EXIT, ^port, _reason} -> state |> close_output() |> stopped()
    after
      Deadline.left(until_ms) ->
        Logger.error("#{name(state)}: #{node_of(state)} did not end in time")
    end
  end

  # A life ------------------------------------------------------------------------------------------

  defp begin(state) do
    :ok = Watcher.clear(state.server.name)

    state = %{
      state
      | state: :starting,
        starts: state.starts + 1,
        output: %Output{},
        how: nil,
        begun_us: now_us()
    }

    event(state, :start, %{system_time: System.system_time(), starts: state.starts})

    with {:ok, cookie} <- state.server.cookie.(),
         {:ok, env} <- Options.environment(state.server.env),
         {:ok, order} <- order(state.server, cookie, env),
         {:ok, port} <- open(state.server.programs.shepherd) do
      {:noreply, state |> begun(port, order) |> told()}
    else
      {:error, why} -> failed(%{state | how: {:not_started, why}})
    end
  end

  defp order(server, cookie, env) do
    order = Wire.start(start(server, cookie, env))
    bytes = IO.iodata_length(order)

    if bytes <= Wire.frame_max(),
      do: {:ok, order},
      else:
        {:error,
         "its environment and command line are #{bytes} bytes, and #{Wire.frame_max()} at most (option :env takes names out)"}
  end

  # A shepherd that is not there now, as in the middle of an upgrade, and a host that has no more processes or descriptors, are
  # failures as others are: with a crash here the supervisor's few restarts would be gone within a millisecond.
  defp open(shepherd) do
    {:ok,
     Port.open({:spawn_executable, shepherd}, [
       :binary,
       :exit_status,
       packet: 4,
       args: ["port"],
       env: [{String.to_charlist(Options.cookie_variable()), false}]
     ])}
  rescue
    error in ErlangError -> {:error, "#{shepherd}: #{:file.format_error(error.original)}"}
    error in SystemLimitError -> {:error, "#{shepherd}: #{Exception.message(error)}"}
  end

  defp begun(state, port, order) do
    # The shepherd may have ended already, and its port with it.
    shepherd = with {:os_pid, os_pid} <- Port.info(port, :os_pid), do: OsProcess.identify(os_pid)

    Watcher.note(state.server.name, List.wrap(shepherd))
    command(port, order)
    %{state | port: port, shepherd: shepherd}
  end

  # The cookie goes by stdin: what stands on a command line or in an environment can be read in /proc.
  defp start(server, cookie, env) do
    %{
      argv: server.programs.command ++ arguments(server),
      env: environment(server, env),
      directory: "",
      grace_ms: server.shutdown,
      stdin: if(server.cookie_file, do: "", else: Atom.to_string(cookie))
    }
  end

  defp arguments(server) do
    ["serve", "--config", server.config, "--name", Atom.to_string(server.node)] ++
      cookie_arguments(server) ++
      ["--ready-fd", "3"] ++
      ["--log-format", "json", "--log-level", Atom.to_string(server.log_level)]
  end

  # A bridge that knows the file hides it from its workers.
  defp cookie_arguments(%{cookie_file: nil}), do: ["--cookie-fd", "0"]
  defp cookie_arguments(%{cookie_file: path}), do: ["--cookie-file", Path.expand(path)]

  # In front the environment that the bridge is of, so that a role's `python` is that one; at the end this VM's own
  # programs, for an epmd that has to be started.
  defp environment(server, env) do
    erts = Path.join([:code.root_dir(), "erts-#{:erlang.system_info(:version)}", "bin"])

    path = [
      Path.dirname(hd(server.programs.command)),
      System.get_env("PATH", "/usr/bin:/bin"),
      erts
    ]

    System.get_env()
    |> Map.put("PATH", Enum.join(path, ":"))
    |> Map.merge(Map.new(env))
    |> Enum.reject(fn {name, value} -> value == nil or name == Options.cookie_variable() end)
  end

  # A port that has ended takes no command; its :exit_status is under way. One that is full has a shepherd that somebody stopped.
  defp command(port, frame) do
    Port.command(port, frame, [:nosuspend])
  rescue
    ArgumentError -> false
  end

  # What the shepherd says -----------------------------------------------------------------------------

  defp heard({:started, os_pid}, state) do
    bridge = OsProcess.identify(os_pid)
    Watcher.note(state.server.name, List.wrap(state.shepherd) ++ List.wrap(bridge))
    %{state | bridge: bridge}
  end

  defp heard({:ready, _line}, state) do
    Logger.info("#{name(state)}: #{node_of(state)} is ready", bridge: node_of(state))
    now_us = now_us()
    event(state, :ready, %{start_us: now_us - state.begun_us}, %{os_pid: os_pid(state.bridge)})
    Server.announce(state.server)
    for from <- state.waiting, do: GenServer.reply(from, :ok)
    %{state | state: :ready, ready_us: now_us, waiting: []}
  end

  defp heard({:output, bytes}, state), do: say(state, Output.feed(state.output, bytes))
  defp heard({:lost, bytes}, state), do: say(state, Output.lost(state.output, bytes))
  defp heard({:exited, how}, state), do: %{state | how: how}

  defp heard({:error, errno, text}, state) do
    why = "the shepherd could not start it: #{text} (#{:file.format_error(posix(errno))})"
    %{state | how: {:not_started, why}}
  end

  defp heard({:unknown, frame}, state) do
    Logger.error("#{name(state)}: the shepherd is of another release: #{inspect(frame)}")
    state
  end

  # Those that a start meets; file knows their words by the name.
  defp posix(1), do: :eperm
  defp posix(2), do: :enoent
  defp posix(5), do: :eio
  defp posix(7), do: :e2big
  defp posix(8), do: :enoexec
  defp posix(11), do: :eagain
  defp posix(12), do: :enomem
  defp posix(13), do: :eacces
  defp posix(20), do: :enotdir
  defp posix(23), do: :enfile
  defp posix(24), do: :emfile
  defp posix(26), do: :etxtbsy
  defp posix(36), do: :enametoolong
  defp posix(40), do: :eloop
  defp posix(71), do: :eproto
  defp posix(errno), do: errno

  defp say(state, {lines, output}) do
    for {level, line} <- lines, do: Logger.log(level, line, bridge: node_of(state))
    %{state | output: output}
  end

  defp close_output(state), do: say(state, Output.close(state.output))

  # Its end --------------------------------------------------------------------------------------------

  defp ended(state) do
    state = close_output(state)

    failed(%{state | port: nil, shepherd: nil, bridge: nil, how: state.how || :shepherd_killed})
  end

  # One that was ready for long is no failure in a row.
  defp failed(state) do
    up_us = exited(state, false)
    held? = up_us >= state.backoff.max_ms * 1_000
    failures = if held?, do: 1, else: state.failures + 1
    backoff = if held?, do: Backoff.reset(state.backoff), else: state.backoff
    {pause_ms, backoff} = Backoff.next(backoff, :rand.uniform())
    last_end = %{how: state.how, said: Output.said(state.output)}

    state = %{
      state
      | state: :waiting,
        ready_us: nil,
        failures: failures,
        backoff: backoff,
        last_end: last_end
    }

    if failures >= state.server.max_failures do
      Logger.error("#{name(state)}: #{tell(state)}; giving up after #{failures} in a row")
      event(state, :give_up, %{failures: failures}, %{how: last_end.how})
      {:stop, {:shutdown, {:gave_up, last_end}}, told(state)}
    else
      Logger.error("#{name(state)}: #{tell(state)}; starting it again in #{pause_ms} ms")
      event(state, :restart, %{pause_ms: pause_ms, failures: failures}, %{how: last_end.how})
      timer = Process.send_after(self(), :begin, pause_ms)
      {:noreply, told(%{state | timer: timer})}
    end
  end

  defp tell(state), do: "#{node_of(state)} " <> how(state.last_end.how)

  defp how({:status, 0}), do: "ended, and nobody here had asked it to"
  defp how({:status, status}), do: "ended with status #{status}"
  defp how({:signal, signal}), do: "was ended by signal #{signal}"
  defp how({:not_started, why}), do: "was not started: #{why}"
  defp how(:shepherd_killed), do: "was killed with its shepherd"

  defp stopped(state) do
    state = %{state | how: state.how || :shepherd_killed}
    exited(state, true)
    tell_stopped(state)
  end

  # How long it was ready.
  defp exited(state, stopped?) do
    up_us = if state.ready_us, do: now_us() - state.ready_us, else: 0
    event(state, :exit, %{up_us: up_us}, %{how: state.how, stopped: stopped?})
    up_us
  end

  defp tell_stopped(%{how: {:status, 0}} = state),
    do: Logger.info("#{name(state)}: #{node_of(state)} has ended", bridge: node_of(state))

  defp tell_stopped(state),
    do: Logger.warning("#{name(state)}: #{node_of(state)} #{how(state.how)} as it was stopped")

  defp told(state) do
    :ets.insert(state.server.name, {:status, status(state)})
    state
  end

  defp status(state) do
    %{
      state: state.state,
      node: state.server.node,
      os_pid: os_pid(state.bridge),
      shepherd_os_pid: os_pid(state.shepherd),
      starts: state.starts,
      failures: state.failures,
      last_end: state.last_end
    }
  end

  defp os_pid(nil), do: nil
  defp os_pid(process), do: process.os_pid

  defp registered(name), do: Module.concat(name, Owner)
  defp name(state), do: inspect(state.server.name)
  defp node_of(state), do: state.server.node
  defp now_us, do: System.monotonic_time(:microsecond)

  defp event(state, event, measurements, more \\ %{}) do
    metadata = Map.merge(%{server: state.server.name, node: node_of(state)}, more)
    Telemetry.server(state.telemetry?, event, measurements, metadata)
  end
end
