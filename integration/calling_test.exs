defmodule Ringbridge.CallingTest do
  @moduledoc "The ways of asking from a BEAM (docs/calling.md), with nothing but GenServer.call: asynchronous, many at once, shared."
  use Ringbridge.BridgeCase

  @long "10000"

  @moduletag :smoke

  setup %{node: node} do
    on_exit(fn -> await_idle(node) end)
  end

  defp accepted(node), do: stats(node).accepted

  describe "submit_async" do
    test "gives a reference at once, and one message later", %{node: node} do
      assert {:ok, ref} = call(node, {:submit_async, :sleep, "50"})
      assert is_reference(ref) and node(ref) == node
      assert_receive {:ringbridge, ^ref, {:ok, _}}
      refute_receive _, 50
    end

    test "of a large payload and a large answer", %{node: node} do
      bytes = :rand.bytes(3_000_000)
      assert {:ok, ref} = call(node, {:submit_async, :echo, bytes, timeout: 20_000})
      assert_receive {:ringbridge, ^ref, {:ok, ^bytes}}
    end

    test "takes terms, and refuses in the call's answer", %{node: node} do
      assert {:ok, ref} = call(node, {:submit_async, :echo, %{a: [1, self()]}})
      me = self()
      assert_receive {:ringbridge, ^ref, {:ok, %{a: [1, ^me]}}}
      assert {:error, {:bad_request, why}} = call(node, {:submit_async, :nobody, "x"})
      assert why =~ "nobody"
    end

    test "is cancelled by its reference, from any process that has it", %{node: node} do
      assert {:ok, ref} = call(node, {:submit_async, :sleep, @long})
      assert :ok = Task.await(Task.async(fn -> call(node, {:cancel, ref}) end))
      assert_receive {:ringbridge, ^ref, {:error, :cancelled}}
      assert {:error, :unknown_job} = call(node, {:cancel, ref})
      assert {:error, :unknown_job} = call(node, {:cancel, make_ref()})
    end

    test "ends with its caller", %{node: node} do
      test = self()

      {caller, down} =
        spawn_monitor(fn ->
          send(test, call(node, {:submit_async, :sleep, @long}))
          Process.sleep(:infinity)
        end)

      assert_receive {:ok, _ref}
      await_busy(node, :sleep)
      Process.exit(caller, :kill)
      assert_receive {:DOWN, ^down, _, _, :killed}
      await_idle(node)
    end

    test "goes on without its caller where it was asked to", %{node: node} do
      before = stats(node)
      test = self()
      request = {:submit_async, :sleep, "300", orphan: :finish}
      {_, down} = spawn_monitor(fn -> send(test, call(node, request)) end)
      assert_receive {:ok, _ref}
      assert_receive {:DOWN, ^down, _, _, :normal}
      await_idle(node)
      assert stats(node).answered.ok - before.answered.ok == 1
    end
  end

  describe "submit_many" do
    test "answers in the order of the payloads", %{node: node} do
      payloads = for i <- 1..500, do: "payload #{i}"
      assert {:ok, answers} = call(node, {:submit_many, :echo, payloads})
      assert answers == Enum.map(payloads, &{:ok, &1})
      assert {:ok, []} = call(node, {:submit_many, :echo, []})
      assert {:ok, [{:ok, 1}, {:ok, 2}]} = call(node, {:submit_many, :echo, [1, 2]})

      assert {:ok, [{:ok, {:a, "b"}}, {:ok, "c"}]} =
               call(node, {:submit_many, :echo, [{:a, "b"}, "c"]})
    end

    test "takes and gives megabytes", %{node: node} do
      payloads = for _ <- 1..20, do: :rand.bytes(500_000)

      assert {:ok, answers} =
               GenServer.call(
                 {Ringbridge.JobDispatcher, node},
                 {:submit_many, :echo, payloads},
                 30_000
               )

      assert answers == Enum.map(payloads, &{:ok, &1})
    end

    test "tells each element's fate in its place", %{node: node} do
      assert {:ok, [{:ok, _}, {:error, {:job_failed, _, _}}, {:error, :deadline_exceeded}]} =
               call(node, {:submit_many, :sleep, ["1", "no number", @long], timeout: 300})
    end

    test "is an error as a whole where nothing was accepted", %{node: node} do
      assert {:error, {:bad_request, _}} = call(node, {:submit_many, :nobody, ["a", "b"]})
      assert {:error, {:bad_request, why}} = call(node, {:submit_many, :echo, "no list"})
      assert why =~ "proper list"
      assert {:error, {:bad_request, _}} = call(node, {:submit_many, :echo, ["a" | "b"]})
      assert {:error, {:bad_request, _}} = call(node, {:submit_many, :echo, ["a"], dedupe: "k"})
    end

    test "ends with its caller, also half done", %{node: node} do
      request = {:submit_many, :sleep, ["0" | List.duplicate(@long, 20)]}

      assert {:timeout, _} =
               catch_exit(GenServer.call({Ringbridge.JobDispatcher, node}, request, 300))

      await_idle(node)
      refute_receive _, 50
    end
  end

  describe "dedupe" do
    test "callers with one key share a run", %{node: node} do
      key = "run #{System.unique_integer()}"
      ask = fn -> submit(node, :sleep, "300", %{dedupe: key, detail: true}) end
      tasks = for _ <- 1..5, do: Task.async(ask)
      answers = Task.await_many(tasks, 60_000)
      assert [{:ok, _, %{job: job}} | _] = answers
      assert Enum.all?(answers, &match?({:ok, _, %{job: ^job}}, &1))
    end

    test "an answer is kept for its time", %{node: node} do
      key = {System.unique_integer([:positive])} |> elem(0)

      assert {:ok, "x", %{job: job}} =
               submit(node, :echo, "x", %{dedupe: key, ttl: 60_000, detail: true})

      before = accepted(node)
      assert {:ok, "x", %{job: ^job}} = submit(node, :echo, "x", %{dedupe: key, detail: true})
      assert accepted(node) == before + 1
      assert {:error, {:bad_request, why}} = submit(node, :echo, "y", %{dedupe: key})
      assert why =~ "another payload"
    end

    test "an answer that a lost connection took along can be asked for again", %{node: node} do
      key = "lost #{System.unique_integer()}"
      options = %{dedupe: key, ttl: 60_000, orphan: :finish, detail: true}
      task = Task.async(fn -> catch_exit(submit(node, :sleep, "3000", options)) end)
      await_busy(node, :sleep)
      assert Node.disconnect(node)
      assert {{:nodedown, ^node}, _} = Task.await(task, 60_000)
      assert {:ok, _, %{job: job}} = submit(node, :sleep, "3000", options)
      assert {:ok, _, %{job: ^job}} = submit(node, :sleep, "3000", options)
    end

    test "the run goes on until the last caller has left", %{node: node} do
      options = %{dedupe: "leaving #{System.unique_integer()}"}
      stays = Task.async(fn -> submit(node, :sleep, "3000", options) end)
      await_busy(node, :sleep)
      assert {:timeout, _} = catch_exit(submit(node, :sleep, "3000", options, 100))
      assert {:ok, _} = Task.await(stays, 60_000)

      for _ <- 1..2,
          do: assert({:timeout, _} = catch_exit(submit(node, :sleep, @long, options, 100)))

      await_idle(node)
    end
  end

  test "how soon a worker notices that its caller has died is measured", %{node: node} do
    figures = fn ->
      {:ok, status} = GenServer.call({Ringbridge.Diagnostics, node}, :status)
      Enum.find(status.roles, &(&1.name == "sleep"))
    end

    before = figures.()

    for _ <- 1..10 do
      caller = spawn(fn -> submit(node, :sleep, @long) end)
      await_busy(node, :sleep)
      Process.exit(caller, :kill)
      await_idle(node)
      # Else it is found busy, and the next caller is killed before its job is placed.
      await_free(node, :sleep)
    end

    later = figures.()
    assert later.stopped_placed - before.stopped_placed == 10
    assert later.told_word - before.told_word == 10
    assert later.noticed - before.noticed > 0
    assert later.noticed_ns > before.noticed_ns
  end

  test "meta is told with a job's status", %{node: node} do
    {:ok, ref} = call(node, {:submit_async, :sleep, @long, meta: %{user: "ann", page: 3}})
    await_busy(node, :sleep)
    assert {:ok, jobs} = call(node, {:jobs, :sleep})
    assert [%{job: id, meta: %{user: "ann", page: 3}}] = jobs
    assert {:ok, %{meta: %{user: "ann"}, state: :placed}} = call(node, {:status, id})
    assert {:ok, []} = call(node, {:jobs, :echo})
    assert :ok = call(node, {:cancel, ref})
    assert_receive {:ringbridge, ^ref, {:error, :cancelled}}
  end
end
