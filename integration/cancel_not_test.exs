defmodule Ringbridge.CancelNotTest do
  @moduledoc """
  What cannot cancel a job, and why (docs/cancel.md): the bridge hears nothing of it, on any release. The job
  runs to its end. Whoever mends one of these is told by its test.
  """
  use Ringbridge.BridgeCase

  @some "700"
  @request {:submit, :sleep, @some}

  setup %{node: node} do
    on_exit(fn -> await_idle(node) end)
    {:ok, to: {Ringbridge.JobDispatcher, node}}
  end

  # `fun` begins one job and is over before it is: it is then answered as one that nobody gave up.
  defp assert_runs_on(node, fun, count \\ 1) do
    before = {stats(node), stopped(node)}
    fun.()
    await_idle(node)
    assert ok(stats(node)) - ok(elem(before, 0)) == count
    assert stopped(node) == elem(before, 1)
  end

  defp ok(stats), do: Map.get(stats.answered, :ok, 0)

  defp stopped(node) do
    {:ok, status} = GenServer.call({Ringbridge.Diagnostics, node}, :status)
    role = Enum.find(status.roles, &(&1.name == "sleep"))
    {role.stopped_waiting, role.stopped_placed}
  end

  test "an Agent that calls for somebody else is the caller: it ends the job, who asked it does not",
       %{node: node, to: to} do
    ask = fn agent, timeout ->
      catch_exit(Agent.get(agent, fn _ -> GenServer.call(to, @request, :infinity) end, timeout))
    end

    {:ok, agent} = Agent.start(fn -> nil end)
    assert_runs_on(node, fn -> assert {:timeout, _} = ask.(agent, 100) end)

    asker = spawn(fn -> ask.(agent, :infinity) end)
    await_busy(node, :sleep)
    assert_runs_on(node, fn -> Process.exit(asker, :kill) end)

    asking = Task.async(fn -> ask.(agent, :infinity) end)
    await_busy(node, :sleep)
    before = stopped(node)
    Process.exit(agent, :kill)
    assert {:killed, _} = Task.await(asking, 60_000)
    await_idle(node)
    assert stopped(node) != before
  end

  test "a request that is waited for no longer, but not given up, is answered", context do
    %{node: node, to: to} = context

    assert_runs_on(node, fn ->
      id = :gen_server.send_request(to, @request)
      assert :timeout = :gen_server.wait_response(id, 50)
      assert {:reply, {:ok, @some}} = :gen_server.wait_response(id, 60_000)
    end)

    assert_runs_on(node, fn ->
      task = Task.async(fn -> GenServer.call(to, @request) end)
      assert Task.yield(task, 50) == nil
      assert {:ok, {:ok, @some}} = Task.yield(task, 60_000)
    end)
  end

  test "a forwarded call that is given up by one who lives on runs on", %{node: node, to: to} do
    desk = {:desk, Lab.start_desk(to)}

    assert_runs_on(node, fn ->
      assert {:timeout, _} = catch_exit(GenServer.call(desk, {:forward, @request}, 100))
    end)

    # The answer was for the alias of a call that is over.
    refute_receive _, 50
  end

  test "a function that erpc or rpc left behind on its node is the caller", %{node: node, to: to} do
    other = Lab.start_desk(to)
    arguments = [to, @request, :infinity]

    assert_runs_on(node, fn ->
      assert {:erpc, :timeout} = catch_error(:erpc.call(other, GenServer, :call, arguments, 200))
    end)

    assert_runs_on(node, fn ->
      assert {:badrpc, :timeout} = :rpc.call(other, GenServer, :call, arguments, 200)
    end)

    asker = spawn(fn -> :erpc.call(other, GenServer, :call, arguments) end)
    await_busy(node, :sleep)
    assert_runs_on(node, fn -> Process.exit(asker, :kill) end)
  end

  # OTP sends no DEMONITOR_P for a monitor that waits for its connection; the bridge is stopped so that it does wait.
  test "a call that is given up while its connection is being made runs on", context do
    %{node: node, bridge: bridge} = context

    assert_runs_on(node, fn ->
      Node.disconnect(node)
      Program.signal(bridge.program, "STOP")
      assert {:timeout, _} = catch_exit(submit(node, :sleep, @some, %{}, 200))
      Program.signal(bridge.program, "CONT")
      Lab.wait_until("connected again", fn -> node in Node.list(:hidden) end)
    end)

    refute_receive _, 50
  end

  describe "orphan: :finish" do
    test "outlives a call's end", %{node: node} do
      assert_runs_on(node, fn ->
        assert {:timeout, _} = catch_exit(submit(node, :sleep, @some, %{orphan: :finish}, 100))
      end)
    end

    test "outlives a caller of many, and its node", %{node: node, to: to} do
      request = {:submit_many, :sleep, ["1500", "1500"], [orphan: :finish]}
      caller = spawn(fn -> GenServer.call(to, request) end)
      await_busy(node, :sleep)
      assert_runs_on(node, fn -> Process.exit(caller, :kill) end, 2)

      other = Lab.start_node("GenServer.call(#{inspect(to)}, #{inspect(request)}, :infinity)")
      await_busy(node, :sleep)
      assert_runs_on(node, fn -> Program.signal(other, "KILL") end, 2)
    end
  end
end
