defmodule Ringbridge.ClientFailoverTest do
  @moduledoc "The Elixir client and two bridges: which one is asked, and what happens when it refuses, is killed, or comes back."
  use ExUnit.Case

  import Ringbridge.BridgeCase, only: [await_busy: 2, await_idle: 2, stats: 1]
  alias Ringbridge.{Error, Lab, Program}

  @moduletag timeout: 240_000, capture_log: true
  @long "30000"

  setup context do
    name = Module.concat(__MODULE__, "I#{context.line}")

    bridges =
      for at <- [1, 2],
          at <= Map.get(context, :bridges, 2),
          do: start("client#{at}_#{context.line}")

    nodes = Enum.map(bridges, & &1.node)
    options = [name: name, nodes: nodes, backoff_max_ms: 200, connect_timeout: 60_000]
    start_supervised!({Ringbridge, options})
    # Both are connected: which one is asked is then a choice.
    for node <- nodes, do: await_up(name, node)
    {:ok, name: name, bridges: bridges, nodes: nodes}
  end

  defp start(name) do
    Lab.start_bridge(
      name: name,
      roles: """
      [roles.twice]
      command = ["#{Lab.root()}/build/bin/rb-sleep"]
      idempotent = true

      [roles.primes]
      command = ["#{Lab.root()}/build/bin/rb-primes"]
      """
    )
  end

  defp await_up(name, node) do
    Lab.wait_until("#{node} is connected", fn ->
      Ringbridge.Route.pick(name, [node], :echo, []) != nil
    end)
  end

  defp kill(bridge), do: Program.kill(Program.os_pid(bridge.program), "KILL")
  defp accepted(node), do: stats(node).accepted

  # The bridge that the next call is sent to. Both are on this host, so it is not always the first.
  defp nearest(context) do
    {node, _epoch} = Ringbridge.Route.pick(context.name, context.nodes, :sleep, [])
    bridge = Enum.find(context.bridges, &(&1.node == node))
    [other] = context.nodes -- [node]
    {bridge, other}
  end

  test "a bridge that is killed amid a call: an error, nobody is exited, the next call goes on",
       context do
    test = self()
    {bridge, other} = nearest(context)
    before = accepted(other)

    caller =
      spawn(fn ->
        Process.flag(:trap_exit, true)
        answer = Ringbridge.call(context.name, :sleep, @long, timeout: :infinity)
        send(test, {self(), answer, Process.info(self(), :messages)})
      end)

    await_busy(bridge.node, :sleep)
    kill(bridge)
    assert_receive {^caller, {:error, error}, {:messages, []}}, 60_000
    assert %Error{reason: {:down, :noconnection}, role: :sleep} = error
    assert error.node == bridge.node
    # The job may have run: nobody ran it twice.
    assert accepted(other) == before
    assert Ringbridge.call(context.name, :echo, "x") == {:ok, "x"}
    refute_received _
  end

  test "a job that may run twice goes to the other bridge by itself", context do
    {bridge, other} = nearest(context)
    before = accepted(other)

    jobs =
      for {role, options} <- [sleep: [idempotent: true], twice: [retry: 1]] do
        job = fn -> Ringbridge.call(context.name, role, "3000", [timeout: 60_000] ++ options) end
        job = Task.async(job)
        await_busy(bridge.node, role)
        job
      end

    kill(bridge)
    for job <- jobs, do: assert({:ok, _} = Task.await(job, 60_000))
    assert accepted(other) == before + 2
  end

  @tag bridges: 1
  test "a bridge that comes back: calls wait for it, and what may run twice is sent again",
       context do
    [bridge] = context.bridges
    [name, _host] = bridge.node |> Atom.to_string() |> String.split("@")

    ask = fn ->
      Ringbridge.call(context.name, :sleep, "3000", timeout: 60_000, idempotent: true)
    end

    job = Task.async(ask)
    once = Task.async(fn -> Ringbridge.call(context.name, :sleep, "3001", timeout: 60_000) end)
    await_busy(bridge.node, :sleep)
    kill(bridge)
    assert {:error, %Error{reason: {:down, _}}} = Task.await(once, 60_000)
    late = Task.async(fn -> Ringbridge.call(context.name, :echo, "late", timeout: 60_000) end)
    :ok = stop_supervised(name)
    start(name)
    assert {:ok, _} = Task.await(job, 60_000)

    assert Task.await(late, 60_000) in [
             {:ok, "late"},
             {:error, %Error{reason: {:down, :noconnection}, role: :echo, node: bridge.node}}
           ]

    assert Ringbridge.call(context.name, :echo, "x") == {:ok, "x"}
  end

  test "a role that drains is left alone, also by batches, stages and streams, until it takes jobs again",
       context do
    {bridge, other} = nearest(context)
    registry = {Ringbridge.WorkerRegistry, bridge.node}
    assert GenServer.call(registry, :drain_node) == :ok
    before = {accepted(bridge.node), accepted(other)}
    assert Ringbridge.call(context.name, :echo, "x") == {:ok, "x"}
    assert Ringbridge.await(Ringbridge.async(context.name, :echo, "y")) == {:ok, "y"}
    # Each of a role that the client does not know yet to drain there.
    assert Ringbridge.call_many(context.name, :small, ["z"]) == {:ok, [{:ok, "z"}]}
    assert Ringbridge.pipeline(context.name, [:twice, :echo], "1") == {:ok, "1"}
    assert Enum.take(Ringbridge.stream(context.name, :primes, "30"), 2) == [2, 3]
    assert elem(before, 0) == accepted(bridge.node)
    assert elem(before, 1) + 5 <= accepted(other)

    # When all refuse, the first refusal is the answer.
    assert GenServer.call({Ringbridge.WorkerRegistry, other}, :drain_node) == :ok
    assert {:error, %Error{reason: :draining}} = Ringbridge.call(context.name, :echo, "x")
    assert GenServer.call(registry, :resume_node) == :ok
    assert Ringbridge.call(context.name, :echo, "x") == {:ok, "x"}
  end

  test "a bridge that is stopped is left while it drains, and what it has is answered", context do
    {bridge, other} = nearest(context)
    job = Task.async(fn -> Ringbridge.call(context.name, :sleep, "500") end)
    await_busy(bridge.node, :sleep)
    before = accepted(other)
    Program.signal(bridge.program, "TERM")

    Lab.wait_until("the other one is asked", fn ->
      {:ok, "x"} = Ringbridge.call(context.name, :echo, "x")
      accepted(other) > before
    end)

    assert {:ok, _} = Task.await(job, 60_000)
    assert Program.await_exit(bridge.program, 60_000) == 0
    assert Ringbridge.call(context.name, :echo, "x") == {:ok, "x"}
  end

  test "a bridge that is killed under many callers: each is answered once, nothing is left",
       context do
    {bridge, other} = nearest(context)

    callers =
      for i <- 1..200 do
        Task.async(fn ->
          options = [timeout: 60_000, idempotent: true]
          answer = Ringbridge.call(context.name, :echo, "#{i}", options)
          {answer, Process.info(self(), :message_queue_len)}
        end)
      end

    kill(bridge)

    for {task, i} <- Enum.with_index(callers, 1) do
      assert {{:ok, result}, {:message_queue_len, 0}} = Task.await(task, 60_000)
      assert result == "#{i}"
    end

    await_idle(other, 60_000)
  end
end
