defmodule Ringbridge.SemanticsTest do
  @moduledoc "Would an Elixir developer notice that the node is no BEAM? (DESIGN, section 3)"
  use Ringbridge.BridgeCase

  @services [Ringbridge.JobDispatcher, Ringbridge.WorkerRegistry, Ringbridge.Diagnostics]

  describe "the node" do
    test "answers pings, and is connected as a hidden node", %{node: node} do
      assert Node.ping(node) == :pong
      assert Node.connect(node)
      assert node in Node.list(:hidden)
      refute node in Node.list()
    end

    test "can be left and entered again", %{node: node} do
      Node.monitor(node, true)
      assert Node.disconnect(node)
      assert_receive {:nodedown, ^node}
      assert {:ok, "again"} = submit(node, :echo, "again")
    end

    test "answers calls that come while the connection is set up", %{node: node} do
      Node.disconnect(node)

      1..50
      |> Task.async_stream(fn n -> submit(node, :echo, "#{n}") end, max_concurrency: 50)
      |> Enum.each(&assert match?({:ok, {:ok, _}}, &1))
    end
  end

  describe "sys" do
    test "tells the state of the services", %{node: node} do
      for service <- @services do
        assert %{} = :sys.get_state({service, node})
        assert {:status, pid, {:module, _}, [_, :running | _]} = :sys.get_status({service, node})
        assert node(pid) == node
      end
    end

    test "suspends the dispatcher: jobs wait, none is lost", %{node: node} do
      dispatcher = {Ringbridge.JobDispatcher, node}
      :ok = :sys.suspend(dispatcher)
      waiting = Task.async(fn -> submit(node, :echo, "patient") end)
      assert Task.yield(waiting, 100) == nil
      assert {:status, _, _, [_, :suspended | _]} = :sys.get_status(dispatcher)
      :ok = :sys.resume(dispatcher)
      assert {:ok, "patient"} = Task.await(waiting, 60_000)
    end
  end

  describe "a monitor" do
    test "on a name that nobody has goes down at once", %{node: node} do
      ref = Process.monitor({:nobody, node})
      assert_receive {:DOWN, ^ref, :process, {:nobody, ^node}, :noproc}
      assert {:noproc, _} = catch_exit(GenServer.call({:nobody, node}, :hello))
    end

    test "on a service by name and by pid stays while it lives", %{node: node} do
      pid = pid_of(node, Ringbridge.JobDispatcher)
      by_name = Process.monitor({Ringbridge.JobDispatcher, node})
      by_pid = Process.monitor(pid)
      assert {:ok, "x"} = GenServer.call(pid, {:submit, :echo, "x"})
      refute_receive {:DOWN, _, _, _, _}, 100
      assert Process.demonitor(by_name, [:flush])
      assert Process.demonitor(by_pid, [:flush])
    end

    test "goes down with :shutdown when the bridge is told to stop" do
      bridge = Lab.start_bridge()
      node = bridge.node

      refs =
        for service <- @services do
          name = Process.monitor({service, node})
          {service, name, Process.monitor(pid_of(node, service))}
        end

      Program.signal(bridge.program, "TERM")

      for {service, by_name, by_pid} <- refs do
        assert_receive {:DOWN, ^by_name, :process, {^service, ^node}, :shutdown}
        assert_receive {:DOWN, ^by_pid, :process, pid, :shutdown} when is_pid(pid)
      end

      assert Program.await_exit(bridge.program) == 0
    end

    test "goes down with :noconnection when the bridge is killed" do
      bridge = Lab.start_bridge()
      ref = Process.monitor({Ringbridge.JobDispatcher, bridge.node})
      task = Task.async(fn -> catch_exit(submit(bridge.node, :sleep, "10000", %{}, 20_000)) end)
      await_busy(bridge.node, :sleep)
      Program.signal(bridge.program, "KILL")
      assert_receive {:DOWN, ^ref, :process, _, :noconnection}
      assert {{:nodedown, _}, _} = Task.await(task, 60_000)
    end
  end

  describe "the ways to ask" do
    test "multi_call answers for each node, and tells which have none", %{node: node} do
      request = {:submit, :echo, "many"}
      nodes = [node, :"nobody@127.0.0.1"]
      {answers, bad} = GenServer.multi_call(nodes, Ringbridge.JobDispatcher, request, 60_000)
      assert answers == [{node, {:ok, "many"}}]
      assert bad == [:"nobody@127.0.0.1"]

      request = {:submit, :echo, :rand.bytes(200_000)}

      assert {[{^node, {:ok, back}}], []} =
               GenServer.multi_call([node], Ringbridge.JobDispatcher, request, 60_000)

      assert {:submit, :echo, back} == request
      refute_receive _, 50
    end

    test "send_request gives an answer later, and several may be under way", %{node: node} do
      dispatcher = {Ringbridge.JobDispatcher, node}
      slow = :gen_server.send_request(dispatcher, {:submit, :sleep, "2000"})
      quick = :gen_server.send_request(dispatcher, {:submit, :echo, "quick"})
      assert {:reply, {:ok, "quick"}} = :gen_server.receive_response(quick, 60_000)
      assert :timeout = :gen_server.wait_response(slow, 10)
      assert {:reply, {:ok, _}} = :gen_server.wait_response(slow, 60_000)
    end

    test "a call may be forwarded: the answer goes to the one who asked", %{node: node} do
      # What a GenServer does that returns :noreply and lets another answer its caller.
      tag = make_ref()
      send({Ringbridge.JobDispatcher, node}, {:"$gen_call", {self(), tag}, {:submit, :echo, "x"}})
      assert_receive {^tag, {:ok, "x"}}
    end

    test "the services can be called by pid", %{node: node} do
      for service <- [Ringbridge.JobDispatcher, Ringbridge.WorkerRegistry] do
        assert {:ok, %{}} = GenServer.call(pid_of(node, service), :stats)
      end
    end

    test "casts and stray messages are ignored", %{node: node} do
      for service <- [Ringbridge.JobDispatcher, Ringbridge.WorkerRegistry] do
        assert :ok = GenServer.cast({service, node}, {:submit, :echo, "x"})
        send({service, node}, :hello)
        send({service, node}, {:"$gen_call", :not_a_from, :stats})
        send({service, node}, {:"$gen_call", {self(), make_ref(), 1}, :stats})
        send(pid_of(node, service), List.duplicate(%{stray: "message"}, 10_000))
      end

      refute_receive _, 50
      assert {:ok, "x"} = submit(node, :echo, "x")
    end
  end

  describe "a link" do
    test "to a service holds, and its caller's end does not end the service", %{node: node} do
      pid = pid_of(node, Ringbridge.JobDispatcher)
      {child, ref} = spawn_monitor(fn -> Process.link(pid) && exit(:boom) end)
      assert_receive {:DOWN, ^ref, :process, ^child, :boom}
      assert {:ok, "x"} = submit(node, :echo, "x")
    end

    test "to a pid of the node that is none goes down with noproc", %{node: node} do
      pid = pid_of(node, Ringbridge.JobDispatcher)
      Process.flag(:trap_exit, true)
      nobody = unused_pid(pid)
      Process.link(nobody)
      assert_receive {:EXIT, ^nobody, :noproc}
    end
  end

  defp pid_of(node, service) do
    {:status, pid, _, _} = :sys.get_status({service, node})
    pid
  end

  # The same node and creation, an id that was never given out.
  defp unused_pid(pid) do
    <<131, 88, rest::binary>> = :erlang.term_to_binary(pid)
    <<_id::32, _serial::32, creation::32>> = binary_part(rest, byte_size(rest), -12)
    name = binary_part(rest, 0, byte_size(rest) - 12)
    :erlang.binary_to_term(<<131, 88, name::binary, 0x0FFF_FFFF::32, 0::32, creation::32>>)
  end
end
