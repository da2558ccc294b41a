defmodule Ringbridge.Case do
  @moduledoc """
  A test case for programs that have work done through Ringbridge: each test has an instance of its own.

      defmodule MyApp.ReportsTest do
        use Ringbridge.Case, async: true, roles: %{reports: MyApp.Reports, half: &{:ok, div(&1, 2)}}

        test "a report is rendered, also after its worker has died", %{compute: compute} do
          assert {:ok, "report of may"} = Ringbridge.call(compute, :reports, "may")
          crash_worker(compute, :reports)
          assert {:ok, "report of may"} = Ringbridge.call(compute, :reports, "may")
          assert_nothing_leaked(compute)
        end
      end

  (This example is run by the project's tests, `elixir_client/test/case_test.exs`.) The instance is a `Ringbridge.Loopback`, all of it in this
  VM: a queue, deadlines, workers that die and come back. It stands under a name of the test's own, so tests run at the same time.
  `Ringbridge.Test` is the smaller thing: functions in the caller's process, without workers.

  With `config: "ringbridge.toml"` the module's tests share a real bridge, which is started before the first one and ended after the
  last one (`Ringbridge.Case.Bridge`); each test has an instance that is connected with it, and `bridge` in its context, the bridge's node.

  Options of `use`: those of `Ringbridge.Loopback` but `:name`; or `:config`, `:command` (of the program `ringbridge`, found by itself if it
  is in the PATH or in `.venv/bin`) and `:env` (a list of pairs of strings); all others are those of `ExUnit.Case`. A test changes what its loopback has by a tag:

      @tag ringbridge: [slots: 1, depth_max: 2]
      test "what is too much is refused", %{compute: compute} do ... end
  """

  alias Ringbridge.{BeamWorkerLoop, Loopback}
  alias Ringbridge.Case.{Bridge, Wait}

  # Only where tests run.
  @compile {:no_warn_undefined, [ExUnit.Callbacks, ExUnit.AssertionError]}

  @loopback [:roles, :slots, :credit, :depth_max, :timeout, :cancel_ms]
  @bridge [:config, :command, :env]

  # A machine under load is slow; who waits for longer waits for what will not come.
  @patience_ms 60_000

  @doc false
  defmacro __using__(options) do
    {ours, its} = Keyword.split(options, @loopback ++ @bridge)

    quote do
      use ExUnit.Case, unquote(its)
      import Ringbridge.Case

      setup_all do
        Ringbridge.Case.__before_all__(unquote(ours))
      end

      setup context do
        Ringbridge.Case.__before_each__(unquote(ours), context)
      end
    end
  end

  @doc false
  @spec __before_all__(keyword()) :: {:ok, keyword()}
  def __before_all__(options) do
    if options[:config] do
      if Keyword.take(options, @loopback) != [],
        do: raise(ArgumentError, "Ringbridge.Case: :config is of a real bridge; leave out :roles")

      bridge = ExUnit.Callbacks.start_supervised!({Bridge, Keyword.take(options, @bridge)})
      {:ok, bridge: Bridge.node(bridge), bridge_process: bridge}
    else
      {:ok, []}
    end
  end

  @doc false
  @spec __before_each__(keyword(), map()) :: {:ok, keyword()}
  def __before_each__(options, context) do
    name = instance("#{inspect(context.module)} #{context.test}")

    child =
      if context[:bridge_process],
        do: {Ringbridge, [name: name, nodes: [context.bridge]] ++ Bridge.cookie(context.bridge)},
        else:
          {Loopback,
           options
           |> Keyword.take(@loopback)
           |> Keyword.merge(Map.get(context, :ringbridge, []))
           |> Keyword.put(:name, name)}

    _pid = ExUnit.Callbacks.start_supervised!(child)
    {:ok, compute: name}
  end

  # Names of processes are made of it, and an atom has 255 characters at most.
  @name_max 120

  defp instance(text) do
    if String.length(text) <= @name_max,
      do: String.to_atom(text),
      else: :"#{String.slice(text, 0, @name_max - 20)} #{System.unique_integer([:positive])}"
  end

  @doc """
  Returns when the role has at least `count` workers that take jobs. Raises after `timeout_ms`.

  Calls need not wait for that: a job waits for the role's workers, until its deadline.
  """
  @spec await_workers(Ringbridge.name(), Ringbridge.role(), pos_integer(), pos_integer()) :: :ok
  def await_workers(name, role, count \\ 1, timeout_ms \\ @patience_ms) do
    Wait.until("#{count} workers of #{role} at #{inspect(name)}", timeout_ms, fn ->
      length(workers(name, role)) >= count
    end)
  end

  @doc "The pids of the role's workers that take jobs."
  @spec workers(Ringbridge.name(), Ringbridge.role()) :: [pid()]
  def workers(name, role) do
    case bridge(name) do
      nil ->
        if Loopback.serving?(name, role), do: [Loopback.worker(name, role)], else: []

      node ->
        case GenServer.call({Ringbridge.WorkerRegistry, node}, {:lookup, role}) do
          {:ok, %{workers: workers}} -> for %{state: :ready, pid: pid} <- workers, do: pid
          {:error, _unknown} -> []
        end
    end
  end

  @doc """
  Kills a worker of the role, and returns when it is dead. Its jobs are `{:worker_crashed, map}`; it is started again by itself.
  """
  @spec crash_worker(Ringbridge.name(), Ringbridge.role()) :: :ok
  def crash_worker(name, role) do
    :ok = await_workers(name, role)
    [pid | _] = workers(name, role)
    ref = Process.monitor(pid)
    Process.exit(pid, :kill)

    receive do
      {:DOWN, ^ref, :process, ^pid, _reason} -> :ok
    after
      @patience_ms -> raise "a worker of #{role} did not die of :kill"
    end
  end

  @doc "Returns when a worker of the role has a job in hand. Raises after `timeout_ms`."
  @spec await_busy(Ringbridge.name(), Ringbridge.role(), pos_integer()) :: :ok
  def await_busy(name, role, timeout_ms \\ @patience_ms) do
    Wait.until("a worker of #{role} at #{inspect(name)} is busy", timeout_ms, fn ->
      busy?(bridge(name), name, role)
    end)
  end

  defp busy?(nil, name, role) do
    loop = Loopback.worker(name, role)
    loop != nil and BeamWorkerLoop.info(loop).running > 0
  catch
    :exit, _ -> false
  end

  defp busy?(node, _name, role) do
    {:ok, workers} = GenServer.call({Ringbridge.WorkerRegistry, node}, :list)
    Enum.any?(workers, &(to_string(&1.role) == to_string(role) and &1.in_flight > 0))
  end

  @doc """
  Ends the test's instance, and fails if something of it is left; the last line of a test. With :infinity, or a request whose answer
  nobody has fetched, a test has something to tell:

    * each accepted job has its answer, or ends within `timeout_ms`
    * no worker runs or holds a job
    * the mailbox of the test has no answer that nobody fetched
    * once the instance is stopped, none of its processes lives, those of its jobs included
    * of a real bridge: as many processes of the operating system as when it was started (workers that died are back)
  """
  @spec assert_nothing_leaked(Ringbridge.name(), pos_integer()) :: :ok
  def assert_nothing_leaked(name, timeout_ms \\ @patience_ms) do
    node = bridge(name)
    to = if node, do: {Ringbridge.JobDispatcher, node}, else: Loopback.bridge(name)

    settled("each accepted job has its answer", timeout_ms, fn ->
      {:ok, stats} = GenServer.call(to, :stats)
      if stats.in_flight == 0, do: :ok, else: "#{stats.in_flight} jobs have none"
    end)

    settled("no worker holds a job", timeout_ms, fn -> held(node, name) end)
    no_answers_left()
    processes = if node, do: [], else: Loopback.processes(name)
    stop(name, node)

    settled("no process of the instance lives", timeout_ms, fn ->
      case Enum.filter(processes, &Process.alive?/1) do
        [] -> :ok
        left -> Enum.map_join(left, ", ", &inspect({&1, Process.info(&1, :dictionary)}))
      end
    end)

    if node, do: settled("the bridge has its processes", timeout_ms, fn -> Bridge.whole(node) end)
    :ok
  end

  defp held(nil, name) do
    running =
      for pid <- Loopback.processes(name),
          {:dictionary, dictionary} <- [Process.info(pid, :dictionary)],
          match?({BeamWorkerLoop, :init, 1}, dictionary[:"$initial_call"]),
          info = BeamWorkerLoop.info(pid),
          info.running + info.waiting > 0,
          do: info

    if running == [], do: :ok, else: inspect(running)
  catch
    # One died between the two, and is started again.
    :exit, reason -> inspect(reason)
  end

  defp held(node, _name) do
    {:ok, workers} = GenServer.call({Ringbridge.WorkerRegistry, node}, :list)

    case for %{in_flight: n} = worker when n > 0 <- workers, do: worker.id do
      [] -> :ok
      ids -> "workers #{inspect(ids)} hold jobs"
    end
  end

  # What the client leaves only of requests that nobody waited for.
  defp no_answers_left do
    {:messages, messages} = Process.info(self(), :messages)

    left =
      Enum.filter(messages, fn
        {[:alias | ref], _answer} when is_reference(ref) -> true
        {:ringbridge, ref, _answer} when is_reference(ref) -> true
        {:ringbridge_lane, ref, _kind, _data} when is_reference(ref) -> true
        _other -> false
      end)

    if left != [], do: fail("answers that nobody fetched: #{inspect(left, limit: 10)}")
  end

  defp stop(name, nil), do: ExUnit.Callbacks.stop_supervised!({Loopback, name})
  defp stop(name, _node), do: ExUnit.Callbacks.stop_supervised!({Ringbridge, name})

  defp bridge(name) do
    case Ringbridge.Instance.fetch(name) do
      {:ok, %{mode: :dist, nodes: [node | _]}} -> node
      _loopback -> nil
    end
  end

  defp settled(what, timeout_ms, look) do
    case Wait.settled(timeout_ms, look) do
      :ok -> :ok
      why -> fail("not so within #{timeout_ms} ms: #{what}; #{why}")
    end
  end

  @spec fail(String.t()) :: no_return()
  defp fail(message), do: raise(ExUnit.AssertionError, message: message)
end
