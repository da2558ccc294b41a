defmodule Ringbridge.BridgeCase do
  @moduledoc """
  A test case whose module has a bridge of its own: `use Ringbridge.BridgeCase`, with the options of
  `Ringbridge.Lab.start_bridge/1`. Tests get it as `bridge` in their context.
  """
  use ExUnit.CaseTemplate

  alias Ringbridge.{Lab, Program}

  @patience_ms 60_000

  using options do
    quote do
      import Ringbridge.BridgeCase
      alias Ringbridge.{Lab, Proc, Program}

      # One bridge at a time: the machine that runs this may have two cores.
      @moduletag timeout: 240_000

      setup_all do
        bridge = Lab.start_bridge(unquote(options))
        {:ok, bridge: bridge, node: bridge.node}
      end
    end
  end

  @doc "One call to the dispatcher, as any GenServer's caller writes it."
  def call(node, request, timeout_ms \\ @patience_ms) do
    GenServer.call({Ringbridge.JobDispatcher, node}, request, timeout_ms)
  end

  def submit(node, role, payload), do: call(node, {:submit, role, payload})

  def submit(node, role, payload, options, timeout_ms \\ @patience_ms) do
    call(node, {:submit, role, payload, options}, timeout_ms)
  end

  def stats(node) do
    {:ok, stats} = call(node, :stats)
    stats
  end

  @doc "One request to the WorkerRegistry."
  def registry(node, request),
    do: GenServer.call({Ringbridge.WorkerRegistry, node}, request, @patience_ms)

  @doc """
  Starts `count` callers of a role that naps, each of which makes `jobs` calls, one after the other,
  for 0 to 3 ms each.
  """
  def nap_callers(node, role, count, jobs) do
    for n <- 1..count do
      Task.async(fn ->
        for k <- 1..jobs, do: submit(node, role, "#{rem(n + k, 4)}", %{}, 30_000)
      end)
    end
  end

  @doc "What all calls of these callers were answered."
  def await_answers(callers), do: callers |> Task.await_many(60_000) |> List.flatten()

  @doc "The workers of a role, as the registry tells of them."
  def workers(node, role) do
    {:ok, workers} = registry(node, :list)
    Enum.filter(workers, &(&1.role == role))
  end

  def os_pid_of_worker(node, role) do
    ready = fn -> Enum.find(workers(node, role), &(&1.state == :ready)) end
    Lab.wait_until("a worker of #{role} is ready", ready).os_pid
  end

  @doc "Returns when a worker of the role was given a job and has not ended it; its os_pid."
  def await_busy(node, role) do
    busy = fn -> Enum.find(workers(node, role), &(&1.in_flight > 0)) end
    Lab.wait_until("a worker of #{role} is busy", busy).os_pid
  end

  @doc """
  The same, and it has begun one: killed before that, its job would go to another worker. The bridge looks for it every
  half second.
  """
  def await_begun(node, role) do
    Lab.wait_until("a worker of #{role} has begun a job", fn -> begun(node, role) end).os_pid
  end

  @doc "Such a worker of the role, or `nil`."
  def begun(node, role),
    do: Enum.find(workers(node, role), &(&1.in_flight > max(0, &1.placed - &1.begun)))

  @doc "Returns when no worker of the role has a job any more; its answer may be here before that."
  def await_free(node, role) do
    Lab.wait_until("no worker of #{role} is busy", fn ->
      Enum.all?(workers(node, role), &(&1.in_flight == 0))
    end)
  end

  @doc "Returns when no accepted job is without its end."
  def await_idle(node, timeout_ms \\ @patience_ms) do
    Lab.wait_until("no job is in flight", timeout_ms, fn -> stats(node).in_flight == 0 end)
  end

  @doc "Returns when the instance is connected to the bridge and, for `:nif`, its lane is open."
  def await_lane(name, node, lane) do
    Lab.wait_until("#{inspect(name)} has its lane to #{node}", fn ->
      Ringbridge.Route.pick(name, [node], :echo, []) != nil and
        (lane == :dist or lane_to(name, node) != nil)
    end)
  end

  @doc "How many requests have gone over the instance's lane to the bridge; `nil` without one."
  def sent(name, node) do
    if lane = lane_to(name, node), do: elem(Ringbridge.Lane.Native.figures(lane), 0)
  end

  defp lane_to(name, node) do
    {:ok, instance} = Ringbridge.Instance.fetch(name)

    with {_node, epoch} <- Ringbridge.Route.pick(name, [node], :echo, []),
         do: Ringbridge.Lane.Opener.lane(instance, node, epoch)
  end

  @doc "What it gives, and how many milliseconds that took."
  def timed(fun) do
    {microseconds, result} = :timer.tc(fun)
    {div(microseconds, 1_000), result}
  end

  @doc "The bridge's log as far as it matches."
  def log(bridge, pattern), do: bridge.program |> Program.lines() |> Enum.filter(&(&1 =~ pattern))
end
