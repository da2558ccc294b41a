defmodule Ringbridge.CancelTest do
  @moduledoc """
  The caller's life is the job's life (DESIGN, section 3): plain calls get it, no API is needed.

  Each row of the table of docs/cancel.md: what cancels here, what runs on in `cancel_not_test.exs`.
  """
  use Ringbridge.BridgeCase

  # A sleep of ten seconds that is left over would be seen by every test after it.
  @long "600000"
  @request {:submit, :sleep, @long}

  @moduletag :smoke

  setup %{node: node} do
    on_exit(fn -> await_idle(node) end)
    {:ok, to: {Ringbridge.JobDispatcher, node}}
  end

  defp assert_free_again(node) do
    assert {:ok, _} = submit(node, :sleep, "0"), "the worker is busy still"
    assert stats(node).in_flight == 0
  end

  # Kills the process that `fun` runs in once its job is in a worker's hands.
  defp kill_when_busy(node, fun) do
    {caller, ref} = spawn_monitor(fun)
    await_busy(node, :sleep)
    Process.exit(caller, :kill)
    assert_receive {:DOWN, ^ref, :process, ^caller, :killed}
  end

  describe "GenServer.call" do
    test "that times out frees its worker, and no late answer comes", %{node: node} do
      before = stats(node)
      assert {:timeout, _} = catch_exit(submit(node, :sleep, @long, %{}, 200))
      assert_free_again(node)
      assert Map.get(stats(node).answered, :ok, 0) - Map.get(before.answered, :ok, 0) == 1
      refute_receive _, 100
    end

    test "whose caller is killed frees its worker", %{node: node, to: to} do
      kill_when_busy(node, fn -> GenServer.call(to, @request, :infinity) end)
      assert_free_again(node)
    end

    test "that is given up while it waits never runs", %{node: node} do
      first = Task.async(fn -> submit(node, :sleep, "3000") end)
      await_busy(node, :sleep)
      assert {:timeout, _} = catch_exit(submit(node, :sleep, @long, %{}, 50))
      assert {:ok, _} = Task.await(first, 60_000)
      assert_free_again(node)
    end

    test "of a thousand callers that all give up leaves nothing", %{node: node} do
      1..1_000
      |> Task.async_stream(
        fn _ -> assert {:timeout, _} = catch_exit(submit(node, :sleep, @long, %{}, 100)) end,
        max_concurrency: 1_000,
        timeout: 30_000
      )
      |> Stream.run()

      await_idle(node)
      assert_free_again(node)
    end
  end

  describe "a task" do
    test "that is shut down frees its worker, killed or asked to", %{node: node, to: to} do
      for how <- [:brutal_kill, 5_000] do
        task = Task.async(fn -> GenServer.call(to, @request, :infinity) end)
        await_busy(node, :sleep)
        assert Task.shutdown(task, how) == nil
        assert_free_again(node)
      end
    end

    test "whose owner gives up Task.await frees its worker", %{node: node, to: to} do
      {owner, ref} =
        spawn_monitor(fn ->
          Task.await(Task.async(fn -> GenServer.call(to, @request, :infinity) end), 200)
        end)

      assert_receive {:DOWN, ^ref, :process, ^owner, {:timeout, {Task, :await, _}}}
      assert_free_again(node)
    end
  end

  describe "send_request" do
    test "given up by receive_response's deadline frees its worker", %{node: node, to: to} do
      id = :gen_server.send_request(to, @request)
      await_busy(node, :sleep)
      assert :timeout = :gen_server.receive_response(id, 50)
      assert_free_again(node)
    end

    test "abandoned by demonitor frees its worker", %{node: node, to: to} do
      id = :gen_server.send_request(to, @request)
      await_busy(node, :sleep)
      assert Process.demonitor(id, [:flush])
      assert_free_again(node)
    end

    test "of a collection that is given up: all of it is cancelled", %{node: node, to: to} do
      requests =
        Enum.reduce(1..3, :gen_server.reqids_new(), fn label, requests ->
          :gen_server.send_request(to, @request, label, requests)
        end)

      await_busy(node, :sleep)
      assert :timeout = :gen_server.receive_response(requests, 50, true)
      assert_free_again(node)
    end

    test "whose caller ends, normally too, frees its worker", %{node: node, to: to} do
      test = self()

      {caller, ref} =
        spawn_monitor(fn ->
          :gen_server.send_request(to, @request)
          send(test, :sent)
          receive do: (:end -> :ok)
        end)

      assert_receive :sent
      await_busy(node, :sleep)
      send(caller, :end)
      assert_receive {:DOWN, ^ref, :process, ^caller, :normal}
      assert_free_again(node)
    end
  end

  # On OTP 25 its requests bear the tag {Ref, Node}, and are sent by a process in between; from 26 on by the caller, with an alias.
  describe "multi_call" do
    test "that times out frees its worker", %{node: node} do
      nodes = [node]
      assert {[], ^nodes} = GenServer.multi_call(nodes, Ringbridge.JobDispatcher, @request, 150)
      assert_free_again(node)
    end

    test "whose caller is killed frees its worker", %{node: node} do
      multi_call = fn -> GenServer.multi_call([node], Ringbridge.JobDispatcher, @request) end
      kill_when_busy(node, multi_call)
      assert_free_again(node)
    end

    test "of a process that has other calls under way ends its own alone", %{node: node, to: to} do
      id = :gen_server.send_request(to, {:submit, :sleep, "3000"})
      await_busy(node, :sleep)

      assert {[], [_]} = GenServer.multi_call([node], Ringbridge.JobDispatcher, @request, 100)

      Lab.wait_until("one of two is left", fn -> stats(node).in_flight == 1 end)
      assert {:reply, {:ok, "3000"}} = :gen_server.receive_response(id, 60_000)
      assert_free_again(node)
    end
  end

  describe "a forwarded call" do
    test "ends with the one who asked", %{node: node, to: to} do
      kill_when_busy(node, fn ->
        send(to, {:"$gen_call", {self(), make_ref()}, @request})
        Process.sleep(:infinity)
      end)

      assert_free_again(node)
    end

    test "of a GenServer on another node answers, and ends with, the one who asked", %{
      node: node,
      to: to
    } do
      desk = {:desk, Lab.start_desk(to)}
      assert {:ok, "x"} = GenServer.call(desk, {:forward, {:submit, :echo, "x"}})
      kill_when_busy(node, fn -> GenServer.call(desk, {:forward, @request}, :infinity) end)
      assert_free_again(node)
    end
  end

  describe "a node" do
    test "that goes down takes its jobs along, however they were asked for", %{node: node, to: to} do
      for request <- [
            @request,
            {:submit_async, :sleep, @long},
            {:submit_many, :sleep, [@long, @long]}
          ] do
        expression = """
        GenServer.call(#{inspect(to)}, #{inspect(request)}, :infinity)
        Process.sleep(:infinity)
        """

        other = Lab.start_node(expression)
        await_busy(node, :sleep)
        Program.signal(other, "KILL")
        assert_free_again(node)
      end
    end

    test "whose connection breaks loses its jobs", %{node: node, to: to} do
      task = Task.async(fn -> catch_exit(GenServer.call(to, @request, :infinity)) end)
      await_busy(node, :sleep)
      assert Node.disconnect(node)
      assert {{:nodedown, ^node}, _} = Task.await(task, 60_000)
      assert_free_again(node)
    end
  end

  describe "cancel" do
    test "by a job's id, from another node, answers its caller", %{node: node, to: to} do
      task = Task.async(fn -> GenServer.call(to, @request) end)
      await_busy(node, :sleep)
      queued = Task.async(fn -> GenServer.call(to, @request) end)
      Lab.wait_until("two jobs are known", fn -> length(jobs(node)) == 2 end)
      other = Lab.start_desk(to)

      # The last first: it waits, and would begin in the other's stead.
      for %{job: id} <- Enum.reverse(jobs(node)) do
        assert :ok = :erpc.call(other, GenServer, :call, [to, {:cancel, id}])
        assert {:error, :unknown_job} = call(node, {:cancel, id})
      end

      assert Task.await_many([task, queued]) == List.duplicate({:error, :cancelled}, 2)
      assert_free_again(node)
    end
  end

  defp jobs(node) do
    {:ok, jobs} = call(node, {:jobs, :sleep})
    jobs
  end
end
