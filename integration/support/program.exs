defmodule Ringbridge.Program do
  @moduledoc """
  An operating system process of the tests, with what it has said so far. It ends with its owner.

  Facts it rests on: a Port's program is forked by the VM's child setup process, so PDEATHSIG ends it when the
  VM is killed; `setpriv` and `exec` keep the process id, so `os_pid/1` is the program's own.
  """
  use GenServer

  @grace_ms 5_000
  @patience_ms 60_000
  # What it said before is forgotten: one that runs for a night says much.
  @lines_max 5_000

  @type option ::
          {:name, String.t()} | {:env, [{String.t(), String.t()}]} | {:cd, Path.t()}

  @spec start_link({[String.t()], [option()]}) :: GenServer.on_start()
  def start_link({argv, options}), do: GenServer.start_link(__MODULE__, {argv, options})

  @spec child_spec({[String.t()], [option()]}) :: Supervisor.child_spec()
  def child_spec({argv, options}) do
    %{
      id: Keyword.get(options, :name, argv),
      start: {__MODULE__, :start_link, [{argv, options}]},
      restart: :temporary,
      shutdown: @grace_ms + 2_000
    }
  end

  @spec os_pid(GenServer.server()) :: pos_integer()
  def os_pid(program), do: GenServer.call(program, :os_pid)

  @spec ended?(GenServer.server()) :: boolean()
  def ended?(program), do: GenServer.call(program, :status) != nil

  @doc "The lines said so far, stdout and stderr together; of very many the last."
  @spec lines(GenServer.server()) :: [String.t()]
  def lines(program), do: GenServer.call(program, :lines)

  @doc "Waits for a line that matches, also one already said; exits with what was said after the timeout."
  @spec await_line(GenServer.server(), Regex.t(), timeout()) :: String.t()
  def await_line(program, pattern, timeout_ms \\ @patience_ms) do
    case GenServer.call(program, {:await, {:line, pattern}, timeout_ms}, :infinity) do
      {:ok, line} -> line
      {:error, why} -> raise "no line matches #{inspect(pattern)}: #{why}\n#{said(program)}"
    end
  end

  @doc "Waits for the program's end; its exit status (128 + n after signal n)."
  @spec await_exit(GenServer.server(), timeout()) :: non_neg_integer()
  def await_exit(program, timeout_ms \\ @patience_ms) do
    case GenServer.call(program, {:await, :exit, timeout_ms}, :infinity) do
      {:ok, status} -> status
      {:error, why} -> raise "the program did not end: #{why}\n#{said(program)}"
    end
  end

  @spec signal(GenServer.server(), String.t()) :: :ok
  def signal(program, name), do: kill(os_pid(program), name)

  @doc """
  Sends a signal, by its name without SIG, to a process; one that has ended is no error. With `"STOP"` it returns
  when the last thread has stopped: until then the others go on.
  """
  @spec kill(pos_integer(), String.t()) :: :ok
  def kill(os_pid, name) do
    System.cmd("kill", ["-#{name}", "#{os_pid}"], stderr_to_stdout: true)
    if name == "STOP", do: stopped(os_pid), else: :ok
  end

  defp stopped(os_pid) do
    unless Ringbridge.Proc.stopped?(os_pid) do
      Process.sleep(2)
      stopped(os_pid)
    end

    :ok
  end

  defp said(program), do: program |> lines() |> Enum.take(-30) |> Enum.join("\n")

  @impl GenServer
  def init({argv, options}) do
    Process.flag(:trap_exit, true)
    env = for {key, value} <- Keyword.get(options, :env, []), do: {~c"#{key}", ~c"#{value}"}

    port =
      Port.open({:spawn_executable, System.find_executable("setpriv")}, [
        :binary,
        :exit_status,
        :stderr_to_stdout,
        line: 16_384,
        args: ["--pdeathsig", "KILL" | argv],
        env: env,
        cd: Keyword.get(options, :cd, File.cwd!())
      ])

    {:os_pid, os_pid} = Port.info(port, :os_pid)
    state = %{port: port, os_pid: os_pid, lines: [], count: 0, part: "", status: nil, waiting: []}
    {:ok, state}
  end

  @impl GenServer
  def handle_call(:os_pid, _from, state), do: {:reply, state.os_pid, state}
  def handle_call(:status, _from, state), do: {:reply, state.status, state}
  def handle_call(:lines, _from, state), do: {:reply, Enum.reverse(state.lines), state}

  def handle_call({:await, what, timeout_ms}, from, state) do
    case ready(what, state) do
      nil ->
        timer = Process.send_after(self(), {:late, from}, timeout_ms)
        {:noreply, %{state | waiting: [{from, what, timer} | state.waiting]}}

      answer ->
        {:reply, answer, state}
    end
  end

  @impl GenServer
  def handle_info({port, {:data, {:noeol, part}}}, %{port: port} = state) do
    {:noreply, %{state | part: state.part <> part}}
  end

  def handle_info({port, {:data, {:eol, rest}}}, %{port: port} = state) do
    {:noreply, answer(keep(state, state.part <> rest))}
  end

  def handle_info({port, {:exit_status, status}}, %{port: port} = state) do
    {:noreply, answer(%{state | status: status})}
  end

  def handle_info({:late, from}, state) do
    {late, waiting} = Enum.split_with(state.waiting, &match?({^from, _, _}, &1))
    for {from, _, _} <- late, do: GenServer.reply(from, {:error, "not in time"})
    {:noreply, %{state | waiting: waiting}}
  end

  def handle_info({:EXIT, _port, _reason}, state), do: {:noreply, state}

  @impl GenServer
  def terminate(_reason, %{status: nil} = state) do
    kill(state.os_pid, "TERM")

    receive do
      {port, {:exit_status, _}} when port == state.port -> :ok
    after
      @grace_ms -> kill(state.os_pid, "KILL")
    end
  end

  def terminate(_reason, _state), do: :ok

  defp keep(%{count: count} = state, line) when count < 2 * @lines_max,
    do: %{state | lines: [line | state.lines], count: count + 1, part: ""}

  defp keep(state, line) do
    keep(%{state | lines: Enum.take(state.lines, @lines_max), count: @lines_max}, line)
  end

  defp answer(state) do
    waiting =
      Enum.reject(state.waiting, fn {from, what, timer} ->
        answer = ready(what, state)
        if answer, do: {Process.cancel_timer(timer), GenServer.reply(from, answer)}
        answer
      end)

    %{state | waiting: waiting}
  end

  defp ready(:exit, %{status: nil}), do: nil
  defp ready(:exit, %{status: status}), do: {:ok, status}

  defp ready({:line, pattern}, state) do
    cond do
      line = Enum.find(Enum.reverse(state.lines), &(&1 =~ pattern)) -> {:ok, line}
      state.status -> {:error, "the program has ended with status #{state.status}"}
      true -> nil
    end
  end
end
